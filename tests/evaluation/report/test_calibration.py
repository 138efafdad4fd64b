"""Calibration, against counts by hand."""

from __future__ import annotations

import math

import pytest

from infer_cli.evaluation.report.calibration import calibration, probabilities
from infer_cli.evaluation.runs.sample import Outcome, Sample, ScoredChoice


def choices(*probabilities: float) -> tuple[ScoredChoice, ...]:
    """Likelihoods that have these shares, each times the same."""
    return tuple(ScoredChoice("c", math.log(p) - 40, 1, 1, None) for p in probabilities)


def sample(gold: int | None, *probabilities: float, outcome: Outcome = "ok") -> Sample:
    return Sample(
        "i",
        0,
        0,
        None,
        None,
        None,
        "",
        None,
        None,
        (),
        outcome,
        {},
        choices=choices(*probabilities),
        gold=gold,
    )


def test_probabilities_are_shares_of_the_likelihoods() -> None:
    assert probabilities(choices(0.2, 0.8)) == pytest.approx([0.2, 0.8])
    assert probabilities(tuple(ScoredChoice("", value, 1, 1, None) for value in (-4000.0, -4000.0))) == [
        0.5,
        0.5,
    ]


def test_one_choice_or_one_without_a_likelihood_has_none() -> None:
    assert probabilities(choices(0.5)) is None
    assert probabilities((*choices(0.5), ScoredChoice("", None, 1, 1, None))) is None


def test_bins_and_the_error() -> None:
    found = calibration(
        [sample(1, 0.25, 0.75), sample(0, 0.25, 0.75), sample(0, 0.95, 0.05), sample(1, 0.45, 0.55)]
    )
    assert found is not None
    assert [(each.lo, each.n, each.n_right) for each in found.bins] == [(0.5, 1, 1), (0.7, 2, 1), (0.9, 1, 1)]
    # 1/4 of |1 - 0.55|, 2/4 of |1/2 - 0.75|, 1/4 of |1 - 0.95|
    assert found.error == pytest.approx(0.25 * 0.45 + 0.5 * 0.25 + 0.25 * 0.05)
    assert found.n == 4


def test_a_model_that_is_sure_is_in_the_last_bin() -> None:
    found = calibration([sample(0, 1.0, 1e-300)])
    assert found is not None
    assert [(each.lo, each.n_right) for each in found.bins] == [(0.9, 1)]
    assert found.error == pytest.approx(0)


def test_what_failed_or_has_no_right_choice_is_no_part_of_it() -> None:
    assert calibration([sample(None, 0.5, 0.4), sample(0, 0.5, 0.4, outcome="error")]) is None
