"""Tails and quantiles against scipy."""

from __future__ import annotations

import math
from itertools import product

import pytest
from scipy import special, stats

from infer_cli.evaluation.statistics.distributions import (
    beta_quantile,
    binomial_at_most,
    binomial_probability,
    incomplete_beta,
    t_quantile,
    t_tail,
)

SIZES = [0.5, 1.0, 2.5, 7.0, 30.0, 200.0, 5_000.0]
SHARES = [1e-6, 0.005, 0.025, 0.2, 0.5, 0.8, 0.975, 0.9999]


@pytest.mark.parametrize("a", SIZES)
@pytest.mark.parametrize("b", SIZES)
def test_the_incomplete_beta_function(a: float, b: float) -> None:
    mean = a / (a + b)
    spread = math.sqrt(mean * (1 - mean) / (a + b + 1))
    for z in (-6, -3, -1, -0.1, 0, 0.1, 1, 3, 6):
        if 0 < (x := mean + z * spread) < 1:
            assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), abs=1e-12)
    assert incomplete_beta(a, b, 0.0) == 0.0 and incomplete_beta(a, b, 1.0) == 1.0


@pytest.mark.parametrize("a", SIZES)
@pytest.mark.parametrize("b", SIZES)
def test_beta_quantiles(a: float, b: float) -> None:
    for p in SHARES:
        assert beta_quantile(p, a, b) == pytest.approx(special.betaincinv(a, b, p), rel=1e-12)
    assert beta_quantile(0.0, a, b) == 0.0 and beta_quantile(1.0, a, b) == 1.0


@pytest.mark.parametrize("df", [1, 2, 3, 5, 10, 29, 49, 99, 1_000, 100_000])
def test_students_t(df: int) -> None:
    for p in (*SHARES, 0.5001, 1e-8):
        assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-11, abs=1e-12)
    for t in (-40, -2, -1e-3, 0, 0.5, 2, 40):
        assert t_tail(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-11, abs=1e-15)


def test_students_t_of_millions_is_nearly_normal() -> None:
    assert t_quantile(0.975, 10**7) == pytest.approx(stats.t.ppf(0.975, 10**7), rel=1e-10)


@pytest.mark.parametrize("n", [1, 2, 5, 30, 400, 5_000])
def test_binomial_tails(n: int) -> None:
    for p, k in product((0.5, 0.02, 0.9), {0, 1, n // 3, n // 2, n - 1, n}):
        assert binomial_at_most(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), abs=1e-12)
        assert binomial_probability(k, n, p) == pytest.approx(stats.binom.pmf(k, n, p), rel=1e-11, abs=1e-300)
    assert binomial_at_most(-1, n, 0.5) == 0.0
