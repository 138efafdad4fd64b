"""Two runs over the same items, A and B: how far apart they are, and whether that can be chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from infer_cli.evaluation.statistics.distributions import binomial_at_most, binomial_probability, t_quantile
from infer_cli.evaluation.statistics.draws import Draws
from infer_cli.evaluation.statistics.intervals import UPPER, Interval, Z, bonett_price, standard_error
from infer_cli.evaluation.statistics.resampling import mean_interval
from infer_cli.evaluation.statistics.units import Units, units_of

SIGNIFICANT = 0.05  # a p-value below it tells two runs apart
POWER = 0.8  # with which the smallest visible difference would have been seen
N_SIGN_FLIPS = 9_999
# With fewer items, or clusters, the test cannot have a p-value below `SIGNIFICANT`, whatever the scores.
_FEWEST_FOR_MCNEMAR = 5
_FEWEST_FOR_SIGN_FLIPS = 6

TestMethod = Literal["mid-p McNemar", "exact sign flips", "sign flips"]


class PairedTest(NamedTuple):
    """`method` with the probability of a difference as large or larger, were A and B alike. `n_resamples` and
    `seed` are those of drawn sign flips, None for the methods that draw nothing."""

    method: TestMethod
    p_value: float
    n_resamples: int | None
    seed: int | None


@dataclass(frozen=True)
class PairedComparison:
    """`better` and `worse` are the numbers of the items, from 0, of which B's score is above or below A's."""

    n: int
    n_clusters: int | None
    value_a: float
    value_b: float
    difference: float  # B less A
    stderr: float | None
    interval: Interval | None  # of the difference
    note: str | None  # why there is no interval, or what to mind
    test: PairedTest
    p_adjusted: float  # for all tests of its family (`adjust`); alone, the test's own
    better: tuple[int, ...]
    worse: tuple[int, ...]
    # What would have been found 4 times out of 5. None: nothing would have, or the spread is not known.
    smallest_visible: float | None
    in_points: bool  # all scores are in 0..1
    higher_is_better: bool

    @property
    def n_flipped(self) -> int:
        return len(self.better) + len(self.worse)

    @property
    def told_apart(self) -> bool:
        return self.p_adjusted < SIGNIFICANT

    def sentence(self, a: str = "A", b: str = "B") -> str:
        """The outcome in one sentence. `a` and `b`: names of the runs."""
        items = _count(self.n, "item")
        if self.n_clusters is not None:
            items += f" in {_count(self.n_clusters, 'cluster')}"
        if not self.n_flipped:
            return f"{a} and {b} have the same score on each of {items}."
        chance = f"p = {self.p_adjusted:.3g}" if self.p_adjusted >= 0.001 else "p < 0.001"
        if not self.told_apart:
            margin = f": ±{self._amount(self.interval.half_width)}" if self.interval else ""
            return f"{a} and {b} cannot be told apart on {items}{margin} ({chance})."
        name = b if (self.difference > 0) == self.higher_is_better else a
        if self.interval:
            ends = sorted(math.copysign(1, self.difference) * end for end in self.interval[:2])
            chance = f"95 % interval {self._number(ends[0])} to {self._number(ends[1])}, {chance}"
        return f"{name} is better by {self._amount(abs(self.difference))} on {items} ({chance})."

    def _amount(self, value: float) -> str:
        return self._number(value) + (" points" if self.in_points else "")

    def _number(self, value: float) -> str:
        # Zero is added so that what is rounded to it has no sign.
        return f"{round(value * 100, 1) + 0.0:.1f}" if self.in_points else f"{value:.3g}"


def compare(
    a: Sequence[float],
    b: Sequence[float],
    *,
    clusters: Sequence[str] | None,
    is_proportion: bool,
    seed: int,
    higher_is_better: bool = True,
    sizes: Sequence[float] | None = None,
) -> PairedComparison:
    """Compare the scores of A and B, item by item in the same order.

    `clusters`: a name for each item; items of one name are not independent. `is_proportion`: each score is 0
    or 1. `seed`, 0 or more: that of what is drawn. `sizes`, of the items' texts, the same in both runs: the
    metric is the scores' sum over theirs. Raises ValueError: the scores are not as many, there is none, one
    is not finite, or one of a proportion is neither 0 nor 1.
    """
    if len(a) != len(b):
        raise ValueError(f"A has {len(a)} scores and B has {len(b)}: only the same items can be compared")
    if is_proportion and sizes is not None:
        raise ValueError("a proportion is not taken over sizes")
    first, second = units_of(a, clusters, sizes), units_of(b, clusters, sizes)
    values = np.concatenate([np.asarray(a, np.float64), np.asarray(b, np.float64)])
    if is_proportion and not np.isin(values, (0.0, 1.0)).all():
        raise ValueError("a score of a proportion is neither 0 nor 1")
    change = values[len(a) :] - values[: len(a)]
    units = units_of(change.tolist(), clusters, sizes)
    better, worse = (np.flatnonzero(change > 0).tolist(), np.flatnonzero(change < 0).tolist())
    counts = (len(better), len(worse))
    if units.are_items and is_proportion:
        test, fewest = PairedTest("mid-p McNemar", mid_p_mcnemar(*counts), None, None), _FEWEST_FOR_MCNEMAR
    else:
        test, fewest = sign_flip_test(units, seed), _FEWEST_FOR_SIGN_FLIPS
    # Clusters without a changed item say as much as one item each.
    interval: Interval | None
    visible: float | None
    if is_proportion and (units.are_items or not sum(counts)):
        interval, note = bonett_price(*counts, units.n), None
        visible = _visible_by_flips(sum(counts) / units.n, units.n)
    else:
        interval, note = mean_interval(units, seed)
        if interval and is_proportion:
            interval = interval.within(-1.0, 1.0)
        visible = _visible_by_spread(units)
    if units.n < fewest:
        visible = None
        note = f"{units.n} {units.word} are too few for the test: fewer than {fewest} give no p below 0.05"
    return PairedComparison(
        n=len(a),
        n_clusters=None if clusters is None else units.n,
        value_a=first.mean,
        value_b=second.mean,
        difference=units.mean,
        stderr=standard_error(units),
        interval=interval,
        note=note,
        test=test,
        p_adjusted=test.p_value,
        better=tuple(better),
        worse=tuple(worse),
        smallest_visible=visible,
        in_points=sizes is None and bool(values.min() >= 0 and values.max() <= 1),
        higher_is_better=higher_is_better,
    )


def mid_p_mcnemar(n_better: int, n_worse: int) -> float:
    """The two-sided mid-p-value of McNemar's test (Fagerland, Lydersen and Laake 2013): of the items that
    changed, each was as likely to change one way as the other."""
    n = n_better + n_worse
    if n_better == n_worse:
        return 1.0
    fewer = min(n_better, n_worse)
    return 2 * binomial_at_most(fewer, n, 0.5) - binomial_probability(fewer, n, 0.5)


def sign_flip_test(units: Units, seed: int, n_resamples: int = N_SIGN_FLIPS) -> PairedTest:
    """The two-sided permutation test of a mean difference of 0: A and B change places in each unit, all of a
    cluster's items together.

    The p-value is the share of patterns with a sum as far from 0 or further: of all patterns, if these are at
    most `n_resamples`; else of so many drawn ones and the observed one (Phipson and Smyth 2010).
    """
    sums = units.sums[units.sums != 0]
    # A pattern that gives the same sum in another order counts as one as far from 0.
    least = abs(math.fsum(sums)) - 1e-12 * float(np.abs(sums).sum())
    if 2 ** len(sums) <= n_resamples:
        patterns = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return PairedTest(
            "exact sign flips", float((np.abs((2 * patterns - 1) @ sums) >= least).mean()), None, None
        )
    # Not `signs @ sums`: BLAS has several threads for it, which takes ten times as long.
    n_far = sum(
        int((np.abs(np.einsum("ij,j->i", signs, sums)) >= least).sum())
        for signs in Draws(seed).signs(len(sums), n_resamples)
    )
    return PairedTest("sign flips", (1 + n_far) / (1 + n_resamples), n_resamples, seed)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that among all of them a false one is as rare as in one test (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def adjust(comparisons: Sequence[PairedComparison]) -> list[PairedComparison]:
    """The same comparisons, told apart as a family."""
    adjusted = holm([comparison.test.p_value for comparison in comparisons])
    return [replace(c, p_adjusted=p) for c, p in zip(comparisons, adjusted, strict=True)]


def _visible_by_spread(units: Units) -> float | None:
    """The difference that a t test of these units would find with probability `POWER`."""
    error = standard_error(units)
    if error is None:
        return None
    return (t_quantile(UPPER, units.n - 1) + t_quantile(POWER, units.n - 1)) * error


def _visible_by_flips(discordance: float, n: int) -> float:
    """The difference of two proportions that McNemar's test of n items would find with probability `POWER`,
    if that share of them changes (Connor 1987, solved for the difference); or more, if it must: a difference
    cannot be larger than the share that changes."""
    power_z = NormalDist().inv_cdf(POWER)
    under_root = n + power_z**2 - Z**2
    if under_root > 0:
        found = (
            math.sqrt(discordance) * (Z * math.sqrt(n) + power_z * math.sqrt(under_root)) / (n + power_z**2)
        )
        if 0 < found <= discordance:
            return found
    # All that changes does so in one direction: n d = (Z + power_z √(1 - d))², by halving.
    lo, hi = 0.0, 1.0
    while lo < (middle := (lo + hi) / 2) < hi:
        if n * middle < (Z + power_z * math.sqrt(1 - middle)) ** 2:
            lo = middle
        else:
            hi = middle
    return hi


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
