"""From the lines of an item to its samples."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from infer_cli.evaluation.runs.grader import TaskGrader
from infer_cli.evaluation.scorers.registry import make_scorers
from infer_cli.evaluation.scorers.scorer import Answer, Score, ScorerFailed
from infer_cli.evaluation.tasks.task import (
    Extraction,
    Generation,
    ScorerSpec,
    Task,
    TaskCodeFailed,
    TaskFunctions,
    TaskKind,
)
from tests.evaluation.runs.run_helpers import item, likelihood, reply

ERROR = {"code": 5, "message": "it does not fit"}


def task(kind: TaskKind = "generate", **more: Any) -> Task:
    return Task("t", "1", kind, "t.toml", "", "", **more)


def grader(n_samples: int = 1, **more: Any) -> TaskGrader:
    of = task(extractions=(Extraction("last_number"),), scorers=(ScorerSpec("exact", "exact"),), **more)
    return TaskGrader(of, make_scorers(of, allow_code=False), n_samples)


def of_kind(kind: TaskKind) -> TaskGrader:
    return TaskGrader(task(kind), ())


def test_a_reply_is_looked_through_and_scored() -> None:
    (right,) = grader().grade(item(references=("4",)), [[reply("2 + 2 is 4")]])
    assert (right.outcome, right.extracted, right.scores) == ("ok", "4", {"exact": 1.0})
    assert (right.prompt, right.digests, right.n_prompt_tokens, right.n_tokens) == ("p0", ("sha256:a",), 3, 2)
    (wrong,) = grader().grade(item(references=("4",)), [[reply("2 + 2 is 5")]])
    assert (wrong.outcome, wrong.scores) == ("ok", {"exact": 0.0})
    assert wrong.explanations["exact"]


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        (reply(None, reason="error", error=ERROR), "error"),
        (reply("4", reason="length"), "cut"),
        (reply("4", reason="context"), "cut"),
        (reply("four"), "not_extracted"),
        (reply(""), "not_extracted"),
    ],
)
def test_what_failed_has_the_worst_score(line: dict[str, object], outcome: str) -> None:
    (found,) = grader().grade(item(references=("4",)), [[line]])
    assert (found.outcome, found.scores) == (outcome, {"exact": 0.0})


def test_what_is_not_answered_is_an_error_that_says_so() -> None:
    (found,) = grader().grade(item(references=("4",)), [[]])
    assert (found.outcome, found.scores) == ("error", {"exact": 0.0})
    assert found.error is not None and found.error["message"] == "it is not answered"


def test_a_task_may_let_a_cut_reply_count() -> None:
    lenient = grader(generation=Generation(cut_is_wrong=False))
    (found,) = lenient.grade(item(references=("4",)), [[reply("4", reason="length")]])
    assert (found.outcome, found.scores) == ("ok", {"exact": 1.0})


def test_a_scorer_is_told_what_ended_the_reply() -> None:
    of = task(scorers=(ScorerSpec("ended", "ended"),), generation=Generation(cut_is_wrong=False))
    ended = TaskGrader(of, make_scorers(of, allow_code=False))
    for reason, score in (("stop", 1.0), ("stop_string", 1.0), ("length", 0.0)):
        (found,) = ended.grade(item(), [[reply("4", reason=reason)]])
        assert (found.outcome, found.scores) == ("ok", {"ended": score})


class Scorer:
    is_code, is_proportion, higher_is_better, worst, name = False, True, True, 0.0, "mine"

    def __init__(self, value: float | None) -> None:
        self._value = value

    def score(self, answer: Answer) -> Score:
        if self._value is None:
            raise ScorerFailed("no reference")
        return Score(self._value)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, 0.5])
def test_a_scorer_that_fails_is_an_outcome(value: float | None) -> None:
    broken = TaskGrader(task(), [Scorer(value)])
    (found,) = broken.grade(item(), [[reply("4")]])
    assert (found.outcome, found.scores) == ("scorer_failed", {"mine": 0.0})
    assert found.explanations["mine"]


def test_a_function_that_extracts_is_code_and_may_fail() -> None:
    def extract(text: str, doc: object) -> str | None:
        if text == "boom":
            raise TaskCodeFailed("t.py: extract() failed")
        return text.upper() or None

    coded = TaskGrader(task(functions=TaskFunctions(extract=extract)), [Scorer(1.0)])
    found = [coded.grade(item(), [[reply(text)]])[0] for text in ("a", "", "boom")]
    assert [each.outcome for each in found] == ["ok", "not_extracted", "scorer_failed"]
    assert found[0].extracted == "A"
    assert coded.code_scorers == ["extract"]


def test_rows_are_seeds_and_lines_samples() -> None:
    asked = replace(item(references=("4",)), rows=({"prompt": "p", "seed": 7}, {"prompt": "p", "seed": 8}))
    lines = [[reply("4"), reply("5", sample=1)], [reply("4"), reply("4", sample=1)]]
    found = grader(2).grade(asked, lines)
    assert [(s.seed, s.sample, s.scores["exact"]) for s in found] == [
        (7, 0, 1.0), (7, 1, 0.0), (8, 0, 1.0), (8, 1, 1.0),
    ]  # fmt: skip
    assert [m.name for m in grader(2).metrics] == ["exact", "exact pass@1", "exact pass@2", "exact majority"]
    assert [m.name for m in grader(1).metrics] == ["exact"]


def test_choices_are_told_by_likelihood_bytes_and_tokens() -> None:
    asked = item(rows=3, choices=("a", "four words of text", "bc"), gold=1)
    # The sum says the first, a byte the second, a token the third.
    lines = [[likelihood(-2.0, 1)], [likelihood(-9.0, 4)], [likelihood(-2.5, 2)]]
    (found,) = of_kind("choice").grade(asked, lines)
    assert found.scores == {"acc": 0.0, "acc_norm": 1.0, "acc_token": 0.0}
    assert (found.answer, found.gold, len(found.digests)) == ("a", 1, 3)


def test_of_equal_choices_the_first_is_taken() -> None:
    for gold in (0, 1):
        (found,) = of_kind("choice").grade(
            item(rows=2, choices=("a", "b"), gold=gold), [[likelihood(-1.0)], [likelihood(-1.0)]]
        )
        assert found.scores["acc"] == float(gold == 0)


def test_a_choice_that_failed_fails_the_item() -> None:
    (found,) = of_kind("choice").grade(
        item(rows=2, choices=("a", "b"), gold=0), [[likelihood(-1.0)], [likelihood(None, error=ERROR)]]
    )
    assert (found.outcome, found.error) == ("error", ERROR)
    assert found.scores == {"acc": 0.0, "acc_norm": 0.0, "acc_token": 0.0}


def test_a_choice_that_cannot_come_is_no_failure() -> None:
    (found,) = of_kind("minimal_pairs").grade(
        item(rows=2, choices=("good", "bad"), gold=0), [[likelihood(-1.0)], [likelihood(None)]]
    )
    assert (found.outcome, found.scores) == ("ok", {"acc": 1.0})


@pytest.mark.parametrize("logprob", [math.nan, math.inf, -math.inf, -1e308, 10**400, 0.5, True, "-1"])
def test_what_is_no_logarithm_of_a_probability_is_an_error(logprob: Any) -> None:
    (found,) = of_kind("likelihood").grade(item(rows=1), [[likelihood(logprob)]])
    assert (found.outcome, found.scores) == ("error", {"greedy": 0.0})
    assert found.error is not None and "no logarithm of a probability" in str(found.error["message"])


def test_counts_that_are_none_are_not_added_up() -> None:
    usage = {"prompt_tokens": 10**400, "completion_tokens": -3}
    (found,) = of_kind("perplexity").grade(
        item(rows=1), [[likelihood(-1.0, 10**400, n_bytes=True, usage=usage)]]
    )
    assert (found.n_prompt_tokens, found.n_tokens, found.sizes["tokens"]) == (0, 0, 0.0)


def test_a_likelihood_has_its_logarithm_and_whether_it_is_greedy() -> None:
    asked = item(rows=1)
    (found,) = of_kind("likelihood").grade(asked, [[likelihood(-1.5, greedy=True)]])
    assert found.scores == {"logprob": -1.5, "greedy": 1.0}
    (failed,) = of_kind("likelihood").grade(asked, [[likelihood(None, error=ERROR)]])
    assert failed.scores == {"greedy": 0.0}  # no number stands for a logarithm that is not known


def test_a_text_has_bits_over_bytes_words_and_tokens() -> None:
    pieces = ({"context": "", "continuation": "two wor"}, {"context": "two wor", "continuation": "ds é"})
    asked = replace(item(), rows=pieces)
    lines = [[likelihood(-math.log(2) * 3, 2)], [likelihood(-math.log(2), 4)]]
    (found,) = of_kind("perplexity").grade(asked, lines)
    assert found.scores["bits"] == pytest.approx(4.0, rel=1e-12)
    assert found.sizes == {"bytes": 12.0, "words": 3.0, "tokens": 6.0}
    (failed,) = of_kind("perplexity").grade(asked, [[likelihood(-1.0)], []])
    assert (failed.outcome, failed.scores) == ("error", {})
