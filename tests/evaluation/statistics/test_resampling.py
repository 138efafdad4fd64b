"""The bootstrap: the same numbers everywhere, as often right as it says, in memory that has a bound."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from benchmarks.statistics import GRADED, Kind, Sample, clustered, coverage
from infer_cli.evaluation.statistics import resampling
from infer_cli.evaluation.statistics.distributions import t_quantile
from infer_cli.evaluation.statistics.draws import Draws
from infer_cli.evaluation.statistics.intervals import Interval, t_interval
from infer_cli.evaluation.statistics.resampling import bootstrap_interval, mean_interval
from infer_cli.evaluation.statistics.units import units_of

if TYPE_CHECKING:
    from infer_cli.evaluation.statistics.units import Integers

RNG = np.random.default_rng(3)
SKEWED = RNG.beta(0.3, 0.9, 60).tolist()
GROUPED = [score + i // 5 % 7 / 10 for i, score in enumerate(RNG.random(200))]
TEXTS = [f"text {i // 5}" for i in range(200)]
# Of seed 7.
RESAMPLES = [[9, 6, 6, 8, 5, 7, 8, 2, 0, 3], [2, 8, 9, 0, 4, 8, 1, 7, 1, 4]]
SIGNS = [[1.0, 1.0, -1.0, 1.0, -1.0], [-1.0, -1.0, 1.0, -1.0, 1.0], [-1.0, 1.0, -1.0, -1.0, 1.0]]


def test_draws_are_the_same_everywhere() -> None:
    (drawn,) = Draws(7).resamples(10, 2)
    assert drawn.tolist() == RESAMPLES
    (signs,) = Draws(7).signs(5, 3)
    assert signs.tolist() == SIGNS


def test_draws_are_even() -> None:
    drawn = np.concatenate(list(Draws(0).resamples(7, 100_000)))
    assert drawn.shape == (100_000, 7)
    assert stats.chisquare(np.bincount(drawn.ravel(), minlength=7)).pvalue > 0.01
    signs = np.concatenate(list(Draws(0).signs(9, 100_000)))
    assert signs.shape == (100_000, 9) and set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.005 and abs(np.corrcoef(signs.T)[0, 1]) < 0.02


def test_the_seed_is_all_that_counts() -> None:
    units = units_of(SKEWED)
    assert mean_interval(units, 5) == mean_interval(units, 5) != mean_interval(units, 6)


def test_many_units_have_fewer_resamples() -> None:
    scores = RNG.random(20_001)
    few, many = units_of(scores[1:].tolist()), units_of(scores.tolist())
    assert mean_interval(few, 1) == mean_interval(few, 1, 9_999)
    assert mean_interval(many, 1) == mean_interval(many, 1, 1_999) != mean_interval(many, 1, 9_999)
    interval, error = mean_interval(many, 1).interval, scores.std(ddof=1) / len(scores) ** 0.5
    assert interval is not None and interval.half_width == pytest.approx(1.96 * error, rel=0.05)


@pytest.mark.parametrize("clusters", [None, TEXTS])
def test_a_mean_is_as_any_statistic(clusters: list[str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "N_RESAMPLES", 499)
    scores = np.array(GROUPED)

    def mean(items: Integers) -> float:
        return float(scores[items].mean())

    of_any, note = bootstrap_interval(mean, len(scores), clusters, 1)
    of_mean = mean_interval(units_of(GROUPED, clusters), 1, 499).interval
    assert of_any is not None and of_mean is not None and note is None
    assert of_any.method == of_mean.method == "bca"
    assert of_any[:2] == pytest.approx(of_mean[:2], abs=1e-12)


def test_it_is_scipys_with_students_quantile() -> None:
    # scipy takes a level; ours is that of which the normal quantile is Student's of 95 %.
    level = 2 * stats.norm.cdf(t_quantile(0.975, len(SKEWED) - 1)) - 1
    rng = np.random.default_rng(1)
    theirs = stats.bootstrap(
        (SKEWED,), np.mean, confidence_level=level, method="BCa", n_resamples=20_000, rng=rng
    ).confidence_interval
    ours = mean_interval(units_of(SKEWED), 1).interval
    assert ours is not None
    assert list(ours[:2]) == pytest.approx([theirs.low, theirs.high], abs=0.05 * ours.half_width)


@pytest.mark.parametrize("clusters", [None, [f"text {i // 2}" for i in range(49)]])
def test_few_have_a_t_interval_and_a_note(clusters: list[str] | None) -> None:
    scores = np.array(GROUPED[:49])
    units = units_of(scores.tolist(), clusters)
    interval, note = mean_interval(units, 1)
    assert interval is not None and note is not None and "are few" in note
    assert interval == t_interval(units).interval
    of_any, same_note = bootstrap_interval(lambda items: float(scores[items].mean()), 49, clusters, 1)
    assert of_any is not None and same_note == note and of_any.method == "jackknife"
    if clusters is None:  # the jackknife of a mean is its standard error
        assert of_any[:2] == pytest.approx(interval[:2], rel=1e-9)


def test_any_statistic_of_pairs() -> None:
    """F1 of 120 items: what it is made of is resampled together."""
    found, true = RNG.random(120) < 0.4, RNG.random(120) < 0.5

    def f1(items: Integers) -> float:
        return float(2 * (found & true)[items].sum() / (found[items].sum() + true[items].sum()))

    interval, _ = bootstrap_interval(f1, 120, None, 0)
    assert interval is not None and interval.lo < f1(np.arange(120)) < interval.hi


@pytest.mark.parametrize(
    ("n_items", "clusters", "note"),
    [
        (1, None, "one item says nothing of the spread between several"),
        (3, ["a", "a", "a"], "one cluster says nothing of the spread between several"),
        (60, None, "no item changes the value, which says nothing of its spread"),
    ],
)
def test_a_statistic_without_spread(n_items: int, clusters: list[str] | None, note: str) -> None:
    assert bootstrap_interval(lambda items: 0.25, n_items, clusters, 0) == (None, note)


def test_memory_has_a_bound() -> None:
    units = units_of(RNG.random(5_000).tolist())
    tracemalloc.start()
    mean_interval(units, 0, 2_000)  # 80 MB of numbers, were they drawn at once
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30_000_000


def _interval(sample: Sample) -> Interval | None:
    return mean_interval(units_of(sample.scores, sample.clusters), 0, 999).interval


@pytest.mark.parametrize(
    "kind",
    [GRADED[0], GRADED[3], GRADED[4], clustered(30, 5, 0.5, 0.3), clustered(30, 5, 0.7, 0.7)],
    ids=lambda kind: kind.name,
)
def test_it_holds_as_often_as_it_says(kind: Kind) -> None:
    """Short; `python -m benchmarks.statistics` is long."""
    assert 0.93 <= coverage(kind, 1_000, 1, _interval) <= 0.97
