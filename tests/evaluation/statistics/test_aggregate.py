"""From scores to a metric: which interval it has, groups, seeds, samples."""

from __future__ import annotations

import math
import statistics
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.evaluation.statistics.aggregate import (
    MetricSummary,
    across_seeds,
    by_group,
    majority_vote,
    pass_at_k,
    summarize,
)
from infer_cli.evaluation.statistics.intervals import clopper_pearson, wilson

RNG = np.random.default_rng(11)
RIGHT = (RNG.random(400) < 0.7).astype(float).tolist()
GRADES = RNG.random(400).tolist()


def texts(size: int) -> list[str]:
    """Names of clusters of 400 items."""
    return [f"text {i // size}" for i in range(400)]


def summary(
    scores: list[float], *, clusters: list[str] | None = None, is_proportion: bool = False
) -> MetricSummary:
    return summarize(scores, clusters=clusters, is_proportion=is_proportion, seed=0)


def test_a_proportion() -> None:
    found = summary(RIGHT, is_proportion=True)
    n_right = int(sum(RIGHT))
    share = n_right / 400
    assert found[:1] + found[2:] == (share, wilson(n_right, 400), "wilson", 400, None, None)
    assert found.stderr == pytest.approx(math.sqrt(share * (1 - share) / 399))
    exact = summarize(RIGHT, clusters=None, is_proportion=True, seed=0, proportion_method="clopper-pearson")
    assert exact.interval == clopper_pearson(n_right, 400) and exact.method == "clopper-pearson"


