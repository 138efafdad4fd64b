"""Standard errors and 95 % intervals that have a formula."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from infer_cli.evaluation.statistics.distributions import beta_quantile, t_quantile
from infer_cli.evaluation.statistics.units import Units

LEVEL = 0.95
UPPER = (1 + LEVEL) / 2  # the quantile at the upper end
Z = NormalDist().inv_cdf(UPPER)

Method = Literal["wilson", "clopper-pearson", "bonett-price", "t", "bca", "jackknife", "mover"]


class Interval(NamedTuple):
    """The ends of a 95 % confidence interval, and how it was made."""

    lo: float
    hi: float
    method: Method

    @property
    def half_width(self) -> float:
        return (self.hi - self.lo) / 2

    def within(self, least: float, most: float) -> Interval:
        """Without what no value can be."""
        return Interval(max(self.lo, least), min(self.hi, most), self.method)


class Estimate(NamedTuple):
    """An interval; or None, and `note` says why there is none. `note` may say what to mind, too."""

    interval: Interval | None
    note: str | None


def wilson(successes: float, n: int) -> Interval:
    """Of a proportion: Wilson's score interval (1927), without continuity correction."""
    share, z2 = successes / n, Z * Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(
        0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half, "wilson"
    )


def clopper_pearson(successes: int, n: int) -> Interval:
    """Of a proportion: the exact interval of Clopper and Pearson (1934), which never holds too seldom."""
    return Interval(
        0.0 if successes == 0 else beta_quantile(1 - UPPER, successes, n - successes + 1),
        1.0 if successes == n else beta_quantile(UPPER, successes + 1, n - successes),
        "clopper-pearson",
    )


def bonett_price(n_won: int, n_lost: int, n: int) -> Interval:
    """Of the difference of two proportions of the same n items, of which `n_won` were right only the second
    time and `n_lost` only the first: Bonett and Price (2012), Wald's interval with one item more in both."""
    won, lost = (n_won + 1) / (n + 2), (n_lost + 1) / (n + 2)
    half = Z * math.sqrt((won + lost - (won - lost) ** 2) / (n + 2))
    return Interval(won - lost - half, won - lost + half, "bonett-price").within(-1.0, 1.0)


def standard_error(units: Units) -> float | None:
    """Of the mean of all items: the square root of n / (n - 1) times the sum of the units' squared residuals,
    over the number of items. None: there is one unit, or all are alike, so that nothing is known of it.

    For items it is the standard deviation (with n - 1) over the root of n; for clusters the robust standard
    error CR1 (Liang and Zeger 1986, with Stata's factor for few clusters).
    """
    if unknown_spread(units):
        return None
    squares = math.fsum(np.square(units.residuals))
    return math.sqrt(units.n / (units.n - 1) * squares) / units.n_items


def t_interval(units: Units) -> Estimate:
    """Of the mean of all items, by Student's t with n - 1 degrees of freedom for n items or clusters."""
    error = standard_error(units)
    if error is None:
        return Estimate(None, unknown_spread(units))
    half = t_quantile(UPPER, units.n - 1) * error
    return Estimate(Interval(units.mean - half, units.mean + half, "t"), None)


def unknown_spread(units: Units) -> str | None:
    """Why the units say nothing of their spread; None: they do."""
    if units.n == 1:
        return f"one {units.word} says nothing of the spread between several"
    if not units.vary:
        return f"all {units.n} {units.word} are alike, which says nothing of their spread"
    return None
