"""What was found of a run's files. Values alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

MOST_SHOWN = 20  # of one kind: the others are counted


class Finding(NamedTuple):
    """What of a file does not hold: `what` says it of `file`, and where in it."""

    file: str
    what: str


def first_of(file: str, found: Iterator[str], what: Callable[[int], str]) -> Sequence[Finding]:
    """Findings of one file: the first ones, and `what` says how many more there are."""
    shown: list[Finding] = []
    n_more = 0
    for each in found:
        if len(shown) < MOST_SHOWN:
            shown.append(Finding(file, each))
        else:
            n_more += 1
    if n_more:
        shown.append(Finding(file, what(n_more)))
    return shown
