"""How far two sequences are alike from their beginning: token ids, texts."""

from __future__ import annotations

from collections.abc import Sequence


def n_same(one: Sequence[object], other: Sequence[object]) -> int:
    """Length of the common beginning: where the first difference is."""
    for n, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return n
    return min(len(one), len(other))
