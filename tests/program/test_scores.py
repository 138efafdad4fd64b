"""What a program asks a model about texts: likelihoods, choices, ids, rendered prompts."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infer_cli import Continuation, Message, Model, Reply, Request, ScoredPair, as_json
from infer_cli.answering import likelihood
from infer_cli.backend.fake import CHAT_TEMPLATE, FakeBackend, FakeScript
from infer_cli.backend.spec import ContextSpec
from infer_cli.errors import ContextOverflow, ModelInvalid, UnexpectedFailure, UsageError
from infer_cli.program import scores
from tests.cli_helpers import infer, script

RAW = [(" the", " quick"), ("12345", "quick"), ("a", "bc"), ("12345", "slow")]


@pytest.fixture
def model() -> Iterator[Model]:
    with Model.open("fake", width=2) as model:
        yield model


def logprobs_of(context: tuple[int, ...], continuation: tuple[int, ...]) -> list[float]:
    """The fake's, one row at a time."""
    backend = FakeBackend(FakeScript(), ContextSpec(512, 1, 1, 1, 1))
    found, ids = [], context + continuation
    for position, token in enumerate(ids[:-1]):
        backend.decode([token], [position], [0], [True])
        row = backend.logits(1)[0].astype(np.float64)
        if position + 1 >= len(context):
            found.append(float(row[ids[position + 1]] - row.max() - math.log(np.exp(row - row.max()).sum())))
    return found


# --- likelihoods ----------------------------------------------------------------------------------


def test_likelihoods_are_the_model_s(model: Model) -> None:
    results = list(model.score(RAW))
    assert all(isinstance(result, ScoredPair) for result in results)
    for (context, continuation), result in zip(RAW, results, strict=True):
        assert result.error is None
        expected = logprobs_of(tuple(context.encode()), tuple(continuation.encode()))
        assert result.token_logprobs == pytest.approx(expected, abs=1e-4)
        assert result.logprob == math.fsum(result.token_logprobs or ())
        assert (result.tokens, result.n_bytes, result.n_chars) == (
            tuple(continuation.encode()), len(continuation), len(continuation)
        )  # fmt: skip
        assert (result.mode, result.promise) == ("canonical", "canonical")
        assert as_json(result) == likelihood.as_json(result)
    assert [result.greedy for result in results] == [True, True, False, False]


