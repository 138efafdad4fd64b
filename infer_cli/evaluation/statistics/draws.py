"""Random numbers that are the same on every machine and with every numpy.

numpy promises this of a bit generator's raw numbers, not of what `Generator` makes of them (NEP 19).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from infer_cli.evaluation.statistics.units import Doubles, Integers

_MOST_AT_ONCE = 2**19  # numbers, so that memory has a bound: 4 MB for each array of them


class Draws:
    """PCG64 of a seed, 0 or more."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def resamples(self, n: int, n_resamples: int) -> Iterator[Integers]:
        """Numbers 0..n-1 with replacement, in arrays of shape (some, n), `n_resamples` rows together.

        A number's probability is off by at most n parts in 2^32.
        """
        for n_rows in _pieces(n, n_resamples):
            raw = self._bits.random_raw((n_rows * n + 1) // 2)
            halves = raw.astype("<u8", copy=False).view("<u4")[: n_rows * n]
            drawn = np.multiply(halves, n, dtype=np.uint64) >> np.uint64(32)
            yield drawn.view(np.int64).reshape(n_rows, n)

    def signs(self, n: int, n_resamples: int) -> Iterator[Doubles]:
        """1 or -1, both as likely, in arrays of shape (some, n), `n_resamples` rows together."""
        for n_rows in _pieces(n, n_resamples):
            raw = self._bits.random_raw((n_rows * n + 63) // 64)
            bits = np.unpackbits(raw.astype("<u8").view(np.uint8), bitorder="little")
            yield bits[: n_rows * n].reshape(n_rows, n).astype(np.float64) * 2 - 1


def _pieces(n: int, n_rows: int) -> Iterator[int]:
    most = max(1, _MOST_AT_ONCE // n)
    for done in range(0, n_rows, most):
        yield min(most, n_rows - done)
