"""From samples to metrics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import pytest

from infer_cli.evaluation.runs.facts import Scoring
from infer_cli.evaluation.runs.results import MetricResult
from infer_cli.evaluation.runs.sample import Outcome, Sample
from infer_cli.evaluation.runs.summary import NO_GROUP, SamplesSummary, Totals
from infer_cli.evaluation.statistics.aggregate import summarize
from infer_cli.evaluation.statistics.intervals import clopper_pearson
from infer_cli.evaluation.tasks.item import Metric
from tests.evaluation.runs.run_helpers import sample

EXACT = Metric("exact", "exact", is_proportion=True)
MEAN = Metric("exact", "exact")
LEFT_OUT = Scoring(exclude_errors=True)


def summary(
    items: Sequence[Sequence[Sample]], *metrics: Metric, scoring: Scoring | None = None
) -> SamplesSummary:
    totals = Totals(metrics or (EXACT,), scoring or Scoring())
    for samples in items:
        totals.add(samples)
    return totals.summary()


def only(found: SamplesSummary) -> MetricResult:
    (score,) = found.scores
    return score


def scored(*scores: float) -> list[list[Sample]]:
    return [[sample(i, score)] for i, score in enumerate(scores)]


def test_a_proportion_is_that_of_the_statistics() -> None:
    scores = [1.0, 0.0, 1.0, 1.0] * 5
    wanted = summarize(scores, clusters=None, is_proportion=True, seed=0)
    found = only(summary(scored(*scores))).score
    assert wanted.interval is not None
    assert (found.value, found.stderr, found.n) == (0.75, wanted.stderr, 20)
    assert (found.ci, found.method) == ((wanted.interval.lo, wanted.interval.hi), "wilson")


def test_the_interval_is_the_one_that_is_asked_for() -> None:
    found = only(summary(scored(1, 0, 1, 1), scoring=Scoring(interval="clopper-pearson"))).score
    lo, hi, method = clopper_pearson(3, 4)
    assert (found.ci, found.method) == ((lo, hi), method)


def test_all_that_was_asked_is_the_denominator() -> None:
    failed: tuple[Outcome, ...] = ("error", "cut", "not_extracted", "scorer_failed")
    items = [*scored(1, 1, 1, 1), *([sample(4 + i, 0.0, outcome=each)] for i, each in enumerate(failed))]
    counted = summary(items)
    assert only(counted).score.value == 0.5
    assert counted.rates == dict.fromkeys(failed, 1 / 8)
    left_out = summary(items, scoring=LEFT_OUT)
    assert (only(left_out).score.value, only(left_out).score.n) == (1.0, 4)
    assert (left_out.rates, left_out.n_items) == (counted.rates, 8)


def test_where_nothing_is_left_there_is_no_value() -> None:
    found = only(summary([[sample(0, 0.0, outcome="error")]], scoring=LEFT_OUT)).score
    assert (found.value, found.ci, found.n) == (None, None, 0)
    assert found.note


def test_one_item_and_alike_items_say_so() -> None:
    assert "one item" in (only(summary(scored(1))).score.note or "")
    alike = only(summary(scored(1, 1, 1), MEAN)).score
    assert (alike.stderr, alike.ci) == (None, None)
    assert "alike" in (alike.note or "")


def test_groups_and_their_mean() -> None:
    items = [
        [sample(i, float(right), group=group)]
        for i, (group, right) in enumerate([("a", 1), ("a", 0), ("a", 1), ("b", 0), (None, 1)])
    ]
    found = only(summary(items))
    assert found.groups is not None and found.macro is not None
    assert {name: group.value for name, group in found.groups.items()} == {
        "a": 2 / 3, "b": 0.0, NO_GROUP: 1.0,
    }  # fmt: skip
    assert found.macro.value == pytest.approx((2 / 3 + 0 + 1) / 3, abs=1e-15)
    assert found.score.value == 0.6


def test_items_of_a_cluster_are_not_independent() -> None:
    items = [[sample(i, float(i // 10 % 2), cluster=f"c{i // 10}")] for i in range(100)]
    clustered = only(summary(items)).score
    alone = only(summary([[sample(i, float(i // 10 % 2))] for i in range(100)])).score
    assert clustered.ci is not None and alone.ci is not None
    assert (clustered.clusters, alone.clusters) == (10, None)
    assert clustered.ci[1] - clustered.ci[0] > 2 * (alone.ci[1] - alone.ci[0])


def test_an_item_without_a_cluster_is_one_by_itself() -> None:
    items = [[sample(i, float(i % 2), cluster="c" if i < 2 else None)] for i in range(6)]
    assert only(summary(items)).score.clusters == 5


def test_seeds_have_a_spread_of_their_own() -> None:
    items = [[sample(i, float((i + seed) % 3 == 0), seed=seed) for seed in (0, 1, 2, 3)] for i in range(9)]
    found = only(summary(items))
    assert found.seeds == (1 / 3,) * 4
    assert found.between_seeds == 0.0
    assert found.score.n == 9
    uneven = [[sample(i, float(seed), seed=seed) for seed in (0, 1)] for i in range(9)]
    assert only(summary(uneven)).between_seeds == pytest.approx(statistics.stdev([0, 1]))


def test_an_item_with_a_seed_that_failed_is_left_out_of_all_seeds() -> None:
    items = [
        [sample(0, 1.0, seed=0), sample(0, 1.0, seed=1)],
        [sample(1, 0.0, seed=0), sample(1, 0.0, seed=1, outcome="cut")],
    ]
    found = only(summary(items, scoring=LEFT_OUT))
    assert (found.score.value, found.score.n, found.seeds) == (1.0, 1, (1.0, 1.0))


def of_samples(*rights: Sequence[int]) -> list[list[Sample]]:
    return [
        [sample(i, float(right), sample=k, extracted=str(right)) for k, right in enumerate(each)]
        for i, each in enumerate(rights)
    ]


def test_pass_at_k_is_unbiased() -> None:
    items = of_samples([1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0])
    for k, wanted in ((1, 0.25), (2, (0.5 + 5 / 6) / 3), (4, 2 / 3)):
        metric = Metric("p", "exact", "pass@k", k=k)
        assert only(summary(items, metric)).score.value == pytest.approx(wanted, abs=1e-15)


def test_samples_of_an_item_are_averaged_and_make_no_proportion() -> None:
    found = only(summary(of_samples([1, 1], [0, 0], [1, 1]))).score
    assert found.value == pytest.approx(2 / 3)
    assert (found.method, found.ci and found.ci[1]) == ("t", 1.0)  # no mean of these is above 1


def test_the_majority_has_the_first_of_the_most_frequent_answers() -> None:
    metric = Metric("m", "exact", "majority")
    items = of_samples([1, 0, 0], [0, 1, 1], [1, 0])
    assert only(summary(items, metric)).score.value == pytest.approx(2 / 3)
    assert only(
        summary(of_samples([1, 1, 0], [0, 0, 1]), replace(metric, is_proportion=True))
    ).score.method == ("wilson")
    voiceless = [[sample(0, 0.0, outcome="cut", extracted="4"), sample(0, 0.0, outcome="error")]]
    assert only(summary(voiceless, metric)).score.value == 0.0


BITS = Metric("bits_per_byte", "bits", "ratio", higher_is_better=False, worst=None, size="bytes")
PERPLEXITY = Metric(
    "byte_perplexity", "bits", "ratio", higher_is_better=False, worst=None, size="bytes", is_exponential=True
)


def text(i: int, bits: float, n_bytes: float) -> list[Sample]:
    return [sample(i, scores={"bits": bits}, sizes={"bytes": n_bytes})]


def test_a_ratio_is_that_of_the_sums() -> None:
    items = [text(0, 8.0, 4.0), text(1, 8.0, 8.0), text(2, 20.0, 12.0)]
    bits, perplexity = summary(items, BITS, PERPLEXITY).scores
    assert (bits.score.value, bits.score.n) == (36 / 24, 3)
    assert perplexity.score.value == 2 ** (36 / 24)
    assert bits.score.ci is not None and perplexity.score.ci is not None
    assert perplexity.score.ci == pytest.approx([2**end for end in bits.score.ci])
    assert bits.score.stderr is not None and perplexity.score.stderr is not None
    assert perplexity.score.stderr == pytest.approx(
        bits.score.stderr * math.log(2) * (perplexity.score.value or 0)
    )
    assert "items are few" in (bits.score.note or "")


def test_a_ratio_of_one_text_has_no_interval() -> None:
    found = only(summary([text(0, 8.0, 4.0)], BITS)).score
    assert (found.value, found.ci) == (2.0, None)
    assert "one item" in (found.note or "")


def test_a_ratio_has_no_value_where_an_item_failed() -> None:
    items = [text(0, 8.0, 4.0), [sample(1, outcome="error", scores={})]]
    found = only(summary(items, BITS)).score
    assert (found.value, found.n) == (None, 2)
    assert "--exclude-errors" in (found.note or "")
    assert only(summary(items, BITS, scoring=LEFT_OUT)).score.value == 2.0


@pytest.mark.parametrize(
    "sizes",
    [
        [(2000.0, 1.0)],  # the value
        [(1000.0, 1.0), (800.0, 1.0), (1010.0, 1.0)],  # the upper end
    ],
)
def test_a_perplexity_beyond_all_numbers_has_no_value(sizes: Sequence[tuple[float, float]]) -> None:
    bits, found = summary([text(i, *each) for i, each in enumerate(sizes)], BITS, PERPLEXITY).scores
    assert bits.score.value is not None
    assert (found.score.value, found.score.stderr, found.score.ci) == (None, None, None)
    assert "too large for a number" in (found.score.note or "") and found.score.n == len(sizes)


@pytest.mark.parametrize(("n", "method"), [(30, "t"), (49, "t"), (50, "bca")])
def test_a_ratio_has_a_bootstrap_from_50_texts(n: int, method: str) -> None:
    items = [text(i, 8.0 + i % 7, 4.0 + i % 3) for i in range(n)]
    found = only(summary(items, BITS)).score
    assert found.method == method
    assert found.note == (f"{n} items are few: fewer than 50 say little of their spread" if n < 50 else None)
    clustered = [[replace(one, cluster=f"c{one.index}") for one in each] for each in items]
    assert only(summary(clustered, BITS)).score.method == "bca"


@pytest.mark.filterwarnings("error")
def test_texts_of_no_size_are_left_out() -> None:
    items = [text(0, 8.0, 4.0), text(1, 9.0, 0.0), text(2, 20.0, 12.0)]
    items = [[replace(one, group="blank" if one.index == 1 else "words") for one in each] for each in items]
    for metric in (BITS, PERPLEXITY):
        found = only(summary(items, metric))
        assert (found.score.n, found.score.value) == (2, 28 / 16 if metric is BITS else 2 ** (28 / 16))
        assert (found.score.note or "").startswith(
            "1 of 3 texts has no bytes and is left out; 2 items are few"
        )
        assert found.score.ci is not None and found.groups is not None
        assert found.groups["blank"].value is None
        assert found.groups["blank"].note == "the items have no bytes"
        nothing = only(summary([text(0, 8.0, 0.0), text(1, 8.0, 0.0)], metric)).score
        assert (nothing.value, nothing.note) == (None, "the items have no bytes")


def test_cut_answers_are_said_to_be_what_they_count_as() -> None:
    items = [[sample(i, 0.0, outcome="cut")] for i in range(2)]
    (wrong,) = summary(items).warnings
    (left_out,) = summary(items, scoring=LEFT_OUT).warnings
    assert wrong.endswith("and count as wrong") and left_out.endswith("and are left out")


def test_an_extraction_that_never_matches_is_doubted() -> None:
    items = [[sample(i, 0.0, outcome="not_extracted")] for i in range(20)]
    assert any("found nothing in 100%" in each for each in summary(items).warnings)
    assert not summary(scored(*[0.0] * 20)).warnings


def test_tokens_are_added_up() -> None:
    items = [[sample(i, n_prompt_tokens=3, n_tokens=2)] for i in range(4)]
    assert summary(items).tokens == {"prompt": 12, "completion": 8}
