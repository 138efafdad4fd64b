"""Which rows evaluate many texts at once, each beginning that they share only once. Pure: no model, no clock.

The texts that wait form a tree of tokens. One decode call evaluates a part of it: rows in any order that has
parents before children, each row part of the sequences of all texts that go through it. All sequences share
one memory, which is used as a stack:

    trunk   cells from 0: the beginning that the next texts are expected to share (sequence 0)
    call    cells behind it: the new rows of one call; all but what extends the trunk are freed after it

So the cells of every text are in ascending order of its positions, without anything being moved. Attention
that adds up in the order of cells, and passes over those of others, computes the same bits for a text
whatever is evaluated beside it (docs/determinism.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from infer_cli.text.common_prefix import n_same

TRUNK = 0  # the trunk's sequence


class TreeLimits(NamedTuple):
    """The most of one call. `n_seqs` counts the trunk's sequence too; `min_rows` is the least rows of a call,
    and of those with logits where there are any."""

    n_rows: int
    n_outputs: int
    n_seqs: int
    min_rows: int = 1

    @property
    def room(self) -> int:
        """Rows of texts, beside which there is room for dummies."""
        return self.n_rows - self.min_rows + 1

    @property
    def n_texts(self) -> int:
        """Sequences of texts, beside the trunk's and one for dummies."""
        return self.n_seqs - 1 - (self.min_rows > 1)


class Wanted(NamedTuple):
    """A text: logits are wanted after each of its tokens from position `first` on, its last one included."""

    ids: tuple[int, ...]
    first: int


class TreePath(NamedTuple):
    """Where one text goes in a call. `rows` are those of its positions from `start` on, in order; `n_new` of
    them are there for it alone or for it first.

    A text that is not part of the call may begin as one does that is: it takes the logits that it needs of
    these rows too, and has no sequence.
    """

    sequence: int
    start: int  # the trunk's tokens that it begins with
    rows: tuple[int, ...]
    n_new: int


@dataclass(frozen=True)
class TreeCall:
    """One decode call. `n_kept` of the trunk's tokens stay; the first `n_extending` rows extend it.

    `paths` are of the texts that wait, in their order, the first `n_taken` of them part of the call. Where
    the first one is longer than a call it is alone in it, and its path ends before it does.
    """

    n_kept: int
    n_extending: int
    tokens: list[int]
    positions: list[int]
    seqs: list[list[int]]
    outputs: list[bool]
    n_taken: int
    paths: tuple[TreePath, ...]

    @property
    def sequences(self) -> range:
        """All but the trunk's, dummies too."""
        return range(TRUNK + 1, 1 + max(seq for row in self.seqs for seq in row))


def plan_call(trunk: Sequence[int], waiting: Sequence[Wanted], limits: TreeLimits) -> TreeCall:
    """The next call for texts that wait, best in sorted order; there is at least one.

    `trunk` is what the memory holds. A call takes texts as long as they fit.
    """
    first = waiting[0]
    n_kept = _start(trunk, first)
    end = _end_of_part(first, n_kept, limits)
    if end < len(first.ids):
        rows = _Rows(first.ids[:n_kept], limits)
        rows.take(Wanted(first.ids[:end], first.first))
        return rows.call(waiting)
    held = tuple(trunk[:n_kept])
    n_taken, rows = _filled(held, waiting, limits)
    n_best = _best_cut(held, waiting, n_taken)
    if n_best < n_taken:
        _, rows = _filled(held, waiting[:n_best], limits)
    return rows.call(waiting)


def _filled(held: Sequence[int], waiting: Sequence[Wanted], limits: TreeLimits) -> tuple[int, _Rows]:
    """As many texts as fit, and their rows."""
    rows, n_taken = _Rows(held, limits), 0
    for text in waiting:
        if not rows.take(text):
            break
        n_taken += 1
    return n_taken, rows


def _start(held: Sequence[int], text: Wanted) -> int:
    """How many of the trunk's tokens a text begins with and needs no logits of."""
    return min(n_same(held, text.ids), text.first)


def _end_of_part(text: Wanted, start: int, limits: TreeLimits) -> int:
    """Where the next call for a text has to end, from position `start` on, as if it were alone."""
    return min(len(text.ids), start + limits.room, max(text.first, start) + limits.n_outputs)