def test_results_have_the_digests_of_infer_score(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"context": one, "continuation": other} for one, other in RAW]
    rows.append({"messages": [{"role": "user", "content": "hello"}], "continuation": "You"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = infer("score", tmp_path / "rows.jsonl", "-o", tmp_path / "out.jsonl", "--ordered", "-m", "fake")
    assert done.code == 0, done.err
    theirs = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    with Model.open("fake", mode="invariant") as model:
        ours = [as_json(result) for result in model.score([*RAW, Continuation("You", messages="hello")])]
    for own, line in zip(ours, theirs, strict=True):
        assert list(own) == list(line)[: len(own)]
        for key in set(own) - {"id", "custom_id", "timings", "usage"}:
            assert own[key] == line[key], key


def test_results_are_in_the_order_of_the_pairs(model: Model) -> None:
    items = [Continuation(f"{i % 7}", f"context {i % 5}", id=str(i)) for i in range(60)]
    alone = {item.id: next(model.score([item])) for item in items}
    results = list(model.score(items))
    assert [result.id for result in results] == [str(i) for i in range(60)]
    assert [result.digest for result in results] == [alone[result.id].digest for result in results]


def test_pairs_are_read_as_they_are_needed(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "N_AT_ONCE", 8)
    n_read = 0

    def endless() -> Iterator[tuple[str, str]]:
        nonlocal n_read
        while True:
            n_read += 1
            yield "context", f"text {n_read}"

    results = model.score(endless())
    tokens = [next(results).tokens for _ in range(20)]
    assert tokens == [tuple(f"text {n + 1}".encode()) for n in range(20)]
    assert n_read == 24
    results.close()  # type: ignore[attr-defined]
    assert next(model.score(RAW)).error is None


def test_a_reply_to_messages(model: Model) -> None:
    messages = [Message("system", "Be brief."), Message("user", "hello")]
    one, other, text = model.score(
        [
            Continuation("You said", messages=messages),
            Continuation("You said", messages="hello"),
            ("hello", "You said"),
        ]
    )
    assert one.greedy and other.greedy and not text.greedy
    reply = model.reply(messages, max_tokens=8, logprobs=0)
    assert reply.logprobs is not None
    assert one.tokens == reply.tokens
    assert one.token_logprobs == pytest.approx([step.logprob for step in reply.logprobs], abs=1e-5)
    assert one.usage.prompt_tokens == reply.usage.prompt_tokens + 7


def test_ids_are_taken_as_they_are(model: Model) -> None:
    context = model.tokenize("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n", parse_special=True)
    assert context[0] == 257
    by_ids, numbers = model.score_ids(
        [(context, list(b"You")), (np.array(context), np.array([89, 258]))]  # type: ignore[list-item]
    )
    (by_messages,) = model.score([Continuation("You", messages="hello")])
    assert (by_ids.digest, by_ids.n_bytes) == (by_messages.digest, 3)
    assert (numbers.error, numbers.tokens, numbers.n_bytes, numbers.n_chars) == (None, (89, 258), 1, 1)
    (half,) = model.score_ids([([65], list("é".encode()[:1]))])
    assert (half.n_bytes, half.n_chars) == (1, 1)


@pytest.mark.parametrize(
    ("item", "code", "words"),
    [
        (("a", ""), 2, "empty"),
        (("a", "\ud800"), 2, "surrogate"),
        (("\ud800", "a"), 2, "surrogate"),
        (("a", None), 2, "NoneType"),
        ((7, "a"), 2, "int"),
        (("x" * 5000, "a"), 5, "window=5000"),
        (Continuation("a", context="b", messages="c"), 2, "exclude"),
        (Continuation("a", messages=[Message("robot", "c")]), 2, "robot"),
        (Continuation("", messages="c"), 2, "empty"),
    ],
)
def test_what_is_wrong_with_one_is_its_own(model: Model, item: Any, code: int, words: str) -> None:
    before, failed, after = model.score([("a", "b"), item, ("a", "c")])
    assert before.error is None and after.error is None
    assert failed.error is not None
    assert failed.error["code"] == code
    assert words in str(failed.error["message"])
    assert (failed.logprob, failed.token_logprobs, failed.greedy) == (None, None, None)
    assert as_json(failed)["logprob"] is None


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (([], [1]), "context has no ids"),
        (([1], []), "continuation has no ids"),
        (([1], [999]), "token 999"),
        (([-1], [1]), "token -1"),
        (([1], ["a"]), "not a list of ids"),
        (([1], None), "not a list of ids"),
    ],
)
def test_ids_that_are_none(model: Model, item: Any, words: str) -> None:
    failed, after = model.score_ids([item, ([1], [2])])
    assert failed.error is not None and words in str(failed.error["message"])
    assert after.error is None


def test_an_empty_context_is_the_prefix_token(model: Model) -> None:
    (empty,), (ids,) = model.score([("", "abc")]), model.score_ids([([model.prefix_token], list(b"abc"))])
    assert empty.digest == ids.digest


def test_damaged_weights_are_the_pair_s_error(tmp_path: Path) -> None:
    with Model.open(script(tmp_path, nan_after=0)) as model:
        (failed,) = model.score([("a", "b")])
        assert failed.error is not None and failed.error["code"] == 4
        reply = model.choose("hello", ["a", "b"])
        assert (reply.text, reply.choices) == (None, None)
        assert reply.error is not None and reply.error["code"] == 4


# --- a whole text ---------------------------------------------------------------------------------

TEXT = "the quick brown fox jumps over the lazy dog and " * 12


@pytest.mark.parametrize(
    ("asked", "flags"),
    [
        ({"window": 64}, ["--ctx", "64"]),
        ({"window": 64, "stride": 16}, ["--ctx", "64", "--stride", "16"]),
        ({"rolling": True, "window": 100, "limit": 3}, ["--rolling", "--ctx", "100", "--limit", "3"]),
        ({"rolling": True}, ["--rolling"]),
        ({}, []),
    ],
)
def test_a_perplexity_is_that_of_the_command(asked: dict[str, Any], flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    theirs = infer("perplexity", tmp_path / "text.txt", "-m", "fake", "--invariant", "--json", *flags).json
    with Model.open("fake", mode="invariant", width=2) as model:
        assert next(model.score(RAW)).error is None
        assert as_json(model.perplexity(TEXT, **asked)) == theirs


def test_a_text_that_can_not_be_measured(model: Model, tmp_path: Path) -> None:
    for asked in ({"window": 0}, {"window": 64, "stride": 64}, {"limit": 0}, {"stride": 9, "rolling": True}):
        with pytest.raises(UsageError):
            model.perplexity(TEXT, **asked)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="empty"):
        model.perplexity("")
    with Model.open("fake", window=100) as small, pytest.raises(ContextOverflow, match="window"):
        small.perplexity(TEXT, window=200)
    with Model.open(script(tmp_path, nan_after=0)) as damaged, pytest.raises(ModelInvalid, match="damaged"):
        damaged.perplexity(TEXT)


