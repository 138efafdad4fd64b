"""From samples to the metrics of a run. Of each item a few numbers are kept."""

from __future__ import annotations

import json
import math
import statistics
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from infer_cli.evaluation.runs.results import RATES, Estimated, MetricResult
from infer_cli.evaluation.runs.sample import Sample
from infer_cli.evaluation.scorers.scorer import ScorerFailed
from infer_cli.evaluation.statistics.aggregate import (
    GroupedSummary,
    MetricSummary,
    ProportionMethod,
    SeedSpread,
    across_seeds,
    by_group,
    majority_vote,
    pass_at_k,
    summarize,
)
from infer_cli.evaluation.tasks.item import Metric

if TYPE_CHECKING:
    from infer_cli.evaluation.runs.facts import Scoring
    from infer_cli.evaluation.runs.grading import Corpus

_NEVER = 0.95  # from this share of answers in which nothing was found, the extraction is to be doubted
_MOST_REASON = 300  # characters
_FAILED = {"error": "are errors", "scorer_failed": "could not be scored"}
NO_GROUP = "(none)"
_MOST_IN_CORPUS = 1000  # items whose resamples take seconds, where a function reads them all


class SamplesSummary(NamedTuple):
    """`n_items` items have `n_samples` samples. `warnings` are what a reader of the scores must know."""

    n_items: int
    n_samples: int
    rates: Mapping[str, float]
    scores: tuple[MetricResult, ...]
    tokens: Mapping[str, int]
    warnings: tuple[str, ...]


def summarize_samples(
    items: Iterable[Sequence[Sample]], metrics: Sequence[Metric], scoring: Scoring
) -> SamplesSummary:
    """`items`: the samples of each item, of all its seeds."""
    totals = Totals(metrics, scoring)
    for samples in items:
        totals.add(samples)
    return totals.summary()


class Totals:
    """Takes the samples of one item after the other. `corpus` has the functions of metrics of that kind."""

    def __init__(
        self, metrics: Sequence[Metric], scoring: Scoring, corpus: Mapping[str, Corpus] | None = None
    ) -> None:
        self._scoring = scoring
        self._columns = [_column(metric, scoring, corpus) for metric in metrics]
        self._outcomes: dict[str, int] = {}
        self._n_items = self._n_samples = self._n_prompt = self._n_completion = 0
        self._failed: dict[str, str] = {}  # by outcome, which answer was the first, and why

    def add(self, samples: Sequence[Sample]) -> None:
        """All of one item: at least one."""
        self._n_items += 1
        for sample in samples:
            self._n_samples += 1
            self._outcomes[sample.outcome] = self._outcomes.get(sample.outcome, 0) + 1
            if sample.outcome in _FAILED and sample.outcome not in self._failed:
                self._failed[sample.outcome] = f"{sample.item}: {_why_failed(sample)}"
            self._n_prompt += sample.n_prompt_tokens
            self._n_completion += sample.n_tokens
        for column in self._columns:
            column.add(samples)

    def summary(self) -> SamplesSummary:
        rates = {name: self._outcomes.get(name, 0) / max(self._n_samples, 1) for name in RATES}
        return SamplesSummary(
            self._n_items,
            self._n_samples,
            rates,
            tuple(column.result() for column in self._columns),
            {"prompt": self._n_prompt, "completion": self._n_completion},
            tuple(self._warnings(rates)),
        )

    def _warnings(self, rates: Mapping[str, float]) -> Iterable[str]:
        if rates["not_extracted"] >= _NEVER and self._n_samples > 1:
            yield (
                f"the task's extraction found nothing in {rates['not_extracted']:.0%} of the answers: does it"
                " fit what this model writes?"
            )
        elif rates["cut"] >= 0.5:
            yield f"{rates['cut']:.0%} of the answers were cut by the limit of tokens, and count as wrong"
        for outcome, said in _FAILED.items():
            if outcome in self._failed:
                first = f"{self._failed[outcome]:.{_MOST_REASON}}"
                yield f"{rates[outcome]:.1%} of the answers {said}; the first is {first}"


