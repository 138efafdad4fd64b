"""The Python API: the same replies as the commands, errors as values, nothing done unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import infer_cli
from infer_cli import InferError, Message, Model, Request, SamplingParams, api, as_json
from infer_cli.backend.fake import CHAT_TEMPLATE
from infer_cli.errors import ExitStatus, ModelNotFound, UnexpectedFailure, UsageError
from infer_cli.runtime.llama_environment import ProcessSwitches
from tests.batch_helpers import batch, by_unit, write_rows
from tests.cli_helpers import REPO, infer, script
from tests.project.test_imports import HEAVY

ANSWER = "<think>well</think>A long answer: 日本 ends here, and goes on."


@pytest.fixture
def model() -> Iterator[Model]:
    with Model.open("fake", width=4) as model:
        yield model


def of_run(*arguments: object, model: str = "fake") -> dict[str, object]:
    outcome = infer("run", "-m", model, "--json", *arguments)
    assert outcome.code in (0, 7), outcome.err
    return outcome.json


def in_python(code: str, *arguments: str) -> str:
    """What a program prints on both streams."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=REPO,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.decode()


# --- the package ----------------------------------------------------------------------------------


def test_the_public_names() -> None:
    names = [
        "Continuation", "Delta", "InferError", "Measurement", "Message", "Model", "Reply",
        "ReplyStream", "Request", "SamplingParams", "ScoredPair", "as_json",
    ]  # fmt: skip
    assert infer_cli.__all__ == api.__all__ == names
    assert set(names) <= set(dir(infer_cli))
    for name in names:
        assert getattr(infer_cli, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="'Nothing'"):
        _ = infer_cli.Nothing


def test_importing_the_package_loads_nothing() -> None:
    loaded = set(in_python("import sys, infer_cli; print('\\n'.join(sys.modules))").split())
    assert "infer_cli" in loaded
    assert {name for name in loaded if name.startswith("infer_cli.")} == set()
    assert not HEAVY & loaded


# --- the same replies -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        ([], {}),
        (["-n", "5"], {"max_tokens": 5}),
        (["-t", "0.8", "--seed", "7"], {"temperature": 0.8, "seed": 7}),
        (["-t", "model", "--seed", "7"], {"temperature": "model", "seed": 7}),
        (["-t", "1.5", "--seed", "3", "--top-k", "5"], {"temperature": 1.5, "seed": 3, "top_k": 5}),
        (["--stop", "ends", "--stop", "日"], {"stop": ["ends", "日"]}),
        (["--logprobs", "2", "-n", "9"], {"logprobs": 2, "max_tokens": 9}),
    ],
)
def test_a_reply_is_that_of_infer_run(flags: list[str], asked: dict[str, object], tmp_path: Path) -> None:
    name = script(tmp_path, default_reply=ANSWER)
    theirs = of_run(*flags, "hello", model=name)
    with Model.open(name) as model:
        ours = as_json(model.reply("hello", **asked), model)  # type: ignore[arg-type]
    for key in set(theirs) - {"id", "timings"}:
        assert ours[key] == theirs[key], key
    assert list(ours) == list(theirs)


def test_a_conversation_and_a_raw_prompt(model: Model, tmp_path: Path) -> None:
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello\n"}]
    (tmp_path / "messages.json").write_text(json.dumps(told))
    messages = [Message("system", "Be brief."), Message("user", "hello\n")]
    theirs = of_run("--messages", tmp_path / "messages.json")
    assert model.reply(messages).tokens == tuple(theirs["tokens"])  # type: ignore[arg-type]
    assert model.reply(prompt="once", max_tokens=9).digest == of_run("--raw", "once", "-n", "9")["digest"]


def test_sampling_params_hold_as_they_stand(model: Model) -> None:
    sampling = SamplingParams(temperature=0.8, top_k=3, min_p=0.0)
    (reply,) = model.answer([Request("hello", sampling=sampling, seed=7)])
    flags = ["-t", "0.8", "--seed", "7", "--top-k", "3", "--min-p", "0", "--top-p", "0.95"]
    assert reply.digest == of_run(*flags, "hello")["digest"]


