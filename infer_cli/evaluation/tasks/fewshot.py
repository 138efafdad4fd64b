"""Which examples an item is shown: the first n, or n drawn for it, and never the item itself.

An example is the item itself where its question reads the same, whatever else its row has. A draw is a
function of the seed, the item's id and the set of examples: not of their order, of other items, or of the
machine. It permutes the examples, sorted by the digest of their questions, with numbers made by SHA-256.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.doc import Doc, canonical_json
from infer_cli.settings.sizes import size_text
from infer_cli.system.hashing import sha256

MOST_IN_POOL = 1000  # examples that are drawn from; of more, those with the least digests
MOST_BYTES = 64 * 10**6  # of their rows
_WORD = 8  # bytes of a number


class Example(NamedTuple):
    """A row that may be shown. `key` is the digest of its question."""

    id: str
    doc: Doc
    key: bytes

    def as_json(self) -> Mapping[str, object]:
        return {"id": self.id, "doc": self.doc}


class ExamplePool:
    """Examples of which each item is shown `n`. `seed` None: the first ones. `path`: the file that they are
    from, and that must not have an item; None: they are from the task's own data.

    Raises UsageError where there are too few, or where they are too large.
    """

    def __init__(self, examples: Iterable[Example], n: int, seed: int | None, path: str | None) -> None:
        self._n, self._seed, self._path = n, seed, path
        self._rows_of: dict[bytes, str] = {}  # of a file of examples: where each question is
        examples = iter(examples) if path is None else self._noted(examples)
        # One more than are shown, in case one is the item.
        self.examples = _first(examples, n + 1) if seed is None else _least(examples)
        for _ in examples if path is not None else ():  # the rest is noted too
            pass

    def of(self, item_id: str, key: bytes) -> list[Example]:
        """Examples of an item whose question has the digest `key`, in the order in which they are shown."""
        if key in self._rows_of:
            raise UsageError(
                f"{self._path}: row {self._rows_of[key]} is the item {item_id!r:.60} itself: its question"
                " reads the same",
                "take it out of the examples",
            )
        order: Iterable[int] = range(len(self.examples))
        if self._seed is not None:
            order = permuted(len(self.examples), self._seed, item_id)
        found = (self.examples[i] for i in order)
        shown = list(itertools.islice((each for each in found if each.key != key), self._n))
        if len(shown) < self._n:
            raise UsageError(
                f"[fewshot] n: {self._n} examples are asked for, and there are {len(shown)} for the item"
                f" {item_id!r:.60}",
                "ask for fewer with --fewshot",
            )
        return shown

    def _noted(self, examples: Iterable[Example]) -> Iterator[Example]:
        for example in examples:
            self._rows_of[example.key] = example.id
            yield example


def question_key(question: object) -> bytes:
    """The digest of a question, as JSON has it."""
    return sha256(canonical_json(question))


def permuted(n: int, seed: int, item_id: str) -> Iterator[int]:
    """The numbers below `n` in an order that `seed` and `item_id` decide (Durstenfeld 1964)."""
    numbers = _numbers(seed, item_id)
    moved: dict[int, int] = {}
    for i in range(n):
        k = i + _below(n - i, numbers)
        yield moved.get(k, k)
        moved[k] = moved.get(i, i)


def _numbers(seed: int, item_id: str) -> Iterator[int]:
    """Uniform numbers of 64 bits."""
    for i in itertools.count():
        block = sha256(f"few-shot {seed} {i} {item_id}".encode())
        for start in range(0, len(block), _WORD):
            yield int.from_bytes(block[start : start + _WORD], "big")


def _below(n: int, numbers: Iterator[int]) -> int:
    """A uniform number below `n`: those of the last, incomplete run are left out."""
    end = 2 ** (8 * _WORD)
    return next(number for number in numbers if number < end - end % n) % n


def _first(examples: Iterable[Example], n: int) -> Sequence[Example]:
    """The first that differ."""
    found: dict[bytes, Example] = {}
    n_bytes = 0
    for example in examples:
        if example.key not in found:
            found[example.key] = example
            n_bytes = _bounded(n_bytes + _size(example))
        if len(found) == n:
            break
    return list(found.values())


def _least(examples: Iterable[Example]) -> Sequence[Example]:
    """Those with the least digests, sorted: a sample that does not depend on the order of the data."""
    heap: list[tuple[int, Example]] = []  # the greatest digest first
    kept: set[bytes] = set()
    n_bytes = 0
    for example in examples:
        entry = (-int.from_bytes(example.key, "big"), example)
        if example.key in kept or (len(heap) == MOST_IN_POOL and entry[0] <= heap[0][0]):
            continue
        kept.add(example.key)
        if len(heap) < MOST_IN_POOL:
            heapq.heappush(heap, entry)
        else:
            _, gone = heapq.heapreplace(heap, entry)
            kept.remove(gone.key)
            n_bytes -= _size(gone)
        n_bytes = _bounded(n_bytes + _size(example))
    return [example for _, example in sorted(heap, key=lambda entry: -entry[0])]


def _size(example: Example) -> int:
    return len(canonical_json(example.doc))


def _bounded(n_bytes: int) -> int:
    if n_bytes > MOST_BYTES:
        raise UsageError(
            f"the examples are more than {size_text(MOST_BYTES)}", "name a file of fewer in [fewshot] path"
        )
    return n_bytes