class _Names:
    """Names of items' groups or clusters; there are none if no item has one."""

    def __init__(self) -> None:
        self._names: list[str | None] = []
        self._any = False

    def add(self, name: str | None) -> None:
        self._names.append(name)
        self._any = self._any or name is not None

    def groups(self) -> list[str] | None:
        return [NO_GROUP if name is None else name for name in self._names] if self._any else None

    def clusters(self) -> list[str] | None:
        """An item without a cluster is one by itself."""
        if not self._any:
            return None
        return [f"\0{i}" if name is None else name for i, name in enumerate(self._names)]


class _Asked(TypedDict):
    """What all summaries of a metric are asked alike."""

    clusters: Sequence[str] | None
    is_proportion: bool
    seed: int
    proportion_method: ProportionMethod


class _MeanColumn:
    """A metric that is a mean over items."""

    def __init__(self, metric: Metric, scoring: Scoring) -> None:
        self._metric, self._scoring = metric, scoring
        self._runs: list[array[float]] = []  # of each seed, a number for each item
        self._groups, self._clusters = _Names(), _Names()
        self._n_samples = 1  # the most of an item and seed
        self._n_unknown = 0

    def add(self, samples: Sequence[Sample]) -> None:
        values: list[float] = []
        for run in _by_seed(samples):
            counted = [s for s in run if s.outcome == "ok"] if self._scoring.exclude_errors else run
            if not counted or len(counted) < self._metric.k <= len(run):  # too few are left for pass@k
                return
            value = self._value(counted)
            if value is None:
                self._n_unknown += 1
                return
            self._n_samples = max(self._n_samples, len(run))
            values.append(value)
        if not self._runs:
            self._runs = [array("d") for _ in values]
        for column, value in zip(self._runs, values, strict=True):
            column.append(value)
        self._groups.add(samples[0].group)
        self._clusters.add(samples[0].cluster)

    def result(self) -> MetricResult:
        metric = self._metric
        if self._n_unknown:
            lost = _lost(self._n_unknown, self._n_unknown + self._n)
            return MetricResult(metric.name, lost, metric.higher_is_better)
        if not self._n:
            return MetricResult(metric.name, _nothing(), metric.higher_is_better)
        if len(self._runs) == 1:
            (scores,) = self._runs
            groups = self._by_group(scores)
            mean = summarize(scores, **self._asked) if groups is None else groups.micro
            return self._result(mean, groups, None)
        spread = across_seeds(self._runs, **self._asked)
        means = [statistics.fmean(item) for item in zip(*self._runs, strict=True)]
        return self._result(spread.mean, self._by_group(means), spread)

    @property
    def _asked(self) -> _Asked:
        has_one = self._n_samples == 1 or self._metric.aggregation == "majority"
        return {
            "clusters": self._clusters.clusters(),
            "is_proportion": self._metric.is_proportion and has_one,
            "seed": self._scoring.bootstrap_seed,
            "proportion_method": self._scoring.interval,
        }

    def _by_group(self, scores: Sequence[float]) -> GroupedSummary | None:
        groups, asked = self._groups.groups(), self._asked
        if len(self._runs) > 1:
            asked["is_proportion"] = False
        return None if groups is None else by_group(scores, groups, **asked)

    def _result(
        self, mean: MetricSummary, found: GroupedSummary | None, spread: SeedSpread | None
    ) -> MetricResult:
        return MetricResult(
            self._metric.name,
            self._estimated(mean),
            self._metric.higher_is_better,
            None if found is None else {name: self._estimated(group) for name, group in found.groups.items()},
            None if found is None else self._estimated(found.macro),
            None if spread is None else spread.values,
            None if spread is None else spread.between_seeds,
        )

    def _estimated(self, summary: MetricSummary) -> Estimated:
        """Means of scores that are 0 or 1 lie between these, and so do the ends of their interval."""
        interval = summary.interval
        if interval is not None and (self._metric.is_proportion or self._metric.aggregation == "pass@k"):
            interval = interval.within(0.0, 1.0)
        return Estimated(
            summary.value,
            summary.stderr,
            None if interval is None else (interval.lo, interval.hi),
            summary.method,
            summary.n,
            summary.n_clusters,
            summary.note,
        )

    @property
    def _n(self) -> int:
        return len(self._runs[0]) if self._runs else 0

    def _value(self, samples: Sequence[Sample]) -> float | None:
        """Of the samples of an item and seed. None: it can't be said."""
        metric = self._metric
        scores = [sample.scores.get(metric.score, metric.worst) for sample in samples]
        known = [score for score in scores if score is not None]
        if len(known) < len(scores):
            return None
        if metric.aggregation == "pass@k":
            n_correct = sum(score == 1 for score in known)
            return pass_at_k(len(known), n_correct, min(metric.k, len(known)))
        if metric.aggregation == "majority":
            answers = [sample.extracted if sample.outcome == "ok" else None for sample in samples]
            vote = majority_vote(answers)
            return metric.worst if vote is None else known[answers.index(vote)]
        return known[0] if len(known) == 1 else statistics.fmean(known)