def _best_cut(held: Sequence[int], waiting: Sequence[Wanted], n_taken: int) -> int:
    """How many of the texts that would fit are taken: where the least of what the next one has in common with
    the last one is to be evaluated again, because it is not kept in the trunk."""
    if n_taken == len(waiting):
        return n_taken
    best, least = n_taken, len(waiting[n_taken].ids) + 1
    for n in range(n_taken, n_taken // 2, -1):
        last, following = waiting[n - 1], waiting[n].ids
        n_lost = 0
        if _start(held, last) < len(held):
            n_lost = n_same(last.ids, following) - n_same(held, following)
        if n_lost < least:
            best, least = n, n_lost
        if least <= 0:
            break
    return best


class _Rows:
    """The rows of a call in the making."""

    def __init__(self, held: Sequence[int], limits: TreeLimits) -> None:
        self._held, self._limits = held, limits
        self._tokens: list[int] = []
        self._positions: list[int] = []
        self._seqs: list[list[int]] = []
        self._outputs: list[bool] = []
        self._n_outputs = 0
        self._row_after: dict[tuple[int, int], int] = {}  # (the row before or a place in the trunk, token)
        self._paths: list[TreePath] = []

    def take(self, text: Wanted) -> bool:
        """Add a text, if there is room for it."""
        start = _start(self._held, text)
        rows = self._shared(text, start)
        position = start + len(rows)
        before = rows[-1] if rows else -1 - start
        n_new = len(text.ids) - position
        unseen = [row for row in rows if self._positions[row] >= text.first and not self._outputs[row]]
        n_outputs = len(unseen) + len(text.ids) - max(position, text.first)
        limits, sequence = self._limits, len(self._paths) + TRUNK + 1
        if (
            len(self._tokens) + n_new > limits.room
            or self._n_outputs + n_outputs > limits.n_outputs
            or len(self._paths) == limits.n_texts
        ):
            return False
        self._n_outputs += n_outputs
        for row in unseen:
            self._outputs[row] = True
        for at in range(position, len(text.ids)):
            token, row = text.ids[at], len(self._tokens)
            self._row_after[before, token] = row
            self._tokens.append(token)
            self._positions.append(at)
            self._seqs.append([])
            self._outputs.append(at >= text.first)
            rows.append(row)
            before = row
        for row in rows:
            self._seqs[row].append(sequence)
        self._paths.append(TreePath(sequence, start, tuple(rows), n_new))
        return True

    def _shared(self, text: Wanted, start: int) -> list[int]:
        """The rows that are there already of a text that goes on from `start` of the trunk's tokens."""
        rows: list[int] = []
        before = -1 - start
        for token in text.ids[start:]:
            row = self._row_after.get((before, token))
            if row is None:
                break
            rows.append(row)
            before = row
        return rows

    def _ridden(self, text: Wanted) -> TreePath:
        """The rows that a text which is no part of the call can take logits of."""
        start = _start(self._held, text)
        rows = self._shared(text, start)
        for n, row in enumerate(rows):
            if start + n >= text.first and not self._outputs[row]:
                del rows[n:]
                break
        return TreePath(TRUNK, start, tuple(rows), 0)

    def call(self, waiting: Sequence[Wanted]) -> TreeCall:
        """All rows: those first that extend the trunk by the last text, then the others, then dummies."""
        riders = [self._ridden(text) for text in waiting[len(self._paths) :]]
        last = self._paths[-1]
        extending = last.rows if last.start == len(self._held) else ()
        for row in extending:
            self._seqs[row].append(TRUNK)
        first = set(extending)
        order = [*extending, *(row for row in range(len(self._tokens)) if row not in first)]
        place = {row: n for n, row in enumerate(order)}
        outputs = [self._outputs[row] for row in order]
        call = TreeCall(
            len(self._held),
            len(extending),
            [self._tokens[row] for row in order],
            [self._positions[row] for row in order],
            [self._seqs[row] for row in order],
            outputs,
            len(self._paths),
            tuple(
                path._replace(rows=tuple(place[row] for row in path.rows)) for path in (*self._paths, *riders)
            ),
        )
        self._add_dummies(call)
        return call

    def _add_dummies(self, call: TreeCall) -> None:
        """Where one row alone would take other kernels than two: a second one, and logits of two."""
        dummy = len(self._paths) + TRUNK + 1
        wants_output = any(call.outputs)
        for position in range(self._limits.min_rows - len(call.tokens)):
            call.tokens.append(0)
            call.positions.append(position)
            call.seqs.append([dummy])
            call.outputs.append(False)
        for row, wanted in enumerate(call.outputs):
            if not wants_output or sum(call.outputs) >= self._limits.min_rows:
                return
            if not wanted:
                call.outputs[row] = True
