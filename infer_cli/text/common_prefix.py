"""How far two sequences are alike from their beginning: token ids, texts."""

from __future__ import annotations

from collections.abc import Sequence

_BLOCK = 64  # elements that are compared in one go, by the interpreter itself


def n_same(one: Sequence[object], other: Sequence[object]) -> int:
    """Length of the common beginning: where the first difference is."""
    n = min(len(one), len(other))
    for start in range(0, n, _BLOCK):
        a, b = one[start : start + _BLOCK], other[start : start + _BLOCK]
        if a == b:
            continue
        for i, (x, y) in enumerate(zip(a, b, strict=False)):
            if x != y:
                return start + i
    return n