class _RatioColumn:
    """A metric that is a sum over a sum."""

    def __init__(self, metric: Metric, scoring: Scoring) -> None:
        self._metric, self._scoring = metric, scoring
        self._sums, self._sizes = array("d"), array("d")
        self._groups, self._clusters = _Names(), _Names()
        self._n_unknown = 0

    def add(self, samples: Sequence[Sample]) -> None:
        metric = self._metric
        counted = [s for s in samples if s.outcome == "ok" or not self._scoring.exclude_errors]
        if not counted:
            return
        if any(metric.score not in s.scores or metric.size not in s.sizes for s in counted):
            self._n_unknown += 1
            return
        self._sums.append(math.fsum(s.scores[metric.score] for s in counted))
        self._sizes.append(math.fsum(s.sizes[metric.size] for s in counted))
        self._groups.add(samples[0].group)
        self._clusters.add(samples[0].cluster)

    def result(self) -> MetricResult:
        metric, n = self._metric, len(self._sums)
        if self._n_unknown:
            lost = _lost(self._n_unknown, self._n_unknown + n)
            return MetricResult(metric.name, lost, metric.higher_is_better)
        if not math.fsum(self._sizes):
            nothing = _nothing(n, f"the items have no {metric.size}") if n else _nothing()
            return MetricResult(metric.name, nothing, metric.higher_is_better)
        clusters, groups = self._clusters.clusters(), self._groups.groups()
        return MetricResult(
            metric.name,
            self._estimated(range(n), clusters),
            metric.higher_is_better,
            None
            if groups is None
            else {
                name: self._estimated([i for i in range(n) if groups[i] == name], clusters)
                for name in dict.fromkeys(groups)
            },
        )

    def _estimated(self, items: Sequence[int], clusters: Sequence[str] | None) -> Estimated:
        """The ratio's interval is that of a mean of units of many parts: `Units` with the sizes as counts."""
        import numpy as np

        from infer_cli.evaluation.statistics.intervals import standard_error
        from infer_cli.evaluation.statistics.resampling import mean_interval
        from infer_cli.evaluation.statistics.units import Units, cluster_index

        names = None if clusters is None else [clusters[i] for i in items]
        index = np.arange(len(items)) if names is None else cluster_index(names, len(items))
        sums = np.bincount(index, weights=[self._sums[i] for i in items])
        sizes = np.bincount(index, weights=[self._sizes[i] for i in items])
        units = Units(sums.astype(np.float64), sizes.astype(np.float64))
        interval, note = mean_interval(units, self._scoring.bootstrap_seed)
        error = standard_error(units)
        value = units.mean
        ci = None if interval is None else (interval.lo, interval.hi)
        if self._metric.is_exponential:
            value = 2**value
            ci = None if ci is None else (2 ** ci[0], 2 ** ci[1])
            error = None if error is None else error * value * math.log(2)  # the delta method
        if note is not None and clusters is None:
            note = note.replace("cluster", "item")
        return Estimated(
            value,
            error,
            ci,
            None if interval is None else interval.method,
            len(items),
            None if clusters is None else units.n,
            note,
        )