def test_measurements_beside_each_other(model: Model) -> None:
    alone = model.perplexity(TEXT, window=32)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(model.perplexity(TEXT, window=32))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert len(list(model.score(RAW))) == len(RAW)
    for thread in threads:
        thread.join()
    assert found == [alone] * 3


# --- choices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["canonical", "invariant", "fast"])
def test_a_choice_is_that_of_infer_run(mode: str, tmp_path: Path) -> None:
    name = script(tmp_path, default_reply="yes, it is")
    theirs = infer("run", "-m", name, f"--{mode}", "Well?", "--choices", "no,yes", "--json").json
    with Model.open(name, mode=mode) as model:  # type: ignore[arg-type]
        ours = model.choose("Well?", ["no", "yes"])
        raw = model.choose(prompt="12345", choices=["quick", "slow"])
        ids = model.choose(prompt=model.tokenize("12345"), choices=["quick", "slow"])
    value = as_json(ours)
    assert list(value) == list(theirs)
    for key in set(theirs) - {"id", "timings", "usage"}:
        assert value[key] == theirs[key], key
    assert (raw.text, raw.digest, raw.choices) == ("quick", ids.digest, ids.choices)
    theirs = infer("run", "-m", name, f"--{mode}", "--raw", "12345", "--choices", "quick,slow", "--json").json
    assert as_json(raw)["choices"] == theirs["choices"]


def test_a_choice_s_likelihood_is_its_score(model: Model) -> None:
    reply = model.choose("hello", ["You said", "I say"])
    assert reply.choices is not None
    scored = model.score(Continuation(choice.text, messages="hello") for choice in reply.choices)
    assert [choice.logprob for choice in reply.choices] == [result.logprob for result in scored]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"messages": "hi"}, "nothing to choose"),
        ({"messages": "hi", "choices": ["a"]}, "nothing to choose"),
        ({"messages": "hi", "choices": ["a", "a"]}, "twice"),
        ({"messages": "hi", "choices": ["a", ""]}, "empty"),
        ({"messages": "hi", "choices": ["a", 1]}, "int"),
        ({"choices": ["a", "b"]}, "nothing to answer"),
        ({"prompt": "", "choices": ["a", "b"]}, "the prompt is empty"),
        ({"prompt": [], "choices": ["a", "b"]}, "the prompt is empty"),
        ({"prompt": "a", "messages": "b", "choices": ["a", "b"]}, "exclude"),
        ({"messages": "x" * 5000, "choices": ["a", "b"]}, "window="),
        ({"messages": "hi", "choices": ["a", "b"], "deadline_s": -1}, "deadline_s"),
    ],
)
def test_a_question_that_is_wrong(model: Model, arguments: dict[str, Any], words: str) -> None:
    reply = model.choose(**arguments)
    assert (reply.text, reply.finish_reason, reply.choices) == (None, "error", None)
    assert reply.error is not None and words in str(reply.error["message"])


def test_a_deadline_ends_a_question(tmp_path: Path) -> None:
    with Model.open(script(tmp_path, token_s=0.05)) as model:
        reply = model.choose("hello", ["a", "b"], deadline_s=0.2)
    assert (reply.text, reply.finish_reason, reply.choices, reply.error) == (None, "deadline", None, None)


# --- texts and ids --------------------------------------------------------------------------------


def test_text_to_ids_and_back(model: Model) -> None:
    text = "é <|im_end|>"
    assert model.tokenize(text) == list(text.encode())
    assert model.tokenize(text, parse_special=True) == [*"é ".encode(), 258]
    assert model.tokenize("a", add_special=True) == [97]
    assert model.detokenize(model.tokenize(text)) == text
    assert model.detokenize([258, 195]) == "\ufffd"
    assert (model.bos, model.eos, model.prefix_token) == (None, 256, 256)
    with pytest.raises(UsageError, match="surrogate"):
        model.tokenize("\ud800")