@pytest.mark.parametrize(
    ("size", "is_proportion", "method", "note"),
    [
        (None, False, "bca", None),
        (5, True, "bca", None),
        (5, False, "bca", None),
        (1, True, "wilson", None),
        (25, True, "t", "16 clusters are few: fewer than 30 say little of their spread"),
        (25, False, "t", "16 clusters are few: fewer than 30 say little of their spread"),
    ],
)
def test_which_interval(size: int | None, is_proportion: bool, method: str, note: str | None) -> None:
    clusters = texts(size) if size else None
    found = summary(RIGHT if is_proportion else GRADES, clusters=clusters, is_proportion=is_proportion)
    assert (found.method, found.note) == (method, note)
    assert found.n == 400 and found.n_clusters == (None if size is None else 400 // size)
    assert found.interval is not None and found.interval.lo < found.value < found.interval.hi
    # About two standard errors to each side.
    assert found.stderr is not None
    assert found.interval.half_width == pytest.approx(2 * found.stderr, rel=0.12)


def test_clusters_widen_the_interval_of_what_goes_together() -> None:
    alike = [float(i // 10 % 3 > 0) for i in range(400)]
    alone, together = (summary(alike, clusters=c, is_proportion=True) for c in (None, texts(10)))
    assert alone.interval and together.interval
    assert together.interval.half_width > 2.5 * alone.interval.half_width


@pytest.mark.parametrize(
    ("scores", "clusters", "is_proportion", "interval", "note"),
    [
        ([1.0], None, True, wilson(1, 1), "one item says"),
        ([0.0] * 80, None, True, wilson(0, 80), "all 80 items are alike"),
        ([1.0] * 80, [str(i // 2) for i in range(80)], True, wilson(40, 40), "all 40 clusters are alike"),
        ([1.0, 0.0], ["a", "a"], True, wilson(0.5, 1), "one cluster says"),
        ([0.4], None, False, None, "one item says"),
        ([0.4] * 80, None, False, None, "all 80 items are alike"),
    ],
)
def test_no_spread_is_said_and_is_not_zero(
    scores: list[float], clusters: list[str] | None, is_proportion: bool, interval: object, note: str
) -> None:
    found = summary(scores, clusters=clusters, is_proportion=is_proportion)
    assert found.stderr is None and found.interval == interval
    assert found.note is not None and found.note.startswith(note)


def test_a_proportion_is_not_outside_0_to_1() -> None:
    scores = [0.0] * 10 + [1.0] * 90
    found = summary(scores, clusters=[str(i // 10) for i in range(100)], is_proportion=True)
    assert found.method == "t" and found.interval is not None and found.interval.hi == 1.0


def test_what_is_no_proportion_is_refused() -> None:
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        summary([1.0, 0.5], is_proportion=True)


# --- groups ---------------------------------------------------------------------------------------


def test_groups_and_their_averages() -> None:
    scores, groups = [1.0] * 30 + [0.0] * 10 + [1.0, 0.0] * 80, ["small"] * 40 + ["large"] * 160
    found = by_group(scores, groups, clusters=None, is_proportion=True, seed=0)
    small, large = found.groups["small"], found.groups["large"]
    assert list(found.groups) == ["small", "large"]
    assert (small.value, large.value, small.n, large.n) == (0.75, 0.5, 40, 160)
    assert found.macro.value == 0.625 and found.micro.value == 0.55
    assert found.micro == summary(scores, is_proportion=True)
    assert small.stderr and large.stderr and small.interval and large.interval
    assert found.macro.stderr == pytest.approx(math.hypot(small.stderr, large.stderr) / 2)
    below = math.hypot(small.value - small.interval.lo, large.value - large.interval.lo) / 2
    above = math.hypot(small.interval.hi - small.value, large.interval.hi - large.value) / 2
    assert found.macro.interval is not None and found.macro.interval.method == found.macro.method == "mover"
    assert list(found.macro.interval[:2]) == pytest.approx([0.625 - below, 0.625 + above])
    assert found.macro.n == 200 and found.macro.note is None


def test_one_group_is_its_own_average() -> None:
    found = by_group(RIGHT, ["all"] * 400, clusters=None, is_proportion=True, seed=0)
    assert found.groups["all"] == found.micro and found.macro.value == pytest.approx(found.micro.value)
    assert found.macro.interval is not None and found.micro.interval is not None
    assert found.macro.interval[:2] == pytest.approx(found.micro.interval[:2])


def test_the_average_of_groups_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    shares, sizes = [0.2, 0.5, 0.7, 0.9, 0.98], [10, 30, 60, 20, 40]
    groups = np.repeat(np.arange(5), sizes).astype(str).tolist()
    held = 0
    for _ in range(1_000):
        scores = (rng.random(160) < np.repeat(shares, sizes)).astype(float).tolist()
        interval = by_group(scores, groups, clusters=None, is_proportion=True, seed=0).macro.interval
        assert interval is not None
        held += interval.lo <= statistics.fmean(shares) <= interval.hi
    assert 0.94 <= held / 1_000 <= 0.98  # small groups with shares near 1 have wide ends


def test_a_group_without_spread_is_said() -> None:
    found = by_group([0.5, 0.1, 0.2], ["a", "b", "b"], clusters=None, is_proportion=False, seed=0)
    assert found.macro.value == pytest.approx(0.325) and found.macro.interval is None
    assert found.macro.note == "not every group says something of its spread"


def test_clusters_that_reach_over_groups_are_said() -> None:
    groups = ["a", "b"] * 200
    found = by_group(RIGHT, groups, clusters=texts(5), is_proportion=True, seed=0)
    assert found.macro.interval is None and found.macro.stderr is None
    assert found.macro.note == "clusters reach over several groups, which are then not independent"
    apart = by_group(RIGHT, texts(200), clusters=texts(5), is_proportion=True, seed=0)
    assert apart.macro.interval is not None and apart.macro.n_clusters == 80


def test_a_group_for_each_item() -> None:
    with pytest.raises(ValueError, match="1 names of groups for 2 scores"):
        by_group([1.0, 0.0], ["a"], clusters=None, is_proportion=True, seed=0)


# --- seeds and samples ----------------------------------------------------------------------------


def test_seeds_apart_from_items() -> None:
    # Items differ, seeds shift all of them alike.
    runs = [[grade + shift for grade in GRADES] for shift in (0.0, 0.1, 0.2)]
    found = across_seeds(runs, clusters=None, is_proportion=False, seed=0)
    assert found.values == pytest.approx([statistics.fmean(run) for run in runs])
    assert found.between_seeds == pytest.approx(0.1)
    assert found.mean.value == pytest.approx(statistics.fmean(GRADES) + 0.1)
    assert found.mean.stderr == pytest.approx(summary(GRADES).stderr)
    assert found.mean.n == 400


def test_one_seed_says_nothing_of_others() -> None:
    found = across_seeds([RIGHT], clusters=None, is_proportion=True, seed=0)
    assert found.between_seeds is None and found.mean == summary(RIGHT, is_proportion=True)


def test_seeds_of_other_items_are_refused() -> None:
    for runs in ([], [[1.0], [1.0, 0.0]]):
        with pytest.raises(ValueError, match="runs of the same items"):
            across_seeds(runs, clusters=None, is_proportion=True, seed=0)


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_counts_the_choices(drawn: tuple[int, int, int]) -> None:
    n, n_correct, k = drawn
    choices = list(combinations([True] * n_correct + [False] * (n - n_correct), k))
    assert pass_at_k(n, n_correct, k) == pytest.approx(sum(map(any, choices)) / len(choices), abs=1e-12)


def test_pass_at_k_as_the_paper_computes_it() -> None:
    for n, n_correct, k in ((200, 13, 100), (200, 1, 10), (100, 99, 3), (50, 0, 50)):
        theirs = 1.0 if n - n_correct < k else 1 - np.prod(1 - k / np.arange(n - n_correct + 1, n + 1))
        assert pass_at_k(n, n_correct, k) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("n", "n_correct", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_that_is_not_defined(n: int, n_correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="is not defined"):
        pass_at_k(n, n_correct, k)


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["4", "5", "5"], "5"),
        (["7", "5", "5", "7"], "7"),  # the first of those that are as frequent
        ([None, None, "5"], "5"),
        ([None, None], None),
        ([], None),
    ],
)
def test_a_majority(answers: list[str | None], winner: str | None) -> None:
    assert majority_vote(answers) == winner