@pytest.mark.parametrize("mode", ["canonical", "invariant"])
def test_replies_are_those_of_a_batch(mode: str, tmp_path: Path) -> None:
    rows = [
        {"custom_id": f"n{i}", "prompt": f"question {i}", **({"seed": 5} if i == 2 else {})} for i in range(9)
    ]
    rows.append({"custom_id": "long", "prompt": "x" * 5000})
    source, output = write_rows(tmp_path / "in.jsonl", *rows), tmp_path / "out.jsonl"
    done = batch(
        source, "-o", output, f"--{mode}", "--parallel", 4, "-t", "1.2", "--seed", "11", "--stop", "7"
    )
    assert done.code == ExitStatus.SOME_ROWS_FAILED, done.err
    requests = [
        Request(
            str(row["prompt"]),
            sampling={"temperature": 1.2},
            stop="7",
            seed=5 if i == 2 else None,
            id=str(row["custom_id"]),
        )
        for i, row in enumerate(rows)
    ]
    with Model.open("fake", mode=mode, width=4) as model:  # type: ignore[arg-type]
        ours = {reply.id: reply for reply in model.answer(requests, run_seed=11)}
    theirs = {line["custom_id"]: line for line in by_unit(output).values()}
    assert ours.keys() == theirs.keys()
    for name, reply in ours.items():
        for key in ("digest", "seed", "text", "mode", "promise", "engine", "error"):
            assert as_json(reply)[key] == theirs[name][key], (name, key)
        if name not in ("n2", "long"):
            assert reply.run_seed == theirs[name]["run_seed"] == 11


def test_replies_come_as_they_end(model: Model) -> None:
    requests = [Request("hello " * 40, id="long"), Request("hi", id="short")]
    assert [reply.id for reply in model.answer(requests)] == ["short", "long"]


def test_requests_are_read_as_there_is_room(model: Model) -> None:
    n_read = 0

    def endless() -> Iterator[Request]:
        nonlocal n_read
        while True:
            n_read += 1
            yield Request("hi", id="same")

    replies = model.answer(endless())
    assert [next(replies).id for _ in range(20)] == ["same"] * 20
    replies.close()  # type: ignore[attr-defined]
    assert n_read < 40


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (Request(), 2, "nothing to answer"),
        (Request(" "), 2, "empty"),
        (Request(prompt=""), 2, "empty"),
        (Request("a", prompt="b"), 2, "exclude"),
        (Request([Message("robot", "hello")]), 2, "robot"),
        (Request([Message("user", None)]), 2, "no content"),
        (Request([Message("user", 5)]), 2, "int"),  # type: ignore[arg-type]
        (Request(["hello"]), 2, "not a Message"),  # type: ignore[list-item]
        (Request("\ud800"), 2, "surrogate"),
        (Request("x" * 5000), 5, "do not fit the window"),
        (Request("a", max_tokens=0), 2, "max_tokens"),
        (Request("a", stop=[""]), 2, "stop"),
        (Request("a", seed=7), 2, "greedy"),
        (Request("a", sampling={"temperature": 1}, seed=-1), 2, "seed"),
        (Request("a", sampling={"temprature": 1}), 2, "temprature"),
        (Request("a", sampling={"temperature": "hot"}), 2, "hot"),
        (Request("a", sampling=SamplingParams(temperature=-1)), 2, "temperature"),
        (Request("a", sampling={"top_k": 3}), 2, "top_k"),
        (Request("a", logprobs=-1), 2, "logprobs"),
        (Request("a", deadline_s=-1), 2, "deadline_s"),
    ],
)
def test_errors_are_values(model: Model, request_: Request, code: int, words: str) -> None:
    other = Request("fine", id="other")
    replies = {reply.id: reply for reply in model.answer([request_, other])}
    assert replies["other"].error is None
    streamed = model.submit(request_)
    assert list(streamed) == []
    for reply in (replies[request_.id], streamed.reply()):
        assert (reply.text, reply.finish_reason) == (None, "error")
        assert reply.error is not None and reply.error["code"] == code
        assert words in str(reply.error["message"])