def _why_failed(sample: Sample) -> str:
    if sample.error is not None:
        return str(sample.error.get("message"))
    return "; ".join(sample.explanations.values())


class _CorpusColumn:
    """A metric that a function makes of all items at once."""

    def __init__(self, metric: Metric, scoring: Scoring, function: Corpus) -> None:
        self._metric, self._scoring, self._function = metric, scoring, function
        self._values: list[object] = []
        self._n_unknown = 0

    def add(self, samples: Sequence[Sample]) -> None:
        name = self._metric.score
        for sample in samples:
            if sample.outcome != "ok":
                self._n_unknown += not self._scoring.exclude_errors
            elif name in sample.explanations:
                self._values.append(json.loads(sample.explanations[name]))
            else:
                self._values.append(sample.scores[name])

    def result(self) -> MetricResult:
        metric, n = self._metric, len(self._values)
        if self._n_unknown:
            lost = _lost(self._n_unknown, self._n_unknown + n)
            return MetricResult(metric.name, lost, metric.higher_is_better)
        if not n:
            return MetricResult(metric.name, _nothing(), metric.higher_is_better)
        try:
            found = self._estimated(self._function(self._values))
        except ScorerFailed as e:
            found = Estimated(None, None, None, None, n, None, str(e))
        return MetricResult(metric.name, found, metric.higher_is_better)

    def _estimated(self, value: float) -> Estimated:
        n = len(self._values)
        if n > _MOST_IN_CORPUS:
            why = f"{n} items are too many for the interval of such a metric"
            return Estimated(value, None, None, None, n, None, why)
        from infer_cli.evaluation.statistics.resampling import bootstrap_interval

        seed = self._scoring.bootstrap_seed
        try:
            interval, note = bootstrap_interval(
                lambda drawn: self._function([self._values[i] for i in drawn]), n, None, seed
            )
        except ScorerFailed as e:
            return Estimated(value, None, None, None, n, None, f"without an interval: of a resample, {e}")
        ci, method = (None, None) if interval is None else ((interval.lo, interval.hi), interval.method)
        return Estimated(value, None, ci, method, n, None, note)


_Column = _MeanColumn | _RatioColumn | _CorpusColumn


def _column(metric: Metric, scoring: Scoring, corpus: Mapping[str, Corpus] | None) -> _Column:
    if metric.aggregation == "corpus":
        return _CorpusColumn(metric, scoring, (corpus or {})[metric.name])
    return (_RatioColumn if metric.aggregation == "ratio" else _MeanColumn)(metric, scoring)


def _by_seed(samples: Sequence[Sample]) -> Sequence[Sequence[Sample]]:
    """In the order in which the seeds first come."""
    if len(samples) == 1:
        return (samples,)
    runs: dict[int | None, list[Sample]] = {}
    for sample in samples:
        runs.setdefault(sample.seed, []).append(sample)
    return list(runs.values())


def _lost(n_unknown: int, n: int) -> Estimated:
    what = "item has" if n_unknown == 1 else "items have"
    note = f"{n_unknown} of {n} {what} no value; --exclude-errors leaves out what failed"
    return Estimated(None, None, None, None, n, None, note)


def _nothing(n: int = 0, note: str = "no item is left to be scored") -> Estimated:
    return Estimated(None, None, None, None, n, None, note)
