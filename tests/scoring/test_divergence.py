"""Divergence of two rows of logits, against the definition in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from infer_cli.scoring.divergence import DivergenceSums, RowDifference, compare_rows
from infer_cli.scoring.statistics import Estimate


def _plain_kl(base: Sequence[float], model: Sequence[float]) -> float:
    total_p, total_q = (math.fsum(map(math.exp, row)) for row in (base, model))
    return math.fsum(
        math.exp(a) / total_p * math.log(math.exp(a) / total_p / (math.exp(b) / total_q))
        for a, b in zip(base, model, strict=True)
    )


def _row(seed: int, n: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, n).astype(np.float32)


def test_divergence_by_its_definition() -> None:
    for seed in range(20):
        base, model = _row(seed), _row(seed + 100)
        found = compare_rows(base, model)
        assert found.kl == pytest.approx(_plain_kl(base.tolist(), model.tolist()), rel=1e-9)
        assert found.same_top == (max(range(300), key=base.tolist().__getitem__) == int(model.argmax()))


def test_it_is_the_base_s_distribution_that_weighs() -> None:
    base, model = np.array([2, 0], np.float32), np.array([0, 0], np.float32)
    p = math.exp(2) / (math.exp(2) + 1)
    assert compare_rows(base, model).kl == pytest.approx(
        p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    )
    assert compare_rows(model, base).kl != pytest.approx(compare_rows(base, model).kl)


def test_equal_rows_diverge_by_exactly_nothing() -> None:
    for seed in range(20):
        assert compare_rows(_row(seed), _row(seed)) == RowDifference(0.0, True)
    shifted = compare_rows(_row(1), _row(1) + np.float32(8))
    assert 0 <= shifted.kl < 1e-12


def test_tokens_that_cannot_come() -> None:
    row, banned = _row(0), _row(0)
    banned[0] = -np.inf
    assert compare_rows(banned, banned).kl == 0
    assert 0 < compare_rows(banned, row).kl < math.inf
    assert compare_rows(row, banned).kl == math.inf


def test_small_divergences_are_not_lost_in_rounding() -> None:
    """To the second order, KL is half of the variance of what was added to the logits."""
    base = _row(3).astype(np.float64)
    noise = np.random.default_rng(9).normal(0, 1e-3, 300)
    p = np.exp(base - base.max()) / np.exp(base - base.max()).sum()
    expected = ((p * noise**2).sum() - (p * noise).sum() ** 2) / 2
    assert compare_rows(base, base + noise).kl == pytest.approx(expected, rel=0.02)  # type: ignore[arg-type]


def test_sums_over_tokens() -> None:
    sums = DivergenceSums()
    sums.add([RowDifference(0.5, True), RowDifference(0.1, False)], [1.0, 3.0], [1.5, 2.0])
    assert sums.kl_mean.value == pytest.approx(0.3)
    sums.add([RowDifference(0.3, True)], [2.0], [1.0])
    found = sums.result()
    assert found.kl_mean == pytest.approx((0.3, 0.2 / math.sqrt(3)))
    assert (found.kl_median, found.kl_max) == (0.3, 0.5)
    assert found.kl_p99 == pytest.approx(0.496)
    assert found.same_top.value == pytest.approx(2 / 3)
    assert found.ppl_base.value == pytest.approx(math.exp(1.5))
    assert found.ppl_ratio.value == pytest.approx(math.exp(0.5))
    # llama-perplexity's way: both variances, less twice the covariance of the pairs.
    own, base = np.array([1.0, 3.0, 2.0]), np.array([1.5, 2.0, 1.0])
    variance = (own.var() + base.var() - 2 * ((own * base).mean() - own.mean() * base.mean())) / 2
    assert found.ppl_ratio.error == pytest.approx(math.exp(0.5) * math.sqrt(variance))


def test_a_model_against_itself() -> None:
    sums = DivergenceSums()
    sums.add([RowDifference(0.0, True)] * 9, [0.1 * n for n in range(9)], [0.1 * n for n in range(9)])
    found = sums.result()
    nothing, all_of_it = Estimate(0.0, 0.0), Estimate(1.0, 0.0)
    assert (found.kl_mean, found.kl_median, found.kl_p99, found.kl_max) == (nothing, 0.0, 0.0, 0.0)
    assert (found.same_top, found.ppl_ratio) == (all_of_it, all_of_it)
