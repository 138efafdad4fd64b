"""Brings the interleaved streams of several samples into sample order. Knows no format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from infer_cli.types import Delta, Reply

# What a text sink does with a reply's reasoning: beside the answer, not at all, or instead of it.
ReasoningView = Literal["show", "hide", "only"]


class SampleOrder:
    """Lets the first unfinished sample through and keeps what came of later ones until it ends.

    Samples count from 0; each ends with its `Reply`.
    """

    def __init__(self) -> None:
        self._current = 0
        self._kept: dict[int, list[Delta | Reply]] = {}

    def push(self, item: Delta | Reply) -> Iterator[Delta | Reply]:
        """Take the next item of any sample; yields what is due, in order."""
        self._kept.setdefault(item.sample, []).append(item)
        while due := self._kept.pop(self._current, None):
            yield from due
            if not isinstance(due[-1], Reply):
                break
            self._current += 1

    def drain(self) -> Iterator[Delta | Reply]:
        """What is still kept when no more will come (an interruption), in order."""
        for sample in sorted(self._kept):
            yield from self._kept.pop(sample)
