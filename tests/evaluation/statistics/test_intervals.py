"""Intervals with a formula: against scipy and statsmodels, and how often they hold, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from benchmarks.statistics import difference_coverage, proportion_coverage
from infer_cli.evaluation.statistics.intervals import (
    bonett_price,
    clopper_pearson,
    standard_error,
    t_interval,
    wilson,
)
from infer_cli.evaluation.statistics.units import units_of

COUNTS = [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (47, 60), (199, 200), (612, 1319), (9_990, 10_000)]
SHARES = np.linspace(0.02, 0.98, 961)


@pytest.mark.parametrize(("successes", "n"), COUNTS)
def test_proportions_are_those_of_statsmodels(successes: int, n: int) -> None:
    for interval, method in ((wilson(successes, n), "wilson"), (clopper_pearson(successes, n), "beta")):
        lo, hi = proportion_confint(successes, n, method=method)
        assert interval.lo == pytest.approx(lo, abs=1e-9) and interval.hi == pytest.approx(hi, abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), COUNTS)
def test_proportions_are_those_of_scipy(successes: int, n: int) -> None:
    for interval, method in ((wilson(successes, n), "wilson"), (clopper_pearson(successes, n), "exact")):
        theirs = stats.binomtest(successes, n).proportion_ci(method=method)
        assert interval.lo == pytest.approx(theirs.low, abs=1e-9)
        assert interval.hi == pytest.approx(theirs.high, abs=1e-9)


def test_wilson_holds_as_often_as_it_says() -> None:
    for n in range(10, 201):
        assert 0.94 <= proportion_coverage(wilson, n, SHARES).mean() <= 0.965, n


@pytest.mark.parametrize("n", [10, 11, 17, 25, 40, 63, 100, 150, 200])
def test_clopper_pearson_never_holds_too_seldom(n: int) -> None:
    assert proportion_coverage(clopper_pearson, n, SHARES).min() >= 0.95


@pytest.mark.parametrize("n", [10, 30, 100])
def test_bonett_price_holds_as_often_as_it_says(n: int) -> None:
    for discordance, difference in ((0.1, 0.0), (0.1, 0.05), (0.1, 0.1), (0.3, 0.1), (0.6, 0.0)):
        assert difference_coverage(n, discordance, difference) >= 0.93


def test_bonett_price_by_hand() -> None:
    # (9 + 1) / 52 - (2 + 1) / 52, and the root of (13/52 - (7/52)^2) / 52 times 1.95996.
    interval = bonett_price(9, 2, 50)
    assert (interval.lo + interval.hi) / 2 == pytest.approx(7 / 52)
    assert interval.half_width == pytest.approx(0.130881, abs=1e-6)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30).filter(lambda v: max(v) - min(v) > 1e-3))
def test_a_mean_is_that_of_scipy(scores: list[float]) -> None:
    units = units_of(scores)
    assert standard_error(units) == pytest.approx(stats.sem(scores), rel=1e-9)
    interval = t_interval(units).interval
    assert interval is not None
    lo, hi = stats.t.interval(0.95, len(scores) - 1, loc=np.mean(scores), scale=stats.sem(scores))
    assert interval.lo == pytest.approx(lo, rel=1e-9, abs=1e-9)
    assert interval.hi == pytest.approx(hi, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("n_clusters", [2, 7, 40])
def test_clusters_are_those_of_statsmodels(n_clusters: int) -> None:
    rng = np.random.default_rng(n_clusters)
    index = np.concatenate([np.arange(n_clusters), rng.integers(0, n_clusters, 5 * n_clusters)])
    scores = rng.normal(size=len(index)) + rng.normal(size=n_clusters)[index]
    model = statsmodels.api.OLS(scores, np.ones(len(scores)))
    theirs = model.fit(cov_type="cluster", cov_kwds={"groups": index}, use_t=True)
    units = units_of(scores.tolist(), [f"text {i}" for i in index])
    assert units.n == n_clusters and units.mean == pytest.approx(scores.mean(), rel=1e-12)
    assert standard_error(units) == pytest.approx(theirs.bse[0], rel=1e-9)
    interval = t_interval(units).interval
    assert interval is not None and interval.method == "t"
    assert list(interval[:2]) == pytest.approx(theirs.conf_int()[0].tolist(), rel=1e-9)


def test_clusters_of_one_item_are_items() -> None:
    scores = [0.1, 0.9, 0.4, 0.4]
    alone = units_of(scores, ["a", "b", "c", "d"])
    assert alone.are_items and t_interval(alone) == t_interval(units_of(scores))


@pytest.mark.parametrize(
    ("scores", "clusters", "note"),
    [
        ([0.3], None, "one item says nothing of the spread between several"),
        ([0.3] * 7, None, "all 7 items are alike, which says nothing of their spread"),
        # Other orders of the same sum differ in the last digit.
        (
            [0.1, 0.2, 0.3, 0.3, 0.2, 0.1],
            list("aaabbb"),
            "all 2 clusters are alike, which says nothing of their spread",
        ),
        ([1.0, 0.0], ["a", "a"], "one cluster says nothing of the spread between several"),
    ],
)
def test_no_spread_is_no_interval(scores: list[float], clusters: list[str] | None, note: str) -> None:
    units = units_of(scores, clusters)
    assert standard_error(units) is None
    assert t_interval(units) == (None, note)


@pytest.mark.parametrize(
    ("scores", "clusters", "wrong"),
    [
        ([], None, "there are no scores"),
        ([1.0, float("nan")], None, "the score of item 1 is not a finite number"),
        ([float("inf")], None, "the score of item 0"),
        ([1.0, 2.0], ["a"], "1 names of clusters for 2 scores"),
    ],
)
def test_what_is_no_score_is_refused(scores: list[float], clusters: list[str] | None, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        units_of(scores, clusters)
