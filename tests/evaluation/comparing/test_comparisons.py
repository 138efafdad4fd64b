"""Runs against runs: one comparison for each task, pair and metric, with the statistics' own functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.statistics import clustered
from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.comparable import Asked, ComparableRun, Content, MetricScores
from infer_cli.evaluation.comparing.comparisons import (
    SEED,
    Question,
    RunComparison,
    compare_entries,
    incomparable,
    unlike_conditions,
)
from infer_cli.evaluation.comparing.matching import make_entries
from infer_cli.evaluation.comparing.run_folder import read_comparable_run
from infer_cli.evaluation.statistics import paired
from tests.evaluation.comparing.run_folders import Answered, right, write_run

NAN = float("nan")


def run(
    scores: Sequence[float],
    *,
    task: str = "sums",
    clusters: Sequence[str] | None = None,
    sizes: Sequence[float] | None = None,
    higher_is_better: bool = True,
    made_by: dict[str, str] | None = None,
    others: Sequence[MetricScores] = (),
) -> ComparableRun:
    n = len(scores)
    metric = MetricScores(
        "exact", higher_is_better, np.array(scores), None if sizes is None else np.array(sizes)
    )
    return ComparableRun(
        "run", task, "small", [str(i) for i in range(n)], [Content(b"row", b"asked")] * n, clusters,
        (metric, *others), made_by or {},
        lambda place: Asked(f"What is {place}?", f"It is {scores[place]:g}"), list,
    )  # fmt: skip


def compared(*runs: ComparableRun, question: Question | None = None) -> list[RunComparison]:
    return compare_entries(
        make_entries((f"run{i}", [run]) for i, run in enumerate(runs)),
        question or Question(),
    )


def draw(n: int, share: float, seed: int) -> list[float]:
    found: list[float] = (np.random.default_rng(seed).random(n) < share).astype(float).tolist()
    return found


# --- the statistics -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_path_is_that_of_the_benchmark(seed: int) -> None:
    """`benchmarks.statistics` measures how often `paired.compare` errs: a comparison says what that says."""
    sample = clustered(30, 5, 0.7, 0.7).draw(np.random.default_rng(seed))
    (found,) = compared(run(sample.scores, clusters=sample.clusters), run(sample.others))
    assert found.found == paired.compare(
        sample.scores, sample.others, clusters=sample.clusters, is_proportion=sample.is_proportion, seed=SEED
    )
    assert found.found.test.method == "sign flips" and found.found.test.seed == SEED
    assert found.found.n_clusters == 30


def test_scores_of_0_and_1_are_a_proportion_and_means_of_samples_are_not() -> None:
    a, b = draw(80, 0.5, 1), draw(80, 0.6, 2)
    (found,) = compared(run(a), run(b))
    assert found.found.test.method == "mid-p McNemar"
    (found,) = compared(run([0.5, *a[1:]]), run(b))
    assert found.found.test.method == "sign flips"


def test_the_items_are_those_of_one_id_whatever_the_order() -> None:
    a, b = draw(60, 0.5, 1), draw(60, 0.6, 2)
    (straight,) = compared(run(a), run(b))
    backwards = replace(
        run(b[::-1]), ids=[str(i) for i in reversed(range(60))], asked=lambda place: Asked("", str(place))
    )
    (found,) = compared(run(a), backwards)
    assert found.found == straight.found
    assert [flip.score_b for flip in found.flips()] == [flip.score_b for flip in straight.flips()]
    assert found.flips()[0].answer_b == str(59 - int(found.flips()[0].item))


def test_all_tests_are_one_family() -> None:
    a, b, c = draw(200, 0.5, 1), draw(200, 0.6, 2), draw(200, 0.7, 3)
    entries = make_entries(
        (name, [run(scores), run(scores[:100], task="words")])
        for name, scores in zip("abc", (a, b, c), strict=True)
    )
    found = compare_entries(entries, Question())
    assert [(each.task, each.a.label, each.b.label) for each in found] == [
        ("sums", "A", "B"), ("sums", "A", "C"), ("words", "A", "B"), ("words", "A", "C"),
    ]  # fmt: skip
    p_values = [each.found.test.p_value for each in found]
    assert [each.found.p_adjusted for each in found] == paired.holm(p_values)
    pairs = [(each.a.label, each.b.label) for each in compare_entries(entries, Question(all_pairs=True))]
    assert pairs == [("A", "B"), ("A", "C"), ("B", "C")] * 2


def test_a_run_against_itself() -> None:
    (found,) = compared(run(draw(50, 0.5, 1)), run(draw(50, 0.5, 1)))
    assert found.found.n_flipped == 0 and found.flips() == []
    assert found.sentence() == "A and B have the same score on each of 50 items."
    assert not found.is_worse and not found.may_be_worse_by(0.001)


def test_ratios_are_of_all_bits_and_all_bytes() -> None:
    a = run([30.0, 44.0, 10.0], sizes=[10.0, 11.0, 5.0], higher_is_better=False)
    b = run([20.0, 44.0, 15.0], sizes=[10.0, 11.0, 5.0], higher_is_better=False)
    (found,) = compared(a, b)
    assert found.found.value_a == pytest.approx(84 / 26) and found.found.value_b == pytest.approx(79 / 26)
    assert (found.better, found.worse) == ((0,), (2,))
    # Item 0 changes by 1 a byte, item 2 too: the first comes first.
    assert [(flip.item, flip.score_a, flip.score_b) for flip in found.flips()] == [("0", 3, 2), ("2", 2, 3)]
    with pytest.raises(UsageError, match="texts of other sizes"):
        compared(a, replace(b, metrics=run([1.0, 1, 1], sizes=[9.0, 11, 5]).metrics))


def test_items_that_a_run_leaves_out_are_left_out() -> None:
    (found,) = compared(run([1.0, NAN, 0.0, 1.0]), run([0.0, 1.0, NAN, 1.0]))
    assert (found.found.n, found.n_excluded) == (2, 2)
    assert [flip.item for flip in found.flips()] == ["0"]
    with pytest.raises(UsageError, match="no item in common that did not fail"):
        compared(run([1.0, NAN]), run([NAN, 1.0]))


# --- what is compared -----------------------------------------------------------------------------

F1 = MetricScores("f1", True, np.array([0.5, 0.25, 1.0]))
LOST = MetricScores("logprob", True, np.array([NAN, 1.0, 1.0]), missing="1 of its items have no value")


def names(a: ComparableRun, b: ComparableRun, question: Question) -> list[str]:
    return [each.metric for each in compared(a, b, question=question)]


def test_the_main_metric_or_those_that_are_named() -> None:
    both = run([1.0, 0, 1], others=[F1, LOST])
    assert names(both, both, Question()) == ["exact"]
    assert names(both, both, Question(metrics=("f1", "exact"))) == ["f1", "exact"]
    assert names(both, both, Question(all_metrics=True)) == ["exact", "f1"]
    assert incomparable(make_entries([("a", [both])])) == ["logprob: 1 of its items have no value"]


def test_metrics_that_cannot_be_compared() -> None:
    both, without = run([1.0, 0, 1], others=[F1, LOST]), run([1.0, 0, 1], others=[LOST])
    for pair, metric, wrong in (
        ((both, both), "logprob", "logprob of run can't be compared: 1 of its items have no value"),
        ((both, without), "f1", "run has no metric f1, which run has"),
        ((both, both), "bleu", "no task has a metric 'bleu'"),
    ):
        with pytest.raises(UsageError, match=wrong):
            compared(*pair, question=Question(metrics=(metric,)))
    with pytest.raises(UsageError, match="logprob of run can't be compared"):
        compared(replace(both, metrics=(LOST,)), both)


@pytest.mark.parametrize("question", [Question(), Question(all_metrics=True)])
def test_runs_without_a_metric_are_not_found_alike(question: Question) -> None:
    both, none = run([1.0, 0, 1]), replace(run([1.0, 0, 1]), metrics=(), name="bare")
    for pair in ((none, none), (none, both), (both, none)):
        with pytest.raises(UsageError, match="bare has no metric"):
            compared(*pair, question=question)
    with pytest.raises(UsageError, match="nothing was compared"):
        compare_entries(make_entries([("a", [both])]), question)


def test_a_metric_that_some_tasks_have() -> None:
    entries = make_entries(
        (name, [run([1.0, 0, 1]), run([1.0, 0, 1], task="words", others=[F1])]) for name in "ab"
    )
    assert [each.task for each in compare_entries(entries, Question(metrics=("f1",)))] == ["words"]


# --- what is told ---------------------------------------------------------------------------------


def test_flips_are_those_that_changed_most() -> None:
    (found,) = compared(run([0.0, 0.5, 1.0, 1.0, 0.0]), run([0.5, 0.5, 0.0, 0.0, 0.25]))
    assert [flip.item for flip in found.flips()] == ["2", "3", "0", "4"]
    assert found.flips(1) == [("2", "What is 2?", "It is 1", "It is 0", 1.0, 0.0)]
    assert found.as_json(0)["better"] == ["0", "4"] and found.as_json(0)["worse"] == ["2", "3"]


def test_better_and_worse_go_by_the_metrics_direction() -> None:
    a, b = [5.0 + i % 3 for i in range(40)], [4.0 + i % 2 for i in range(40)]
    (found,) = compared(run(a, higher_is_better=False), run(b, higher_is_better=False))
    assert found.found.told_apart and not found.is_worse and found.gain > 0
    assert found.better and found.as_json(0)["better"] == [str(i) for i in found.better]
    (found,) = compared(run(b, higher_is_better=False), run(a, higher_is_better=False))
    assert found.is_worse and found.may_be_worse_by(0.5) and not found.may_be_worse_by(5)


def test_a_margin_is_held_where_the_interval_ends_before_it() -> None:
    a = [1.0] * 60 + [0.0] * 340
    b = [1.0] * 56 + [0.0] * 4 + [1.0] * 2 + [0.0] * 338
    (found,) = compared(run(a), run(b))
    assert found.found.interval is not None
    lo = -100 * found.found.interval.lo  # points
    assert 1 < lo < 3 and not found.is_worse
    assert found.may_be_worse_by(lo - 0.01) and not found.may_be_worse_by(lo + 0.01)


def test_without_an_interval_nothing_is_ruled_out() -> None:
    (found,) = compared(run([2.0]), run([3.0]))
    assert found.found.interval is None and found.may_be_worse_by(100)


def test_conditions_that_are_not_alike() -> None:
    runs = [run([1.0], made_by={"mode": mode, "infer": "0.1"}) for mode in ("invariant", "fast", "invariant")]
    entries = make_entries((str(i), [each]) for i, each in enumerate(runs))
    assert unlike_conditions(entries) == ["mode invariant (A, C), fast (B)"]
    assert unlike_conditions(entries[::2]) == []


def test_folders_to_the_end(tmp_path: Path) -> None:
    """An item that failed, and that its run leaves out; an item that is not the same."""
    a = write_run(tmp_path / "a", right(1, 1, 0, 1))
    failed = [replace(item, outcomes=("error",)) for item in right(0, 1, 0, 1)[:1]]
    b = write_run(tmp_path / "b", [*failed, *right(0, 1, 0, 1)[1:]], exclude_errors=True)
    entries = make_entries((path.name, [read_comparable_run(path)]) for path in (a, b))
    (found,) = compare_entries(entries, Question())
    assert (found.found.n, found.n_excluded, found.found.n_flipped) == (3, 1, 0)
    c = write_run(tmp_path / "c", [Answered("0", [{"exact": 1.0}]), *right(0, 1, 0, 1)[1:]])
    entries = make_entries((path.name, [read_comparable_run(path)]) for path in (a, c))
    with pytest.raises(UsageError, match=r"item 0 of .* has another prompt in"):
        compare_entries(entries, Question())
