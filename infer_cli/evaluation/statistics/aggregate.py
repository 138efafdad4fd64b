"""From scored items to a metric: its value, and how far it can be trusted."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from infer_cli.evaluation.statistics.intervals import (
    Estimate,
    Interval,
    Method,
    clopper_pearson,
    standard_error,
    unknown_spread,
    wilson,
)
from infer_cli.evaluation.statistics.resampling import mean_interval
from infer_cli.evaluation.statistics.units import Units, units_of

ProportionMethod = Literal["wilson", "clopper-pearson"]


class MetricSummary(NamedTuple):
    """The mean of the scores of `n` items. `stderr` and `interval` are None where nothing is known of the
    spread; `note` says why, or what to mind."""

    value: float
    stderr: float | None
    interval: Interval | None
    method: Method | None  # the interval's
    n: int
    n_clusters: int | None  # None: none were named
    note: str | None


class GroupedSummary(NamedTuple):
    """A metric of each group, and two averages: `macro` counts each group alike, `micro` each item."""

    groups: Mapping[str, MetricSummary]
    macro: MetricSummary
    micro: MetricSummary


class SeedSpread(NamedTuple):
    """A metric of the same items with several seeds. `mean` is of the items' means over all seeds: its
    standard error and interval are of the items. `between_seeds` is the standard deviation of `values`: how
    far another seed moves the metric; None for one seed."""

    mean: MetricSummary
    values: tuple[float, ...]  # of each seed
    between_seeds: float | None


def summarize(
    scores: Sequence[float],
    *,
    clusters: Sequence[str] | None,
    is_proportion: bool,
    seed: int,
    proportion_method: ProportionMethod = "wilson",
) -> MetricSummary:
    """The mean of scores, one for each item.

    `clusters`: a name for each item; items of one name are not independent (questions about one text, samples
    of one prompt). `is_proportion`: each score is 0 or 1. `seed`, 0 or more: that of the bootstrap.
    Raises ValueError: there is no score, one is not finite, or one of a proportion is neither 0 nor 1.
    """
    units = units_of(scores, clusters)
    if is_proportion and not np.isin(np.asarray(scores, np.float64), (0.0, 1.0)).all():
        raise ValueError("a score of a proportion is neither 0 nor 1")
    interval, note = _estimate(units, is_proportion, seed, proportion_method)
    return MetricSummary(
        value=units.mean,
        stderr=standard_error(units),
        interval=interval,
        method=interval.method if interval else None,
        n=units.n_items,
        n_clusters=None if clusters is None else units.n,
        note=note,
    )


def by_group(
    scores: Sequence[float],
    groups: Sequence[str],
    *,
    clusters: Sequence[str] | None,
    is_proportion: bool,
    seed: int,
    proportion_method: ProportionMethod = "wilson",
) -> GroupedSummary:
    """`summarize` for the items of each name in `groups`, one for each item, and averages over all.

    The interval of `macro` is made of those of the groups (MOVER, Zou and Donner 2008).
    Raises ValueError as `summarize`, and if there is not one group for each item.
    """
    if len(groups) != len(scores):
        raise ValueError(f"there are {len(groups)} names of groups for {len(scores)} scores")

    def of(items: Sequence[int]) -> MetricSummary:
        return summarize(
            [scores[i] for i in items],
            clusters=None if clusters is None else [clusters[i] for i in items],
            is_proportion=is_proportion,
            seed=seed,
            proportion_method=proportion_method,
        )

    micro = of(range(len(scores)))
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    found = {group: of(items) for group, items in members.items()}
    return GroupedSummary(found, _macro(found, micro), micro)


def across_seeds(
    runs: Sequence[Sequence[float]],
    *,
    clusters: Sequence[str] | None,
    is_proportion: bool,
    seed: int,
    proportion_method: ProportionMethod = "wilson",
) -> SeedSpread:
    """`runs`: for each seed the scores of the same items, in the same order. `seed` is the bootstrap's.

    Raises ValueError as `summarize`, and if there is no run or they are not of as many items.
    """
    if not runs or len({len(run) for run in runs}) > 1:
        raise ValueError(f"runs of the same items are needed, not of {[len(run) for run in runs]}")
    values = tuple(statistics.fmean(run) for run in runs)
    means = runs[0] if len(runs) == 1 else [statistics.fmean(item) for item in zip(*runs, strict=True)]
    mean = summarize(
        means,
        clusters=clusters,
        is_proportion=is_proportion and len(runs) == 1,
        seed=seed,
        proportion_method=proportion_method,
    )
    return SeedSpread(mean, values, statistics.stdev(values) if len(values) > 1 else None)


def pass_at_k(n: int, n_correct: int, k: int) -> float:
    """The probability that one of k samples of an item is correct, from n samples of which `n_correct` are:
    1 - C(n - c, k) / C(n, k), which is right on average (Chen et al. 2021, "Evaluating Large Language Models
    Trained on Code"). Raises ValueError for k outside 1..n, or n_correct outside 0..n."""
    if not 1 <= k <= n or not 0 <= n_correct <= n:
        raise ValueError(f"pass@{k} of {n} samples with {n_correct} correct is not defined")
    return 1 - math.comb(n - n_correct, k) / math.comb(n, k)


def majority_vote(answers: Sequence[str | None]) -> str | None:
    """The answer that most samples of an item gave; of several, the one given first. None is no answer and
    has no vote; it is the result if there is nothing else."""
    votes = Counter(answer for answer in answers if answer is not None)
    return max(votes, key=votes.__getitem__, default=None)


def _estimate(units: Units, is_proportion: bool, seed: int, method: ProportionMethod) -> Estimate:
    unknown = unknown_spread(units)
    if is_proportion and (unknown or units.are_items):
        # Clusters that are all alike say as much as one item each.
        if method == "clopper-pearson" and units.are_items:
            return Estimate(clopper_pearson(round(units.sums.sum()), units.n), unknown)
        return Estimate(wilson(units.mean * units.n, units.n), unknown)
    interval, note = mean_interval(units, seed)
    return Estimate(interval.within(0.0, 1.0) if interval and is_proportion else interval, note)


def _macro(groups: Mapping[str, MetricSummary], micro: MetricSummary) -> MetricSummary:
    found = list(groups.values())
    value = statistics.fmean(group.value for group in found)
    errors = [group.stderr for group in found if group.stderr is not None]
    known = [(group, group.interval) for group in found if group.interval is not None]
    shared = micro.n_clusters is not None and sum(group.n_clusters or 0 for group in found) > micro.n_clusters
    interval = stderr = None
    note = None
    if shared:
        note = "clusters reach over several groups, which are then not independent"
    else:
        if len(errors) == len(found):
            stderr = math.sqrt(math.fsum(error**2 for error in errors)) / len(found)
        if len(known) == len(found):
            below = math.fsum((group.value - ends.lo) ** 2 for group, ends in known)
            above = math.fsum((group.value - ends.hi) ** 2 for group, ends in known)
            interval = Interval(
                value - math.sqrt(below) / len(found), value + math.sqrt(above) / len(found), "mover"
            )
        if interval is None or stderr is None:
            note = "not every group says something of its spread"
    return MetricSummary(
        value, stderr, interval, "mover" if interval else None, micro.n, micro.n_clusters, note
    )