def test_a_template_that_refuses(tmp_path: Path) -> None:
    refusing = "{{ raise_exception('no such roles') }}"
    with Model.open(script(tmp_path, template=refusing)) as model:
        error = model.reply("hello").error
        assert error is not None and "no such roles" in str(error["message"])
        assert model.reply(prompt="once", max_tokens=3).error is None


def test_more_than_the_window_that_was_planned() -> None:
    with Model.open("fake", window=300) as model:
        error = model.reply("hello").error
        assert error is not None and error["code"] == 5
        assert "window=" in str(error["message"])
        assert model.reply("hello", max_tokens=200).error is None


def test_what_can_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        Model.open()
    assert "infer models pull" in caught.value.hint
    for wrong in ({"mode": "slow"}, {"width": 0}, {"window": 0}, {"threads": 0}, {"gpu_layers": "most"}):
        with pytest.raises(UsageError):
            Model.open("fake", **wrong)
    with pytest.raises(InferError):
        Model.open(tmp_path / "none.gguf")
    (tmp_path / "broken.jinja").write_text("{% for %}")
    with pytest.raises(UsageError, match="chat template"):
        Model.open("fake", chat_template=tmp_path / "broken.jinja")


def test_other_switches_of_the_process_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SWITCH", "1")
    switches = ProcessSwitches()
    switches.hold((("A_SWITCH", "0"),))
    assert os.environ["A_SWITCH"] == "0"
    switches.hold((("A_SWITCH", "0"),))
    with pytest.raises(UsageError, match="mode"):
        switches.hold(())


# --- streams, threads, the end --------------------------------------------------------------------


def test_a_stream(tmp_path: Path) -> None:
    name = script(tmp_path, default_reply=ANSWER, template=CHAT_TEMPLATE + "{# <think> #}")
    with Model.open(name) as model:
        stream = model.submit(Request("hello", logprobs=1))
        deltas = list(stream)
        reply = stream.reply()
    for is_reasoning, text in ((False, reply.text), (True, reply.reasoning)):
        assert "".join(delta.text for delta in deltas if delta.reasoning == is_reasoning) == text
    assert reply.reasoning == "well"
    assert tuple(token for delta in deltas for token in delta.tokens) == reply.tokens
    assert reply.logprobs == tuple(delta.logprobs for delta in deltas if delta.logprobs)
    assert stream.reply() is reply


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Model]:
    with Model.open(script(tmp_path, step_s=0.02), width=4) as model:
        yield model


def test_cancel(slow: Model) -> None:
    stream = slow.submit(Request("hello " * 200))
    first = next(stream)
    threading.Timer(0.1, stream.cancel).start()
    reply = stream.reply()
    assert reply.finish_reason == "cancelled"
    assert reply.error is None
    assert reply.text is not None and reply.text.startswith(first.text) and len(reply.text) < 1000
    with slow.submit(Request("hello " * 200)) as left:
        next(left)
    assert left.reply().finish_reason == "cancelled"


def test_a_deadline_keeps_the_text(slow: Model) -> None:
    reply = slow.reply("hello " * 50, deadline_s=2)
    assert (reply.finish_reason, reply.error) == ("deadline", None)
    assert reply.text is not None and reply.text.startswith("You")


def test_leaving_answers_early_cancels_the_rest(slow: Model) -> None:
    replies = slow.answer([Request("hi", id="hi"), *(Request("hello " * 200) for _ in range(3))])
    assert next(replies).id == "hi"
    replies.close()  # type: ignore[attr-defined]
    began = time.monotonic()
    assert slow.reply("hi").error is None
    assert time.monotonic() - began < 5


