"""Rows in an order in which those whose prompts begin alike follow each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class LookAhead(NamedTuple):
    """How much is put into another order at once: rows, and tokens of them together (None: any number)."""

    n_rows: int
    n_tokens: int | None = None


OF_REPLIES = LookAhead(256)
OF_LIKELIHOODS = LookAhead(8192, 200_000)  # the engine evaluates many short rows together


def neighbours_together(
    items: Iterator[T], key: Callable[[T], tuple[int, ...]], ahead: LookAhead = OF_REPLIES
) -> Iterator[T]:
    """Items in blocks, each sorted: one upwards, the next downwards, so that they meet where they are alike.
    The next block is read an item at a time while this one is given out.
    """
    block, downwards = _Block(items, key, ahead), False
    block.fill()
    while block.items:
        following = _Block(items, key, ahead)
        for item in sorted(block.items, key=key, reverse=downwards):
            yield item
            following.add_one()
        following.fill()
        block, downwards = following, not downwards


class _Block(Generic[T]):
    """The next items of a source, as many as are looked at ahead."""

    def __init__(self, source: Iterator[T], key: Callable[[T], tuple[int, ...]], ahead: LookAhead) -> None:
        self._source, self._key, self._ahead = source, key, ahead
        self._n_tokens = 0
        self.items: list[T] = []

    def fill(self) -> None:
        while self.add_one():
            pass

    def add_one(self) -> bool:
        """Whether there was one, and room for it."""
        n_rows, n_tokens = self._ahead
        if len(self.items) >= n_rows or (n_tokens is not None and self._n_tokens >= n_tokens):
            return False
        for item in self._source:
            self.items.append(item)
            self._n_tokens += len(self._key(item))
            return True
        return False
