"""Differences as dots with their intervals, grouped by what can share an axis. Draws nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from infer_cli.evaluation.comparing.comparisons import RunComparison

_ROOM = 0.04  # of the axis, at each end


class Dot(NamedTuple):
    """A difference, B less A, and its 95 % interval where there is one; in points of scores in 0..1."""

    label: str
    value: float
    interval: tuple[float, float] | None
    told_apart: bool


class DotGroup(NamedTuple):
    """Dots of one unit, and which side of 0 is the better one."""

    unit: str
    higher_is_better: bool
    dots: tuple[Dot, ...]

    @property
    def title(self) -> str:
        side = "right" if self.higher_is_better else "left"
        return f"difference in {self.unit}, 95 % intervals; to the {side} is better"

    @property
    def range(self) -> tuple[float, float]:
        """Of an axis with all dots, their intervals and 0, and some room beside them."""
        ends = [0.0, *(end for dot in self.dots for end in (dot.value, *(dot.interval or ())))]
        room = _ROOM * (max(ends) - min(ends)) or 1.0
        return min(ends) - room, max(ends) + room

    def ticks(self, most: int) -> list[float]:
        """At most so many (1 or more) round numbers in the range, evenly spaced; 0 is one of them."""
        lo, hi = self.range
        power = 10.0 ** math.floor(math.log10((hi - lo) / most))
        numbers = range(0)
        step = power
        for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
            numbers = range(math.ceil(lo / step), math.floor(hi / step) + 1)
            if len(numbers) <= most:
                break
        return [number * step for number in numbers]


def dot_groups(comparisons: Sequence[RunComparison]) -> list[DotGroup]:
    """All comparisons, in their order. A label says what is not the same in all of its group."""
    groups: dict[tuple[str, bool], list[RunComparison]] = {}
    for each in comparisons:
        unit = "points" if each.found.in_points else each.metric
        groups.setdefault((unit, each.found.higher_is_better), []).append(each)
    return [DotGroup(*key, tuple(map(_dot, members, _labels(members)))) for key, members in groups.items()]


def _labels(members: Sequence[RunComparison]) -> list[str]:
    parts = [(each.task, each.metric, f"{each.b.label} - {each.a.label}") for each in members]
    varies = [len({part[i] for part in parts}) > 1 for i in range(3)]
    if not any(varies):
        varies[2] = True
    return [" ".join(word for word, shown in zip(part, varies, strict=True) if shown) for part in parts]


def _dot(each: RunComparison, label: str) -> Dot:
    found = each.found
    factor = 100 if found.in_points else 1
    interval = None
    if found.interval is not None:
        interval = (factor * found.interval.lo, factor * found.interval.hi)
    return Dot(label, factor * found.difference, interval, found.told_apart)