def test_threads(model: Model) -> None:
    alone = {i: model.reply(f"question {i}").digest for i in range(12)}
    found: dict[int, str] = {}

    def ask(numbers: range) -> None:
        requests = [Request(f"question {i}", id=str(i)) for i in numbers]
        found.update({int(reply.id): reply.digest for reply in model.answer(requests[1:])})
        found[numbers[0]] = model.submit(requests[0]).reply().digest

    threads = [threading.Thread(target=ask, args=(range(i, 12, 4),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_close(slow: Model) -> None:
    stream = slow.submit(Request("hello " * 200))
    next(stream)
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            stream.reply()
        except UnexpectedFailure as e:
            failed.append(e)

    waiting = threading.Thread(target=wait)
    waiting.start()
    slow.close()
    slow.close()
    waiting.join(10)
    assert len(failed) == 1
    with pytest.raises(UnexpectedFailure):
        stream.reply()
    for use in (lambda: slow.reply("hi"), lambda: slow.answer([]), lambda: slow.submit(Request("hi"))):
        with pytest.raises(UsageError, match="closed"):
            use()


def test_two_models_in_one_process(tmp_path: Path) -> None:
    with Model.open("fake") as one, Model.open("fake", mode="fast", width=2) as other:
        assert one.reply("hello").text == other.reply("hello").text == "You said: hello"
        assert (one.mode, one.promise, one.width) == ("canonical", "canonical", 1)
        assert (other.mode, other.promise, other.width) == ("fast", "seed-only", 2)
        assert (one.name, one.window) == ("fake", 4096)


QUIET = """
import os, signal, sys, threading
from infer_cli import Model, Request
os.fork = None
before = [signal.getsignal(s) for s in signal.valid_signals()], dict(os.environ)
model = Model.open(sys.argv[1])
assert model.reply("hello", max_tokens=3).error is None
assert model.reply("hello", max_tokens=0).error is not None
assert before == ([signal.getsignal(s) for s in signal.valid_signals()], dict(os.environ))
left = model.submit(Request("hello", max_tokens=1000))
"""


def test_nothing_is_printed_and_no_handler_is_set() -> None:
    """The program ends in the middle of a reply, without a close."""
    assert in_python(QUIET, "fake") == ""


# --- the real model -------------------------------------------------------------------------------


@pytest.mark.weights
def test_the_real_model(smollm2: Path) -> None:
    theirs = [
        of_run("Name a colour.", "-n", "8", model=str(smollm2)),
        of_run("Name a colour.", "-n", "8", "-t", "0.8", "--seed", "7", model=str(smollm2)),
    ]
    code = (
        QUIET
        + """
print(model.reply("Name a colour.", max_tokens=8).digest)
print(model.reply("Name a colour.", max_tokens=8, temperature=0.8, seed=7).digest)
try:
    Model.open(sys.argv[1], mode="invariant")
except Exception as e:
    print(type(e).__name__)
"""
    )
    assert in_python(code, str(smollm2)).split() == [
        *(str(reply["digest"]) for reply in theirs),
        "UsageError",
    ]


# --- thinking -------------------------------------------------------------------------------------


@pytest.fixture
def thinker(tmp_path: Path) -> str:
    switch = "assistant\n{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
    template = CHAT_TEMPLATE.replace("assistant\n{% endif %}", switch)
    return script(tmp_path, default_reply=ANSWER, template=template)


def test_thinking_is_what_infer_run_does(thinker: str) -> None:
    with Model.open(thinker, width=2) as model:
        off = model.reply("q", think=False)
        short = model.reply("q", reasoning_budget=2)
        cut = model.reply("q", max_tokens=9)
        (many,) = model.answer([Request("q", reasoning_budget=2)])
    assert off.params["think"] is False and off.digest == of_run("q", "--no-think", model=thinker)["digest"]
    assert short.reasoning == "we" and many.digest == short.digest
    assert short.digest == of_run("q", "--reasoning-budget", "2", model=thinker)["digest"]
    assert (cut.finish_reason, cut.text, cut.reasoning_cut) == ("length", "", True)
    assert as_json(cut)["reasoning_cut"] is True and not short.reasoning_cut


def test_thinking_that_can_not_be_is_the_requests_error(model: Model, thinker: str) -> None:
    for asked, words in (
        (Request("q", think=False), "no switch for thinking"),
        (Request("q", reasoning_budget=3), "no tags of reasoning"),
        (Request("q", reasoning_budget=-1), "reasoning_budget must be"),
        (Request("q", think="no"), "think must be true or false"),  # type: ignore[arg-type]
        (Request(prompt="q", think=True), "completed as it is"),
        (Request(prompt="q", reasoning_budget=1), "no tags of reasoning"),
    ):
        reply = model.submit(asked).reply()
        assert reply.error is not None and words in str(reply.error["message"]), asked