def test_a_rendered_prompt_can_be_answered(model: Model) -> None:
    messages = [Message("user", "hello")]
    text = model.render(messages)
    assert text == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert model.render(messages, add_generation_prompt=False) == "<|im_start|>user\nhello<|im_end|>\n"
    ids = model.tokenize(text, add_special=True, parse_special=True)
    assert model.reply(prompt=ids).digest == model.reply(messages).digest
    given: list[Any] = [[], [999], ["a"]]
    wrong = [model.reply(prompt=prompt).error for prompt in given]
    assert [error is not None and error["code"] for error in wrong] == [2, 2, 2]
    assert model.chat_template == CHAT_TEMPLATE
    with pytest.raises(UsageError, match="robot"):
        model.render([Message("robot", "x")])


def test_a_chat_template_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}!")
    with Model.open("fake", chat_template=tmp_path / "own.jinja") as model:
        assert model.chat_template == "{{ messages[0].content }}!"
        assert model.render("hello") == "hello!"


# --- threads, the end -----------------------------------------------------------------------------


def test_threads(model: Model) -> None:
    pairs = [(f"context {i % 3}", f"text {i}") for i in range(24)]
    alone = [result.digest for result in model.score(pairs)]
    found: dict[int, list[str]] = {}

    def ask(n: int) -> None:
        mine = pairs[n::4]
        replies = model.answer([Request("hi")] * 2)
        found[n] = [result.digest for result in model.score(mine)]
        assert {reply.text for reply in replies} == {"You said: hi"}
        assert model.choose("hello", ["I", "You"]).text == "You"

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: alone[n::4] for n in range(4)}


def test_close(tmp_path: Path) -> None:
    model = Model.open(script(tmp_path, token_s=0.02))
    results = model.score([("context " * 10, str(i)) for i in range(20)])
    next(model.score([("a", "b")]))
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            list(results)
        except (UnexpectedFailure, UsageError) as e:
            failed.append(e)

    waiting = threading.Thread(target=wait)
    waiting.start()
    model.close()
    waiting.join(20)
    assert len(failed) == 1
    for use in (
        lambda: model.score([("a", "b")]),
        lambda: model.score_ids([([1], [2])]),
        lambda: model.choose("hi", ["a", "b"]),
        lambda: model.tokenize("a"),
        lambda: model.detokenize([1]),
        lambda: model.render("hi"),
        lambda: model.perplexity(TEXT),
    ):
        with pytest.raises(UsageError, match="closed"):
            use()


# --- the real model -------------------------------------------------------------------------------


MESSAGES, CHOICES = "Is the sky blue? Answer yes or no.", ["Yes", "No", "I do not know"]


def _asked(smollm2: Path) -> tuple[Reply, Reply, list[ScoredPair], list[str]]:
    """Two replies, the likelihoods of the first one's choices, and digests that are to be the same."""
    with Model.open(smollm2, mode="invariant") as model:
        reply = model.choose(MESSAGES, CHOICES)
        raw = model.choose(prompt="The capital of France is", choices=[" Paris", " Rome", " Oslo"])
        scored = list(model.score([Continuation(choice, messages=MESSAGES) for choice in CHOICES]))
        among = list(model.score([*[("The sky is", f" {i}") for i in range(9)], *[("Blue", "berry")] * 3]))
        ids = model.score_ids([(model.tokenize("Blue", add_special=True), model.tokenize("berry"))])
        return reply, raw, scored, [among[-1].digest, *(result.digest for result in ids)]


@pytest.mark.weights
def test_a_choice_is_its_score_to_the_byte(smollm2: Path) -> None:
    # A process has one mode: this one may have another.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        reply, raw, scored, digests = process.submit(_asked, smollm2).result()
    assert digests[0] == digests[1]
    assert reply.choices is not None
    assert [choice.logprob for choice in reply.choices] == [result.logprob for result in scored]
    assert [choice.tokens for choice in reply.choices] == [result.tokens for result in scored]
    assert raw.text == " Paris"
    theirs = infer(
        "run", "-m", smollm2, "--invariant", MESSAGES, "--choices", ",".join(CHOICES), "--json"
    ).json
    assert as_json(reply)["choices"] == theirs["choices"]
