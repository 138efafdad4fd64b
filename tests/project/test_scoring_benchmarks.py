"""The benchmarks of likelihoods: their arithmetic, and how they read what programs print."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import blimp, choices, common, perplexity, scoring_cost
from benchmarks.score_command import n_distinct, scored_of

IDS = st.lists(st.integers(0, 2), max_size=5)


@settings(deadline=None)
@given(st.lists(IDS, max_size=8))
def test_each_common_beginning_is_counted_once(sequences: list[list[int]]) -> None:
    beginnings = {tuple(ids[: n + 1]) for ids in sequences for n in range(len(ids))}
    assert n_distinct(sequences) == len(beginnings)


def _line(n: int, **more: object) -> str:
    usage = {"prompt_tokens": 5, "cached_tokens": n, "completion_tokens": 0}
    row = {"custom_id": str(n), "logprob": -float(n), "tokens": [n], "usage": usage, "error": None}
    return json.dumps({**row, **more})


def test_rows_are_in_the_order_of_the_input() -> None:
    scored = scored_of(1.5, [_line(1), _line(0)], 2)
    assert scored.logprobs == [0.0, -1.0] and scored.tokens == [[0], [1]]
    assert scored.prompt_tokens == [5, 5] and scored.evaluated == 9


@pytest.mark.parametrize(
    ("lines", "said"),
    [([_line(0)], "1 of 2"), ([_line(0), _line(1, error={"code": 5})], "could not score 1")],
)
def test_a_row_that_is_missing_or_failed_ends_the_measurement(lines: list[str], said: str) -> None:
    with pytest.raises(common.BenchmarkError, match=said):
        scored_of(1.0, lines, 2)


def test_pairs_are_decided_by_the_likelier_sentence() -> None:
    ours, theirs = [-1.0, -2.0, -4.0, -3.0], [-1.0, -2.5, -3.0, -3.5]
    assert blimp.decisions(ours) == [True, False]
    assert blimp.different(ours, theirs) == 1 and blimp.different(ours, ours) == 0
    assert blimp.largest_difference(ours, theirs) == 1.0
    assert blimp.accuracy(ours) == 0.5


def test_four_choices_follow_each_question() -> None:
    solved = [{"question": f"q{n}", "answer": f"a{n} #### {n}"} for n in range(choices.N_SHOTS)]
    rows = choices.rows_of([*solved, {"question": "last", "answer": "so\n#### 1,200"}])
    assert [row.continuation for row in rows] == [
        f" The answer is {n}." for n in ("1200", "1201", "1210", "1300")
    ]
    assert len({row.context for row in rows}) == 1
    assert rows[0].context.startswith("Question: q0\nAnswer: a0 #### 0\n\nQuestion: q1")
    assert rows[0].context.endswith("\n\nQuestion: last\nAnswer:")


@pytest.mark.parametrize(
    ("ids", "context", "said"),
    [
        ([[1, 2, 3], [1, 2, 3, 4], [1, 5, 6], [1, 6, 6]], [1], "beginning of another"),
        ([[1, 2, 3], [1, 2, 3], [1, 5, 6], [1, 6, 6]], [1], "beginning of another"),
        ([[1, 2], [1, 3, 3], [1, 5, 6], [1, 6, 6]], [1], "several tokens"),
        ([[7, 2, 3], [1, 3, 3], [1, 5, 6], [1, 6, 6]], [1], "follow its context"),
    ],
)
def test_choices_that_are_not_what_is_measured_end_it(
    ids: list[list[int]], context: list[int], said: str
) -> None:
    with pytest.raises(common.BenchmarkError, match=said):
        choices.check_choices(ids, [context] * 4)


def test_choices_that_part_are_measured() -> None:
    choices.check_choices([[1, 2, 3], [1, 2, 4], [1, 5, 6], [1, 6, 6]], [[1]] * 4)


def test_the_last_estimate_is_of_all_windows() -> None:
    shown = "perplexity: 1.2 seconds per pass - ETA 0.1 minutes\n[1]8.5123,[2]9.0001,[3]8.7500,\n"
    assert perplexity.last_estimate(shown, 3) == 8.75
    with pytest.raises(common.BenchmarkError, match="3 windows, not 4"):
        perplexity.last_estimate(shown, 4)


def test_the_mean_divergence_is_read() -> None:
    shown = "====== KL divergence statistics ======\nMean    KLD:   0.062345 ±   0.001\nMaximum KLD:   3.5\n"
    assert perplexity.mean_divergence(shown) == 0.062345
    with pytest.raises(common.BenchmarkError, match="no mean divergence"):
        perplexity.mean_divergence("Maximum KLD:   3.5")


def test_memory_may_grow_by_twice_the_logits_that_are_held() -> None:
    assert scoring_cost.most_excess("fast", 1000) == scoring_cost.most_excess("invariant", 9) == 144 * 2**20
    assert scoring_cost.most_excess("canonical", 1000) == 2 * 65 * 1000 * 4 + 16 * 2**20
