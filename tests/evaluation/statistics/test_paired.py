"""Two runs over the same items: the tests against scipy and statsmodels, and how often they err."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from benchmarks.statistics import ALIKE, Kind, Sample, clustered, false_alarms, mcnemar_finds
from infer_cli.evaluation.statistics.paired import (
    PairedComparison,
    adjust,
    compare,
    holm,
    mid_p_mcnemar,
    sign_flip_test,
)
from infer_cli.evaluation.statistics.units import units_of

ANSWERS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def right(n: int, share: float, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [float(rng.random() < share) for _ in range(n)]


def of_proportions(
    a: list[float], b: list[float], clusters: list[str] | None = None, *, seed: int = 0
) -> PairedComparison:
    return compare(a, b, clusters=clusters, is_proportion=True, seed=seed)


def flipped(n: int, n_better: int, n_worse: int) -> tuple[list[float], list[float]]:
    """Runs A and B of n items that differ by so many."""
    same = [1.0] * (n - n_better - n_worse)
    return [0.0] * n_better + [1.0] * n_worse + same, [1.0] * n_better + [0.0] * n_worse + same


# --- the tests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("better", "worse"), [(1, 7), (7, 1), (0, 5), (3, 4), (12, 30), (200, 260)])
def test_the_mid_p_value_lies_half_an_outcome_below_the_exact_one(better: int, worse: int) -> None:
    exact = mcnemar([[0, better], [worse, 0]], exact=True).pvalue
    half = stats.binom.pmf(min(better, worse), better + worse, 0.5)
    assert mid_p_mcnemar(better, worse) == pytest.approx(exact - half, abs=1e-12)


def test_a_published_mid_p_value() -> None:
    # Fagerland, Lydersen and Laake 2013, table 3: 1 and 7 discordant pairs.
    assert mid_p_mcnemar(1, 7) == pytest.approx(0.039, abs=5e-4)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_exact_sign_flips_are_scipys(n: int) -> None:
    rng = np.random.default_rng(n)
    change = rng.normal(0.5, 1, n)
    theirs = stats.permutation_test(
        (change, np.zeros(n)), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    ours = sign_flip_test(units_of(change.tolist()), 0)
    assert ours.method == "exact sign flips" and ours.seed is None
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=1e-12)


def test_clusters_flip_together() -> None:
    # Sums 2, 1 and -1: of 8 patterns, 6 have a sum of 2 or more.
    units = units_of([1, 1, 1, -1], ["a", "a", "b", "c"])
    assert sign_flip_test(units, 0).p_value == 6 / 8


def test_drawn_sign_flips_come_near_exact_ones() -> None:
    # Of 13 units all 8,192 patterns are tried; one more hardly changes a sum, and is one too many.
    change = np.random.default_rng(4).normal(0.4, 1, 13).tolist()
    exact = sign_flip_test(units_of(change), 1)
    drawn = sign_flip_test(units_of([*change, 1e-9]), 1)
    assert exact.method == "exact sign flips" and drawn.method == "sign flips"
    assert (drawn.seed, drawn.n_resamples) == (1, 9_999)
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.01)
    assert sign_flip_test(units_of([*change, 1e-9]), 1) == drawn


def test_a_unit_without_a_change_does_not_count() -> None:
    assert sign_flip_test(units_of([1, 1, 1]), 0) == sign_flip_test(units_of([1, 0, 1, 0, 1] + [0] * 40), 0)


@pytest.mark.parametrize(
    "p_values", [[0.04], [0.01, 0.04, 0.03], [0.9, 0.02, 0.02, 0.3], [0.5, 0.0, 1.0], [0.02, 0.01, 0.5, 0.05]]
)
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    theirs = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(theirs.tolist(), abs=1e-12)


# --- how often they err ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [10, 30, 100, 250])
@pytest.mark.parametrize("discordance", [0.05, 0.2, 0.5, 0.95])
def test_mcnemar_seldom_finds_what_is_not_there(n: int, discordance: float) -> None:
    assert mcnemar_finds(n, discordance, 0.0) <= 0.06


def _sign_flips(sample: Sample) -> float:
    change = np.subtract(sample.others, sample.scores).tolist()
    return sign_flip_test(units_of(change, sample.clusters), 0, 999).p_value


@pytest.mark.parametrize("kind", ALIKE, ids=lambda kind: kind.name)
def test_sign_flips_seldom_find_what_is_not_there(kind: Kind) -> None:
    assert false_alarms(kind, 500, 2, _sign_flips) <= 0.06


def test_without_its_clusters_a_test_would_often_be_wrong() -> None:
    def naive(sample: Sample) -> float:
        return of_proportions(sample.scores, sample.others).test.p_value

    assert false_alarms(clustered(30, 5, 0.7, 0.7), 500, 2, naive) > 0.15


@pytest.mark.parametrize("n", [30, 100, 300])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_the_smallest_visible_difference_is_found_four_times_of_five(n: int, share: float) -> None:
    half = round(n * share / 2)
    visible = of_proportions(*flipped(n, half, half)).smallest_visible
    assert visible is not None
    # Up to 90 % where all that changes must do so in one direction: few items, which no smaller power fits.
    assert 0.79 <= mcnemar_finds(n, max(2 * half / n, visible), visible) <= 0.9


def test_the_smallest_visible_difference_of_means() -> None:
    rng = np.random.default_rng(1)
    change = rng.normal(0, 1, 40)
    a = np.zeros(40)
    visible = compare(
        a.tolist(), change.tolist(), clusters=None, is_proportion=False, seed=0
    ).smallest_visible
    assert visible is not None
    # A t test of 40 items with this standard deviation and this difference.
    far = visible / (change.std(ddof=1) / math.sqrt(40))
    limit = stats.t.ppf(0.975, 39)
    power = stats.nct.sf(limit, 39, far) + stats.nct.cdf(-limit, 39, far)
    assert power == pytest.approx(0.8, abs=0.01)


# --- a comparison ---------------------------------------------------------------------------------


@pytest.mark.parametrize("clusters", [None, [f"text {i // 4}" for i in range(400)]])
@pytest.mark.parametrize("is_proportion", [True, False])
def test_a_run_against_itself(clusters: list[str] | None, is_proportion: bool) -> None:
    a = right(400, 0.7, 1)
    found = compare(a, a, clusters=clusters, is_proportion=is_proportion, seed=0)
    assert found.n_flipped == 0 and found.difference == 0.0
    assert found.test.p_value == found.p_adjusted == 1.0 and not found.told_apart
    assert found.sentence().startswith("A and B have the same score on each of 400 items")
    if is_proportion:  # Even so, so many items leave a doubt.
        assert found.interval is not None and 0 < found.interval.half_width < 0.04
        assert found.smallest_visible is not None and found.smallest_visible > 0.015
    else:
        assert found.interval is None and found.note is not None and "are alike" in found.note


def test_which_items_changed() -> None:
    found = of_proportions([0, 1, 1, 0, 1], [1, 1, 0, 1, 1])
    assert (found.better, found.worse, found.n_flipped) == ((0, 3), (2,), 3)
    assert (found.value_a, found.value_b, found.n, found.n_clusters) == (0.6, 0.8, 5, None)
    assert found.difference == pytest.approx(0.2)


@given(ANSWERS, st.booleans())
def test_the_other_way_round_is_the_same(answers: list[tuple[bool, bool]], are_clustered: bool) -> None:
    a, b = ([float(pair[side]) for pair in answers] for side in (0, 1))
    clusters = [f"text {i // 3}" for i in range(len(a))] if are_clustered else None
    one, other = of_proportions(a, b, clusters), of_proportions(b, a, clusters)
    assert one.difference == pytest.approx(-other.difference)
    assert one.test.p_value == pytest.approx(other.test.p_value)
    assert (one.better, one.worse) == (other.worse, other.better)
    assert one.stderr == pytest.approx(other.stderr)
    assert one.smallest_visible == pytest.approx(other.smallest_visible)
    if one.interval is not None:
        assert one.interval.lo <= one.difference <= one.interval.hi


def test_the_test_is_chosen_by_what_is_compared() -> None:
    a, b, texts = right(90, 0.7, 1), right(90, 0.6, 2), [f"text {i // 2}" for i in range(90)]
    assert of_proportions(a, b).test.method == "mid-p McNemar"
    assert of_proportions(a, b, texts).test.method == "sign flips"
    assert of_proportions(a, b, [str(i) for i in range(90)]).test.method == "mid-p McNemar"
    assert compare(a, b, clusters=None, is_proportion=False, seed=0).test.method == "sign flips"


@pytest.mark.parametrize(
    ("n", "is_proportion", "fewest"), [(4, True, 5), (5, True, None), (5, False, 6), (6, False, None)]
)
def test_too_few_items_for_any_result(n: int, is_proportion: bool, fewest: int | None) -> None:
    a, b = [0.0] * n, ([1.0] * n if is_proportion else [(i + 1) / n for i in range(n)])
    found = compare(a, b, clusters=None, is_proportion=is_proportion, seed=0)
    assert found.told_apart == (fewest is None)
    assert (found.smallest_visible is None) == (fewest is not None)
    if fewest:
        assert found.note == f"{n} items are too few for the test: fewer than {fewest} give no p below 0.05"


def test_several_tests_are_a_family() -> None:
    pairs = [flipped(200, 11, 3), flipped(200, 14, 3), flipped(200, 5, 4)]
    alone = [of_proportions(*pair) for pair in pairs]
    together = adjust(alone)
    assert [found.told_apart for found in alone] == [True, True, False]
    assert [found.told_apart for found in together] == [False, True, False]
    assert [found.p_adjusted for found in together] == holm([found.test.p_value for found in alone])


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        (flipped(400, 8, 12), "A and B cannot be told apart on 400 items: ±2.3 points (p = 0.383)."),
        (
            flipped(400, 12, 2),
            "B is better by 2.5 points on 400 items (95 % interval 0.6 to 4.4, p = 0.00739).",
        ),
        (
            flipped(400, 2, 12),
            "A is better by 2.5 points on 400 items (95 % interval 0.6 to 4.4, p = 0.00739).",
        ),
        (
            flipped(20, 12, 0),
            "B is better by 60.0 points on 20 items (95 % interval 30.2 to 78.9, p < 0.001).",
        ),
        (
            flipped(200, 9, 2),  # the interval begins just below 0
            "B is better by 3.5 points on 200 items (95 % interval 0.0 to 6.9, p = 0.0386).",
        ),
        (flipped(1, 1, 0), "A and B cannot be told apart on 1 item: ±86.7 points (p = 0.5)."),
    ],
)
def test_the_sentence(pair: tuple[list[float], list[float]], sentence: str) -> None:
    assert of_proportions(*pair).sentence() == sentence


def test_the_sentence_of_other_scores() -> None:
    a = [10.0 + i % 7 / 10 for i in range(60)]
    b = [score - 1 - i % 3 / 10 for i, score in enumerate(a)]
    texts = [f"text {i // 2}" for i in range(60)]
    found = compare(a, b, clusters=texts, is_proportion=False, seed=0, higher_is_better=False)
    assert found.sentence("q4", "q8") == (
        "q8 is better by 1.1 on 60 items in 30 clusters (95 % interval 1.08 to 1.11, p < 0.001)."
    )


@pytest.mark.parametrize(
    ("a", "b", "wrong"),
    [
        ([1.0], [1.0, 0.0], "A has 1 scores and B has 2"),
        ([], [], "there are no scores"),
        ([0.5], [1.0], "neither 0 nor 1"),
        ([1.0], [math.nan], "the score of item 0 is not a finite number"),
    ],
)
def test_what_cannot_be_compared(a: list[float], b: list[float], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        of_proportions(a, b)


# --- ratios ---------------------------------------------------------------------------------------


def test_a_ratio_is_compared_as_the_mean_of_its_amounts() -> None:
    """Bits over bytes: as if each byte had its share of the bits, and a text were a cluster."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(2, 9, 60)
    a, b = rng.normal(3, 1, 60) * sizes, rng.normal(3.2, 1, 60) * sizes
    found = compare(a.tolist(), b.tolist(), clusters=None, is_proportion=False, seed=0, sizes=sizes.tolist())
    names = np.repeat(np.arange(60), sizes).astype(str).tolist()
    of_bytes = [np.repeat(each / sizes, sizes).tolist() for each in (a, b)]
    same = compare(*of_bytes, clusters=names, is_proportion=False, seed=0)
    assert (found.n, found.n_clusters, found.in_points) == (60, None, False)
    assert found.value_a == pytest.approx(a.sum() / sizes.sum())
    assert found.difference == pytest.approx(found.value_b - found.value_a)
    assert found.interval is not None and same.interval is not None
    assert found.interval[:2] == pytest.approx(same.interval[:2])
    assert found.stderr == pytest.approx(same.stderr)
    assert found.test.p_value == same.test.p_value
    assert found.smallest_visible == pytest.approx(same.smallest_visible)


def test_few_texts_are_items() -> None:
    found = compare([8.0, 9, 7], [7.0, 9, 5], clusters=None, is_proportion=False, seed=0, sizes=[4.0, 4, 2])
    assert found.note == "3 items are too few for the test: fewer than 6 give no p below 0.05"
    assert "on 3 items" in found.sentence()


def test_a_proportion_has_no_sizes() -> None:
    with pytest.raises(ValueError, match="not taken over sizes"):
        compare([1.0], [0.0], clusters=None, is_proportion=True, seed=0, sizes=[2.0])
    with pytest.raises(ValueError, match="1 sizes for 2 scores"):
        compare([1.0, 2], [0.0, 2], clusters=None, is_proportion=False, seed=0, sizes=[2.0])
