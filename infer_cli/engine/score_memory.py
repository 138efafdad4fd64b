"""What a scoring context holds, and how the next texts are evaluated: as a tree, or in fixed chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from infer_cli.backend.base import Backend, DecodeStatus
from infer_cli.engine.history import chunk_end, reusable
from infer_cli.engine.score_tree import TRUNK, TreeLimits, Wanted, plan_call
from infer_cli.types import Segment


class EvaluatedPart(NamedTuple):
    """What a call has computed of one text: all that is wanted before position `end`. `outputs` are the rows
    of logits, one for each position from `first_output` on; `n_new` rows were evaluated for this text, or for
    it first."""

    end: int
    first_output: int
    outputs: tuple[int, ...]
    n_new: int


class Evaluation(NamedTuple):
    """One decode call, the first `n_taken` of the texts that wait in it; where it did not succeed the memory
    is as before. `parts` are of the texts in their order, others too that begin as those in the call do."""

    status: DecodeStatus
    n_outputs: int  # rows of logits
    n_taken: int
    parts: list[EvaluatedPart]


class ScoreMemory(Protocol):
    """Evaluates texts, one decode call at a time."""

    def evaluate(self, waiting: Sequence[Wanted]) -> Evaluation:
        """One call; at least one text waits."""


class TreeMemory:
    """All texts share one memory, and what they begin with alike is evaluated once (`score_tree`)."""

    def __init__(self, backend: Backend, limits: TreeLimits) -> None:
        self._backend, self._limits = backend, limits
        self._trunk: tuple[int, ...] = ()

    def evaluate(self, waiting: Sequence[Wanted]) -> Evaluation:
        backend = self._backend
        call = plan_call(self._trunk, waiting, self._limits)
        backend.seq_rm(TRUNK, call.n_kept)
        self._trunk = self._trunk[: call.n_kept]
        for path in call.paths[: call.n_taken]:
            if path.start:
                backend.seq_cp(TRUNK, path.sequence)
                backend.seq_rm(path.sequence, path.start)
        status = backend.decode_tree(call.tokens, call.positions, call.seqs, call.outputs)
        for sequence in call.sequences:
            backend.seq_rm(sequence, 0)
        if status is DecodeStatus.OK:
            self._trunk += tuple(call.tokens[: call.n_extending])
        else:
            backend.seq_rm(TRUNK, call.n_kept)
        output_of = _output_numbers(call.outputs)
        parts: list[EvaluatedPart] = []
        for path, text in zip(call.paths, waiting, strict=False):
            first = max(text.first, path.start)
            outputs = tuple(output_of[row] for row in path.rows[first - path.start :])
            parts.append(EvaluatedPart(path.start + len(path.rows), first, outputs, path.n_new))
        return Evaluation(status, len(output_of), call.n_taken, parts)


class ChunkMemory:
    """One text after the other, in chunks at fixed boundaries.

    `every_row`: a chunk in which logits are wanted has those of all its rows: their number is part of the
    shape of the last layer.
    """

    def __init__(self, backend: Backend, chunk: int, *, every_row: bool) -> None:
        self._backend, self._chunk, self._every_row = backend, chunk, every_row
        self._held: tuple[int, ...] = ()

    def evaluate(self, waiting: Sequence[Wanted]) -> Evaluation:
        text = waiting[0]
        start = self._start(text)
        end = chunk_end(start, len(text.ids), self._chunk)
        first = max(text.first, start)
        if first >= end:
            outputs = [False] * (end - start)
        elif self._every_row:
            outputs = [True] * (end - start)
        else:
            outputs = [position >= first for position in range(start, end)]
        status = self._backend.decode(text.ids[start:end], range(start, end), [0] * (end - start), outputs)
        if status is DecodeStatus.OK:
            self._held = text.ids[:end]
        elif not self._backend.seq_rm(0, start):
            self._forget()
        output_of = _output_numbers(outputs)
        rows = tuple(output_of[position - start] for position in range(first, end))
        return Evaluation(status, len(output_of), 1, [EvaluatedPart(end, first, rows, end - start)])

    def _start(self, text: Wanted) -> int:
        """How much of what is held the text goes on from; the rest is forgotten."""
        start = 0
        if self._held:
            held, wanted = (Segment("prompt", self._held),), (Segment("prompt", text.ids),)
            start = _chunk_start(reusable(held, wanted, self._chunk), text, self._chunk)
        if start < len(self._held):
            if self._backend.seq_rm(0, start):
                self._held = self._held[:start]
            else:
                self._forget()
        return len(self._held)

    def _forget(self) -> None:
        self._backend.seq_rm(0, 0)
        self._held = ()


def _chunk_start(n_reusable: int, text: Wanted, chunk: int) -> int:
    """The last boundary up to which a text's chunks may stay: before the first that logits are wanted of."""
    start = 0
    while start < n_reusable:
        end = chunk_end(start, len(text.ids), chunk)
        if end > min(n_reusable, text.first):
            break
        start = end
    return start


def _output_numbers(outputs: Sequence[bool]) -> dict[int, int]:
    """The row of logits of each row that has them."""
    return {row: n for n, row in enumerate(row for row, wanted in enumerate(outputs) if wanted)}
