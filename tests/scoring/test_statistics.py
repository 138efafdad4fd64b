"""Means with their errors, and percentiles, against other ways to compute them."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from infer_cli.scoring.statistics import Estimate, Sums, exponential, percentile, share

VALUES = [random.Random(0).gauss(3, 2) for _ in range(500)]


def _sums(values: list[float]) -> Sums:
    sums = Sums()
    sums.add(values)
    return sums


def test_a_mean_and_its_standard_error() -> None:
    mean = _sums(VALUES).mean
    assert mean.value == pytest.approx(statistics.fmean(VALUES), rel=1e-12)
    assert mean.error == pytest.approx(statistics.stdev(VALUES) / math.sqrt(len(VALUES)), rel=1e-9)


def test_values_are_added_in_parts() -> None:
    parts = _sums(VALUES[:100])
    parts.add(VALUES[100:])
    assert (parts.n, parts.total, parts.mean) == (500, _sums(VALUES).total, _sums(VALUES).mean)


def test_few_or_equal_values_have_no_error() -> None:
    assert _sums([2.5]).mean == Estimate(2.5, 0.0)
    assert _sums([0.0] * 10).mean == Estimate(0.0, 0.0)
    assert _sums([0.1] * 10).mean.error == pytest.approx(0, abs=1e-8)


def test_what_is_impossible_is_infinite() -> None:
    mean = _sums([1.0, math.inf]).mean
    assert mean == Estimate(math.inf, math.inf)
    assert exponential(mean) == Estimate(math.inf, math.inf)
    assert exponential(Estimate(1000.0, 0.0)) == Estimate(math.inf, 0.0)


def test_the_error_of_an_exponential_is_relative() -> None:
    assert exponential(Estimate(0.0, 0.5)) == Estimate(1.0, 0.5)
    assert exponential(Estimate(math.log(20), 0.01)) == pytest.approx((20, 0.2))


def test_a_share() -> None:
    assert share(3, 4) == pytest.approx((0.75, math.sqrt(0.75 * 0.25 / 3)))
    assert share(1, 1) == Estimate(1.0, 0.0)
    assert share(7, 7) == Estimate(1.0, 0.0)


def test_percentiles_lie_between_two_values() -> None:
    ordered = sorted(VALUES)
    cuts = statistics.quantiles(ordered, n=100, method="inclusive")
    for part in (1, 50, 99):
        assert percentile(ordered, part / 100) == pytest.approx(cuts[part - 1], rel=1e-9)
    assert percentile(ordered, 0.5) == pytest.approx(statistics.median(ordered), rel=1e-12)
    assert percentile([4.0], 0.99) == 4.0
    assert percentile([1.0, math.inf, math.inf], 0.9) == math.inf
