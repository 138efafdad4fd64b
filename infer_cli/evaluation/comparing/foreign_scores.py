"""Scores of another program's run, put together item by item."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np

from infer_cli.evaluation.comparing.comparable import MetricScores


class ForeignColumn:
    """One metric. An item has the mean of the scores that it is given; none: the item is left out."""

    def __init__(self, name: str, *, higher_is_better: bool = True) -> None:
        self.name, self.higher_is_better = name, higher_is_better
        self._sums, self._counts, self._sizes = array("d"), array("q"), array("d")
        self._n_sized = self._n_wrong = 0

    def add(self, place: int, score: float | None, size: float | None = None) -> None:
        """`score` None: a value that no mean is taken of. `size`: what the score is taken over."""
        self._grow(place + 1)
        if score is None:
            self._n_wrong += 1
            return
        self._sums[place] += score
        self._counts[place] += 1
        if size is not None:
            self._sizes[place] = size
            self._n_sized += 1

    def scores(self, n_items: int, missing: str | None = None) -> MetricScores:
        self._grow(n_items)
        counts = np.frombuffer(self._counts, np.int64)
        means = np.frombuffer(self._sums, np.float64) / np.maximum(counts, 1)
        scores = np.where(counts > 0, means, math.nan)
        sizes = np.frombuffer(self._sizes, np.float64) if self._n_sized else None
        if missing is None and self._n_wrong:
            missing = f"{self._n_wrong} of its values are no numbers"
        if missing is None and sizes is not None and not (sizes[counts > 0] >= 1).all():
            missing = "some of its sizes are below 1"
        return MetricScores(self.name, self.higher_is_better, scores, sizes, missing)

    def _grow(self, n: int) -> None:
        more = n - len(self._sums)
        if more > 0:
            self._sums.extend([0.0] * more)
            self._counts.extend([0] * more)
            self._sizes.extend([1.0] * more)


def scored(columns: Sequence[ForeignColumn], n_items: int) -> tuple[MetricScores, ...]:
    return tuple(column.scores(n_items) for column in columns)
