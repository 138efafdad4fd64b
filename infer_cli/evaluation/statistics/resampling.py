"""95 % bootstrap intervals, over items or over clusters of items.

The interval is BCa (Efron 1987) with Student's t of n - 1 degrees of freedom in place of the normal quantile:
the plain percentiles are too narrow for a hundred items or fewer (Hesterberg 2015, section 3.3). `python -m
benchmarks.statistics` measures how often it holds. Below `FEWEST_ITEMS` or `FEWEST_CLUSTERS` no bootstrap
holds as often as it says, and the interval is Student's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from infer_cli.evaluation.statistics.distributions import t_quantile
from infer_cli.evaluation.statistics.draws import Draws
from infer_cli.evaluation.statistics.intervals import UPPER, Estimate, Interval, t_interval, unknown_spread
from infer_cli.evaluation.statistics.units import Units, cluster_index

if TYPE_CHECKING:
    from infer_cli.evaluation.statistics.units import Doubles, Integers

N_RESAMPLES = 9_999
# Of more units: their interval is narrow, so that the ends need no more draws, which would take minutes.
N_RESAMPLES_OF_MANY = 1_999
_MANY = 20_000
FEWEST_ITEMS = 50
FEWEST_CLUSTERS = 30


def n_resamples_of(n_units: int) -> int:
    """How many resamples an interval of so many items or clusters is made of."""
    return N_RESAMPLES if n_units <= _MANY else N_RESAMPLES_OF_MANY


def mean_interval(units: Units, seed: int, n_resamples: int | None = None) -> Estimate:
    """Of the mean of all items. `seed`, 0 or more, is that of the resamples; `n_resamples_of` if their number
    is not given."""
    if unknown_spread(units):
        return t_interval(units)
    if note := _too_few(units.n, units.are_items or units.are_texts):
        return Estimate(t_interval(units).interval, note)
    means = [
        units.sums.take(drawn).sum(axis=1)
        / (units.n if units.are_items else units.sizes.take(drawn).sum(axis=1))
        for drawn in Draws(seed).resamples(units.n, n_resamples or n_resamples_of(units.n))
    ]
    without = (units.sums.sum() - units.sums) / (units.n_items - units.sizes)
    return Estimate(_bca(np.concatenate(means), units.mean, without), None)


def bootstrap_interval(
    statistic: Callable[[Integers], float], n_items: int, clusters: Sequence[str] | None, seed: int
) -> Estimate:
    """Of any statistic. It is given the numbers of items, 0..n_items-1, in a resample: of any length if there
    are clusters, and an item can be in it several times. `clusters`: a name for each item.

    For few items or clusters: Student's t with the standard error of the jackknife.
    """
    index = np.arange(n_items) if clusters is None else cluster_index(clusters, n_items)
    n = int(index.max()) + 1
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])

    def of(chosen: Integers) -> float:
        return statistic(np.concatenate([members[i] for i in chosen]))

    everything = np.arange(n)
    value = of(everything)
    word = "item" if n == n_items else "cluster"
    if n == 1:
        return Estimate(None, f"one {word} says nothing of the spread between several")
    without = np.array([of(np.delete(everything, i)) for i in range(n)])
    if not np.ptp(without) > 1e-12 * np.abs(without).max():
        return Estimate(None, f"no {word} changes the value, which says nothing of its spread")
    if note := _too_few(n, n == n_items):
        error = math.sqrt((n - 1) / n * math.fsum(np.square(without - without.mean())))
        half = t_quantile(UPPER, n - 1) * error
        return Estimate(Interval(value - half, value + half, "jackknife"), note)
    values = [of(row) for drawn in Draws(seed).resamples(n, n_resamples_of(n)) for row in drawn]
    return Estimate(_bca(np.array(values), value, without), None)


def _too_few(n: int, are_items: bool) -> str | None:
    fewest, word = (FEWEST_ITEMS, "items") if are_items else (FEWEST_CLUSTERS, "clusters")
    return f"{n} {word} are few: fewer than {fewest} say little of their spread" if n < fewest else None


def _bca(replicates: Doubles, value: float, without: Doubles) -> Interval:
    """`replicates`: the statistic of each resample. `without`: of all units but one, for each of them."""
    normal = NormalDist()
    ordered = np.sort(replicates)
    n_below = np.searchsorted(ordered, value, "left") / 2 + np.searchsorted(ordered, value, "right") / 2
    bias = normal.inv_cdf(min(max(float(n_below), 1.0), len(ordered) - 1.0) / len(ordered))
    off = without.mean() - without
    # At most 1/6 in size, so that no divisor below is zero.
    acceleration = float((off**3).sum() / (6 * (off**2).sum() ** 1.5))

    def end(z: float) -> float:
        at = normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        return float(ordered[min(max(math.floor((len(ordered) + 1) * at), 1), len(ordered)) - 1])

    z = t_quantile(UPPER, len(without) - 1)
    return Interval(end(-z), end(z), "bca")
