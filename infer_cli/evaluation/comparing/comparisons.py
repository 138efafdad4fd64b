"""Runs against runs. Each task, pair and metric is a comparison, all of them are one family of tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.comparable import ComparableRun, MetricScores
from infer_cli.evaluation.comparing.matching import Entry, Pairing, common_tasks, pair_items
from infer_cli.evaluation.statistics import paired
from infer_cli.evaluation.statistics.paired import PairedComparison

if TYPE_CHECKING:
    from infer_cli.evaluation.statistics.units import Integers

SEED = 0  # of sign flips and resamples that are drawn


@dataclass(frozen=True)
class Question:
    """What is compared. `metrics` empty: the main one of each task, or `all_metrics`. `all_pairs`: each with
    each, not only the first with the others. `allow_different`: items that are not the same are left out."""

    metrics: tuple[str, ...] = ()
    all_metrics: bool = False
    all_pairs: bool = False
    allow_different: bool = False


class Flip(NamedTuple):
    """An item of which the two scores differ."""

    item: str
    prompt: str
    answer_a: str | None
    answer_b: str | None
    score_a: float
    score_b: float


class Side(NamedTuple):
    """A run in a comparison. `places`, shape (n,): where in the run the compared items are."""

    label: str
    run: ComparableRun
    metric: MetricScores
    places: Integers

    def score(self, number: int) -> float:
        """Of a compared item."""
        return self.metric.of(int(self.places[number]))

    def as_json(self, value: float) -> dict[str, object]:
        run = self.run
        return {
            "label": self.label,
            "run": run.name,
            "model": run.model,
            "value": value,
            "made_by": dict(run.made_by),
        }


@dataclass(frozen=True, eq=False)
class RunComparison:
    """B against A, in one metric of one task. `found` numbers the items as the places of A and B are.

    `n_excluded` items are left out because they failed in a run that leaves out what failed.
    """

    task: str
    metric: str
    a: Side
    b: Side
    pairing: Pairing
    n_excluded: int
    found: PairedComparison

    @property
    def better(self) -> tuple[int, ...]:
        """Numbers of the items of which B's score is the better one."""
        return self.found.better if self.found.higher_is_better else self.found.worse

    @property
    def worse(self) -> tuple[int, ...]:
        return self.found.worse if self.found.higher_is_better else self.found.better

    @property
    def gain(self) -> float:
        """By how much B is better, below 0 where it is worse."""
        return self.found.difference if self.found.higher_is_better else -self.found.difference

    @property
    def is_worse(self) -> bool:
        """B is told apart from A, and is the worse one."""
        return self.found.told_apart and self.gain < 0

    def may_be_worse_by(self, margin: float) -> bool:
        """Whether B being worse by `margin` or more (in the metric's unit, points where these are) is not
        ruled out by the 95 % interval. It is if no item's score differs."""
        if not self.found.n_flipped:
            return False
        if self.found.interval is None:
            return True
        lo, hi, _ = self.found.interval
        least = lo if self.found.higher_is_better else -hi
        return least <= (-margin / 100 if self.found.in_points else -margin)

    def sentence(self) -> str:
        return self.found.sentence(self.a.label, self.b.label)

    def flips(self, most: int | None = None) -> list[Flip]:
        """The items that changed most, of equal ones the first, with their texts read."""
        a, b = self.a, self.b
        changed = sorted((*self.better, *self.worse))
        changed.sort(key=lambda number: -abs(b.score(number) - a.score(number)))
        flips = []
        for number in changed[:most]:
            place = int(a.places[number])
            asked, other = a.run.asked(place), b.run.asked(int(b.places[number]))
            scores = a.score(number), b.score(number)
            flips.append(Flip(a.run.ids[place], asked.prompt, asked.answer, other.answer, *scores))
        return flips

    def as_json(self, most_flips: int) -> dict[str, object]:
        """`flips` has the texts of at most so many items, `better` and `worse` all ids."""
        found, interval = self.found, self.found.interval
        return {
            "task": self.task,
            "metric": self.metric,
            "higher_is_better": found.higher_is_better,
            "a": self.a.as_json(found.value_a),
            "b": self.b.as_json(found.value_b),
            "n": found.n,
            "clusters": found.n_clusters,
            "difference": found.difference,
            "stderr": found.stderr,
            "ci": None if interval is None else [interval.lo, interval.hi],
            "method": None if interval is None else interval.method,
            "note": found.note,
            "test": found.test._asdict(),
            "p_adjusted": found.p_adjusted,
            "told_apart": found.told_apart,
            "smallest_visible": found.smallest_visible,
            "sentence": self.sentence(),
            "better": self._ids(self.better),
            "worse": self._ids(self.worse),
            "flips": [flip._asdict() for flip in self.flips(most_flips)],
            "left_out": {
                "only_a": self.pairing.n_only_a,
                "only_b": self.pairing.n_only_b,
                "failed": self.n_excluded,
            },
            "other_prompts": self.pairing.n_other_prompts,
        }

    def _ids(self, numbers: Sequence[int]) -> list[str]:
        return [self.a.run.ids[int(self.a.places[number])] for number in numbers]


