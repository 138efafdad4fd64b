"""What was drawn independently of one another: items, or clusters of items, with their scores added up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]


class Units(NamedTuple):
    """`sums` and `sizes`, both of shape (n,): the scores of each unit added up, and how many these are.

    `are_texts`: the sizes are those of texts (bytes, words), of which each unit is one: the mean is a ratio,
    such as bits per byte, and `n_items` counts bytes.
    """

    sums: Doubles
    sizes: Doubles
    are_texts: bool = False

    @property
    def n(self) -> int:
        return len(self.sums)

    @property
    def n_items(self) -> int:
        return int(self.sizes.sum())

    @property
    def are_items(self) -> bool:
        return not self.are_texts and self.n == self.n_items

    @property
    def mean(self) -> float:
        """Of all items."""
        return math.fsum(self.sums) / self.n_items

    @property
    def residuals(self) -> Doubles:
        """Of each unit, shape (n,): its items' scores less the mean, added up."""
        return self.sums - self.mean * self.sizes

    @property
    def vary(self) -> bool:
        """Whether two units have different means."""
        means = self.sums / self.sizes
        # Sums of the same scores in another order may differ in the last digits.
        return bool(np.ptp(means) > 1e-12 * np.abs(means).max())

    @property
    def word(self) -> str:
        """`item`, `items`, `cluster` or `clusters`."""
        return ("item" if self.are_items or self.are_texts else "cluster") + ("s" if self.n > 1 else "")


def units_of(
    scores: Sequence[float], clusters: Sequence[str] | None = None, sizes: Sequence[float] | None = None
) -> Units:
    """Items that share a name in `clusters` (one for each score) are one unit. `sizes`: those of the items'
    texts, for a ratio.

    Raises ValueError: there is no score, one is not a finite number, or there are not as many names or sizes.
    """
    values = np.asarray(scores, np.float64)
    if not len(values):
        raise ValueError("there are no scores")
    if not np.isfinite(values).all():
        raise ValueError(f"the score of item {int(np.isfinite(values).argmin())} is not a finite number")
    amounts = np.ones(len(values)) if sizes is None else np.asarray(sizes, np.float64)
    if len(amounts) != len(values):
        raise ValueError(f"there are {len(amounts)} sizes for {len(values)} scores")
    if clusters is None:
        return Units(values, amounts, sizes is not None)
    index = cluster_index(clusters, len(values))
    sums, totals = np.bincount(index, weights=values), np.bincount(index, weights=amounts)
    return Units(sums.astype(np.float64), totals.astype(np.float64))


def cluster_index(clusters: Sequence[str], n_items: int) -> Integers:
    """The number of each item's cluster, shape (n_items,); they are counted as they first occur.

    Raises ValueError: there is not one name for each item.
    """
    if len(clusters) != n_items:
        raise ValueError(f"there are {len(clusters)} names of clusters for {n_items} scores")
    numbers = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    return np.array([numbers[name] for name in clusters], np.int64)
