"""Which rows the next step evaluates. Pure Python: no model, no clock, no I/O.

A step is at most one prefill call (one prompt's next chunk) and one decode call (a row for each live
reply). Slots are sequence ids; rows go in ascending slot order; a call's slots are consecutive from 0,
holes filled by dummy rows, because llama.cpp splits a batch at a gap and so changes its shape.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class Sequence(Generic[T]):
    """One request's place in the schedule. `n_past` counts evaluated tokens."""

    owner: T
    n_prompt: int
    slot: int = -1
    n_past: int = 0

    @property
    def prefilled(self) -> bool:
        return self.n_past >= self.n_prompt


@dataclass(frozen=True)
class PrefillCall(Generic[T]):
    """Evaluate prompt tokens [start, end) of one sequence, alone."""

    seq: Sequence[T]
    start: int
    end: int

    @property
    def is_last(self) -> bool:
        return self.end == self.seq.n_prompt


@dataclass(frozen=True)
class DecodeCall(Generic[T]):
    """Rows in ascending slot order: (slot, live sequence or None for a dummy)."""

    rows: tuple[tuple[int, Sequence[T] | None], ...]

    @property
    def live(self) -> list[Sequence[T]]:
        return [seq for _slot, seq in self.rows if seq is not None]


@dataclass(frozen=True)
class Plan(Generic[T]):
    prefill: PrefillCall[T] | None = None
    decode: DecodeCall[T] | None = None


def chunk_end(start: int, n_prompt: int, chunk: int) -> int:
    """Where the chunk that begins at `start` ends: at a multiple of `chunk`, or at the prompt's end.

    A tail of one token joins the chunk before it: alone it would take the kernels of a single row.
    """
    end = min(start - start % chunk + chunk, n_prompt)
    return n_prompt if n_prompt - end == 1 else end


@dataclass
class Scheduler(Generic[T]):
    """First come, first served over `width` slots.

    `fixed_width`: every decode call has `width` rows. `min_rows`: least rows of a decode call.
    `fill_holes` False: no dummy rows at all (a recurrent state cannot forget one).
    """

    width: int
    chunk: int
    fixed_width: bool = False
    min_rows: int = 1
    fill_holes: bool = True
    waiting: deque[Sequence[T]] = field(default_factory=deque)
    slots: list[Sequence[T] | None] = field(init=False)

    def __post_init__(self) -> None:
        self.slots = [None] * self.width
        self._prefilling: deque[Sequence[T]] = deque()

    def submit(self, seq: Sequence[T]) -> None:
        self.waiting.append(seq)

    def release(self, seq: Sequence[T]) -> None:
        """Take a sequence out, wherever it is."""
        if seq.slot >= 0:
            self.slots[seq.slot] = None
            if seq in self._prefilling:
                self._prefilling.remove(seq)
        elif seq in self.waiting:
            self.waiting.remove(seq)
        seq.slot = -1

    def running(self) -> Iterator[Sequence[T]]:
        return (seq for seq in self.slots if seq is not None)

    @property
    def idle(self) -> bool:
        return not self.waiting and all(seq is None for seq in self.slots)

    def admit(self) -> list[Sequence[T]]:
        """Give free slots, lowest first, to those who wait, oldest first."""
        admitted: list[Sequence[T]] = []
        for slot, holder in enumerate(self.slots):
            if not self.waiting:
                break
            if holder is None:
                seq = self.waiting.popleft()
                seq.slot = slot
                self.slots[slot] = seq
                self._prefilling.append(seq)
                admitted.append(seq)
        return admitted

    def plan(self) -> Plan[T]:
        """The next step's calls. The caller advances `n_past` of what was evaluated."""
        while self._prefilling and self._prefilling[0].prefilled:
            self._prefilling.popleft()
        prefill = None
        if self._prefilling:
            seq = self._prefilling[0]
            prefill = PrefillCall(seq, seq.n_past, chunk_end(seq.n_past, seq.n_prompt, self.chunk))
        return Plan(prefill, self._decode_call())

    def _decode_call(self) -> DecodeCall[T] | None:
        live = [seq if seq is not None and seq.prefilled else None for seq in self.slots]
        highest = max((slot for slot, seq in enumerate(live) if seq is not None), default=-1)
        if highest < 0:
            return None
        if not self.fill_holes:
            return DecodeCall(tuple((slot, seq) for slot, seq in enumerate(live) if seq is not None))
        n_rows = max(self.width if self.fixed_width else highest + 1, self.min_rows)
        live += [None] * (n_rows - len(live))
        return DecodeCall(tuple(enumerate(live[:n_rows])))