def compare_entries(entries: Sequence[Entry], question: Question) -> list[RunComparison]:
    """All comparisons, told apart as one family (Holm), task by task.

    Raises UsageError for runs of other items or tasks, for a metric that no run or only one of two has, for
    one that has no value, and where there is nothing to compare.
    """
    pairs = list(itertools.combinations(entries, 2))
    if not question.all_pairs:
        pairs = [pair for pair in pairs if pair[0] is entries[0]]
    made = [
        comparison
        for a, b in pairs
        for task in common_tasks(a, b, allow_different=question.allow_different)
        for comparison in _of_task(a, b, task, question)
    ]
    if lacking := [name for name in question.metrics if name not in {each.metric for each in made}]:
        raise UsageError(
            f"no task has a metric {lacking[0]!r}", f"there are: {', '.join(_metric_names(entries))}"
        )
    if not made:
        raise UsageError("nothing was compared", "name two runs or more, of the same task")
    tasks = list(dict.fromkeys(each.task for each in made))
    made.sort(key=lambda each: tasks.index(each.task))
    adjusted = paired.adjust([each.found for each in made])
    return [replace(each, found=found) for each, found in zip(made, adjusted, strict=True)]


def incomparable(entries: Sequence[Entry]) -> list[str]:
    """Metrics of which a run says nothing item by item, and why: what `all_metrics` leaves out."""
    told: dict[str, None] = {}
    for entry in entries:
        for run in entry.runs.values():
            for metric in run.metrics:
                if metric.missing is not None:
                    told[f"{metric.name}: {metric.missing}"] = None
    return list(told)


def unlike_conditions(entries: Sequence[Entry]) -> list[str]:
    """What is not alike in runs of one task: `mode invariant (A, C), fast (B)`. Other programs do not say all
    that ours does."""
    told: dict[str, None] = {}
    for task in dict.fromkeys(task for entry in entries for task in entry.runs):
        having = [(entry.label, entry.runs[task]) for entry in entries if task in entry.runs]
        for name in dict.fromkeys(name for _, run in having for name in run.made_by):
            values: dict[str, list[str]] = {}
            for label, run in having:
                if run.is_foreign and name not in run.made_by:
                    continue
                values.setdefault(run.made_by.get(name, "unknown"), []).append(label)
            if len(values) > 1:
                listed = ", ".join(f"{value} ({', '.join(labels)})" for value, labels in values.items())
                told[f"{name} {listed}"] = None
    return list(told)


def _of_task(a: Entry, b: Entry, task: str, question: Question) -> Iterator[RunComparison]:
    run_a, run_b = a.runs[task], b.runs[task]
    pairing = pair_items(run_a, run_b, allow_different=question.allow_different)
    for first, second in _metrics(run_a, run_b, question):
        side_a = Side(a.label, run_a, first, np.asarray(pairing.a))
        side_b = Side(b.label, run_b, second, np.asarray(pairing.b))
        yield _comparison(task, side_a, side_b, pairing)


def _metrics(
    a: ComparableRun, b: ComparableRun, question: Question
) -> list[tuple[MetricScores, MetricScores]]:
    """Those that are asked for; of all metrics such as both runs can say something of (`incomparable`)."""
    both = {
        metric.name: (metric, other)
        for metric in a.metrics
        if (other := b.metric(metric.name)) is not None and metric.missing is None and other.missing is None
    }
    if question.all_metrics and both:
        return list(both.values())
    for run in (a, b):
        if not run.metrics:
            raise UsageError(f"{run.name} has no metric", "compare runs whose items have scores")
    names = question.metrics or (a.metrics[0].name,)
    instead = f"--metric can be {' or '.join(both)}" if both else "they have no other metric in common"
    for name in names:
        for run, other_run in ((a, b), (b, a)):
            metric = run.metric(name)
            if metric is not None and metric.missing is not None:
                raise UsageError(f"{name} of {run.name} can't be compared: {metric.missing}", instead)
            if metric is None and other_run.metric(name) is not None:
                raise UsageError(f"{run.name} has no metric {name}, which {other_run.name} has", instead)
    return [both[name] for name in names if name in both]


def _comparison(task: str, a: Side, b: Side, pairing: Pairing) -> RunComparison:
    kept = ~(np.isnan(a.metric.scores[a.places]) | np.isnan(b.metric.scores[b.places]))
    a, b = a._replace(places=a.places[kept]), b._replace(places=b.places[kept])
    if not len(a.places):
        raise UsageError(f"{a.run.name} and {b.run.name} have no item in common that did not fail")
    sizes = None
    if a.metric.sizes is not None and b.metric.sizes is not None:
        sizes = a.metric.sizes[a.places]
        if (sizes != b.metric.sizes[b.places]).any():
            raise UsageError(
                f"{a.metric.name} of {a.run.name} and {b.run.name} is taken over texts of other sizes",
                "compare runs over the same data",
            )
    scores_a, scores_b = a.metric.scores[a.places], b.metric.scores[b.places]
    named = a if a.run.clusters is not None else b
    clusters = named.run.clusters
    found = paired.compare(
        scores_a.tolist(),
        scores_b.tolist(),
        clusters=None if clusters is None else [clusters[place] for place in named.places.tolist()],
        # Means of several samples are no proportion, whatever the task says of one score.
        is_proportion=sizes is None and bool(np.isin([scores_a, scores_b], (0.0, 1.0)).all()),
        seed=SEED,
        higher_is_better=a.metric.higher_is_better,
        sizes=None if sizes is None else sizes.tolist(),
    )
    return RunComparison(task, a.metric.name, a, b, pairing, int((~kept).sum()), found)


def _metric_names(entries: Sequence[Entry]) -> list[str]:
    runs = [run for entry in entries for run in entry.runs.values()]
    return list(dict.fromkeys(metric.name for run in runs for metric in run.metrics))
