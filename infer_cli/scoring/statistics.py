"""Running sums over scored tokens, and what follows from them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_MOST_EXPONENT = math.log(1.7e308)  # beyond it a float is infinite


class Estimate(NamedTuple):
    """A mean and its standard error, which is 0 for fewer than two values."""

    value: float
    error: float


class Sums:
    """Number, sum and sum of squares of values."""

    def __init__(self) -> None:
        self.n = 0
        self.total = 0.0
        self._squares = 0.0

    def add(self, values: Iterable[float]) -> None:
        for value in values:
            self.n += 1
            self.total += value
            self._squares += value * value

    @property
    def mean(self) -> Estimate:
        """The error as llama-perplexity takes it: the deviation over the root of one less than their number.
        Raises ZeroDivisionError where there is no value."""
        mean = self.total / self.n
        if self.n < 2 or not math.isfinite(self._squares):
            return Estimate(mean, 0.0 if self.n < 2 else math.inf)
        variance = max(0.0, self._squares / self.n - mean * mean)
        return Estimate(mean, math.sqrt(variance / (self.n - 1)))


def exponential(estimate: Estimate) -> Estimate:
    """Of a mean of logarithms."""
    value = math.exp(estimate.value) if estimate.value < _MOST_EXPONENT else math.inf
    return Estimate(value, value * estimate.error if estimate.error else 0.0)


def share(n: int, of: int) -> Estimate:
    """What part of independent cases came out so."""
    part = n / of
    return Estimate(part, math.sqrt(part * (1 - part) / (of - 1)) if of > 1 else 0.0)


def percentile(ordered: Sequence[float], part: float) -> float:
    """Between the two nearest of some ordered values, as llama-perplexity takes it."""
    place = part * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    if ordered[below] == ordered[above]:
        return ordered[below]
    return (1 - (place - below)) * ordered[below] + (place - below) * ordered[above]
