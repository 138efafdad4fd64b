"""A question with choices: what is asked of the engine, and the reply that comes of its answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import pytest

from infer_cli.answering.choosing import (
    Choice,
    Question,
    check_choices,
    choice_reply,
    question_of,
    score_choices,
)
from infer_cli.answering.reply import as_json, digest
from infer_cli.engine.mode_policy import ModelTraits, choose
from infer_cli.errors import ExitStatus, UsageError
from infer_cli.prompt.pairs import Pair
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.types import (
    EngineIdentity,
    Finished,
    FinishReason,
    Likelihood,
    ModelIdentity,
    Provenance,
    ScoreRequest,
    Timings,
    Usage,
)

PROMPT = (5, 6, 7)
CHOICES = (Choice("no", (10,)), Choice("yes", (11, 12)), Choice("maybe", (13, 14, 15)))


def question(choices: tuple[Choice, ...] = CHOICES) -> Question:
    return Question("q", PROMPT, choices, deadline_s=2.0, truncation={"policy": "keep-ends"})


def running() -> RunningEngine:
    came_from = Provenance(ModelIdentity("m", "aa"), EngineIdentity("1", "2", "f", {}), False)
    policy = choose("invariant", 1, ModelTraits())
    unused = cast("Any", None)
    return RunningEngine(unused, policy, lambda: unused, lambda: came_from)


def end_of(
    request: ScoreRequest,
    logprobs: Sequence[float],
    *,
    reason: FinishReason = "stop",
    cached: int = 0,
    total_s: float = 1.0,
) -> Finished:
    failed = reason != "stop"
    return Finished(
        request.id,
        reason,
        b"",
        (),
        b"",
        None,
        Usage(len(request.ids) - 1, cached, 0),
        Timings(0.5, 0.0, None, total_s, None, None),
        error="it broke" if reason == "error" else None,
        error_status=ExitStatus.MODEL_INVALID,
        likelihood=None if failed else Likelihood(tuple(logprobs), greedy=False),
    )


def ends_of(asked: Question, *logprobs: Sequence[float]) -> list[Finished]:
    return [end_of(r, each) for r, each in zip(asked.requests("r"), logprobs, strict=True)]


def test_each_choice_is_a_continuation_of_the_prompt() -> None:
    asked = question()
    assert asked.requests("r7") == [
        ScoreRequest("r7/0", (5, 6, 7, 10), 3, 2.0),
        ScoreRequest("r7/1", (5, 6, 7, 11, 12), 3, 2.0),
        ScoreRequest("r7/2", (5, 6, 7, 13, 14, 15), 3, 2.0),
    ]
    assert (asked.window, asked.n_longest) == (5, 3)
    assert asked.params == {"choices": ["no", "yes", "maybe"]}


def test_a_question_of_pairs() -> None:
    pairs = [Pair(PROMPT, choice.ids) for choice in CHOICES]
    asked = question_of(
        [choice.text for choice in CHOICES],
        pairs,
        question_id="q",
        deadline_s=2.0,
        truncation={"policy": "keep-ends"},
    )
    assert asked == question()


def test_the_likeliest_is_the_answer() -> None:
    asked = question()
    ends = ends_of(asked, [-3.0], [-0.5, -1.0], [-1.0, -1.0, -1.0])
    reply = choice_reply(asked, ends, running())
    assert (reply.id, reply.text, reply.tokens, reply.finish_reason) == ("q", "yes", (11, 12), "stop")
    assert (reply.mode, reply.seed, reply.run_seed, reply.error) == ("invariant", None, None, None)
    assert reply.truncation == {"policy": "keep-ends"}
    assert reply.digest == digest((11, 12), "yes", "stop", None, {"choices": ["no", "yes", "maybe"]})
    assert reply.choices is not None
    no, yes, maybe = reply.choices
    assert (no.logprob, yes.logprob, maybe.logprob) == (-3.0, -1.5, -3.0)
    assert (yes.n_tokens, yes.logprob_per_token, yes.n_bytes, yes.logprob_per_byte) == (2, -0.75, 3, -0.5)
    total = math.exp(-3.0) + math.exp(-1.5) + math.exp(-3.0)
    assert yes.probability == pytest.approx(math.exp(-1.5) / total)
    assert sum(choice.probability for choice in reply.choices) == pytest.approx(1.0)


def test_of_equally_likely_choices_it_is_the_first() -> None:
    asked = question()
    reply = choice_reply(asked, ends_of(asked, [-2.0], [-1.0, -1.0], [-2.0, 0.0, 0.0]), running())
    assert reply.text == "no"


def test_probabilities_of_what_is_hardly_possible() -> None:
    asked = question()
    far = score_choices(asked, ends_of(asked, [-5000.0], [-2500.0, -2501.0], [-math.inf, 0.0, 0.0]))
    assert [choice.probability for choice in far] == pytest.approx([1 / (1 + math.exp(-1)), 0.2689414, 0.0])
    none = score_choices(asked, ends_of(asked, [-math.inf], [-math.inf, 0.0], [0.0, 0.0, -math.inf]))
    assert [choice.probability for choice in none] == pytest.approx([1 / 3] * 3)


def test_the_json_has_the_choices() -> None:
    asked = question()
    value = as_json(choice_reply(asked, ends_of(asked, [-3.0], [-0.5, -1.0], [-math.inf] * 3), running()))
    choices = value["choices"]
    assert isinstance(choices, list)
    assert choices[1] == {
        "text": "yes",
        "tokens": [11, 12],
        "logprob": -1.5,
        "n_tokens": 2,
        "n_bytes": 3,
        "logprob_per_token": -0.75,
        "logprob_per_byte": -0.5,
        "probability": choices[1]["probability"],
    }
    assert [choices[2][name] for name in ("logprob", "logprob_per_token", "probability")] == [None, None, 0.0]
    assert list(value)[:8] == [
        "id", "custom_id", "sample", "text", "reasoning", "tokens", "logprobs", "choices"
    ]  # fmt: skip


def test_the_prompt_is_counted_once() -> None:
    asked = question()
    requests = asked.requests("r")
    ends = [
        end_of(request, [-1.0] * len(choice.ids), cached=cached, total_s=total_s)
        for request, choice, cached, total_s in zip(
            requests, CHOICES, (0, 3, 5), (0.25, 0.75, 0.5), strict=True
        )
    ]
    reply = choice_reply(asked, ends, running())
    assert reply.usage == Usage(3, 0, 1)
    assert (reply.timings.load_s, reply.timings.total_s) == (0.5, 0.75)
    held = [end._replace(usage=end.usage._replace(cached_tokens=4)) for end in ends]
    assert choice_reply(asked, held, running()).usage == Usage(3, 3, 1)


@pytest.mark.parametrize("reason", ["deadline", "cancelled"])
def test_what_was_ended_from_outside_has_no_answer(reason: FinishReason) -> None:
    asked = question()
    first, second, third = asked.requests("r")
    ends = [end_of(first, [-1.0]), end_of(second, (), reason=reason), end_of(third, (), reason=reason)]
    reply = choice_reply(asked, ends, running())
    assert (reply.text, reply.tokens, reply.finish_reason) == (None, (), reason)
    assert (reply.choices, reply.error) == (None, None)
    assert "choices" not in as_json(reply)


def test_an_error_is_the_reply_s() -> None:
    asked = question()
    first, second, third = asked.requests("r")
    ends = [end_of(first, (), reason="cancelled"), end_of(second, (), reason="error"), end_of(third, [-1.0])]
    reply = choice_reply(asked, ends, running())
    assert (reply.text, reply.finish_reason, reply.choices) == (None, "error", None)
    assert reply.error == {"code": int(ExitStatus.MODEL_INVALID), "message": "it broke"}


@pytest.mark.parametrize(
    ("texts", "wrong"),
    [
        (["a"], "nothing to choose"),
        ([], "nothing to choose"),
        (["a", ""], "empty"),
        (["a", "b", "a"], "'a' is there twice"),
        (["a", "\ud800"], "surrogate"),
        (["a", 3], "int"),
    ],
)
def test_what_is_no_choice(texts: list[str], wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        check_choices(texts, "--choices")
    check_choices(["a", "ab", "b "], "--choices")
