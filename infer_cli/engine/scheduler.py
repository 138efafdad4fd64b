"""Which rows the next step evaluates. Pure Python: no model, no clock, no I/O.

A step is at most one prefill call (one prompt's next chunk, or those of several that share one memory) and
one decode call (a row for each live reply). While slots still wait for their prompt, steps are prefill calls
only, up to `MAX_PREFILL_RUN` prompt tokens: then the live replies get their row. Slots are sequence ids; rows
go in ascending slot order; a call's slots are consecutive from 0, holes filled by dummy rows, because
llama.cpp splits a batch at a gap and so changes its shape. It does not where all slots share one memory.

A sequence is spans of prompt and of tokens decoded before, in any order, then its reply. Decoded tokens take
part in decode calls as rows of a live reply do. What a session has evaluated may stay in its slot (`kept`)
until the session comes back or the slot is needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from infer_cli.engine.history import chunk_end
from infer_cli.types import Segment

MAX_PREFILL_RUN = 512  # prompt tokens between two decode calls: fewer than this and one chunk

T = TypeVar("T")


class Span(NamedTuple):
    """Tokens [start, end) of a sequence."""

    start: int
    end: int
    decoded: bool = False


def prompt_span(n_tokens: int) -> tuple[Span, ...]:
    """A prompt without a history."""
    return (Span(0, n_tokens),)


def segment_spans(segments: Iterable[Segment]) -> tuple[Span, ...]:
    """A span for each segment, none of which is empty: each is evaluated in its own shapes."""
    spans: list[Span] = []
    start = 0
    for segment in segments:
        spans.append(Span(start, start + len(segment.ids), segment.kind == "decoded"))
        start = spans[-1].end
    return tuple(spans)


class Sequence(Generic[T]):
    """One request's place in the schedule.

    `spans` are the tokens before its reply, `n_prompt` in all; `n_past` counts those evaluated, the reply's
    too. `begun`: its turn has come, and what could be reused is in its slot.
    """

    def __init__(self, owner: T, spans: tuple[Span, ...], session: str | None = None) -> None:
        self.owner = owner
        self.spans = spans
        self.session = session
        self.n_prompt = spans[-1].end
        self.slot = -1
        self.n_past = 0
        self.begun = False

    @property
    def prefilled(self) -> bool:
        return self.n_past >= self.n_prompt

    @property
    def span(self) -> Span:
        """The span that the next token is in; only before the reply."""
        return next(span for span in self.spans if self.n_past < span.end)

    @property
    def decodes(self) -> bool:
        """Whether the next token takes a decode row."""
        return self.begun and (self.prefilled or self.span.decoded)


@dataclass(frozen=True)
class PrefillPart(Generic[T]):
    """Prompt tokens [start, end) of one sequence."""

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
    prefill: tuple[PrefillPart[T], ...] = ()  # of one call, in ascending slot order; one where shapes matter
    decode: DecodeCall[T] | None = None


class Scheduler(Generic[T]):
    """First come, first served over `width` slots.

    `fixed_width`: every decode call has `width` rows. `min_rows`: least rows of a decode call.
    `fill_holes` False: no dummy rows at all (a recurrent state cannot forget one, shared memory needs none).
    `joins_prompts`: a prefill call takes in as many prompts as it has room for.
    """

    def __init__(
        self,
        width: int,
        chunk: int,
        fixed_width: bool = False,
        min_rows: int = 1,
        fill_holes: bool = True,
        joins_prompts: bool = False,
    ) -> None:
        self.width = width
        self.chunk = chunk
        self.fixed_width = fixed_width
        self.min_rows = min_rows
        self.fill_holes = fill_holes
        self.joins_prompts = joins_prompts
        self.waiting: deque[Sequence[T]] = deque()
        self.slots: list[Sequence[T] | None] = [None] * width
        self.kept: dict[str, int] = {}  # session -> idle slot, longest idle first
        self._prefilling: deque[Sequence[T]] = deque()
        self._prefill_run = 0

    def submit(self, seq: Sequence[T]) -> None:
        self.waiting.append(seq)

    def release(self, seq: Sequence[T], *, keep: bool = False) -> None:
        """Take a sequence out, wherever it is. `keep`: its slot stays its session's."""
        if seq.slot >= 0:
            self.slots[seq.slot] = None
            if keep and seq.session is not None:
                self.kept[seq.session] = seq.slot
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

    @property
    def prefilling(self) -> bool:
        """Whether an admitted sequence has prompt tokens that are not evaluated."""
        return any(not seq.prefilled for seq in self._prefilling)

    def admit(self) -> list[Sequence[T]]:
        """Give free slots, lowest first, to those who wait, oldest first.

        A session gets the slot that was kept for it; others take one only where nothing else is free.
        """
        admitted: list[Sequence[T]] = []
        n_free = self.slots.count(None)
        while self.waiting and len(admitted) < n_free:
            seq = self.waiting.popleft()
            seq.slot = self._free_slot(seq.session)
            self.slots[seq.slot] = seq
            self._prefilling.append(seq)
            admitted.append(seq)
        return admitted

    def _free_slot(self, session: str | None) -> int:
        if session in self.kept:
            return self.kept.pop(session)
        free = [slot for slot, holder in enumerate(self.slots) if holder is None]
        unused = [slot for slot in free if slot not in self.kept.values()]
        return unused[0] if unused else self.kept.pop(next(iter(self.kept)))

    def move(self, seq: Sequence[T], slot: int) -> None:
        """Give a running sequence another slot, a free one that is kept for no session."""
        self.slots[seq.slot], self.slots[slot] = None, seq
        seq.slot = slot

    def hole(self) -> tuple[int, Sequence[T]] | None:
        """The lowest free slot that no session keeps and a running sequence above it, the highest one; None
        where there are no such, or where others are still to come."""
        if self.waiting or self.prefilling:
            return None
        taken = self.kept.values()
        free = next((i for i, seq in enumerate(self.slots) if seq is None and i not in taken), self.width)
        last = next((seq for seq in reversed(self.slots) if seq is not None), None)
        return (free, last) if last is not None and last.slot > free else None

    def prompts(self) -> Iterator[Sequence[T]]:
        """Sequences whose prompt is to be evaluated, the longest waiting first.

        The first has to begin, by the caller's hand, before a plan; the others may where prompts are joined.
        """
        while self._prefilling and self._prefilling[0].prefilled:
            self._prefilling.popleft()
        return (seq for seq in self._prefilling if not seq.decodes)

    def plan(self) -> Plan[T]:
        """The next step's calls. The caller advances `n_past` of what was evaluated."""
        prefill = self._prefill_parts()
        decode = self._decode_call()
        if prefill and decode is not None:
            self._prefill_run += sum(part.end - part.start for part in prefill)
            if self._prefill_run < MAX_PREFILL_RUN:
                return Plan(prefill)
        self._prefill_run = 0
        return Plan(prefill, decode)

    def _prefill_parts(self) -> tuple[PrefillPart[T], ...]:
        parts: list[PrefillPart[T]] = []
        room = self.chunk
        for seq in self.prompts():
            if parts and not (self.joins_prompts and seq.begun and room):
                break
            start, end, _ = seq.span
            if self.joins_prompts:
                end = min(end, seq.n_past + room)
            else:
                end = start + chunk_end(seq.n_past - start, end - start, self.chunk)
            parts.append(PrefillPart(seq, seq.n_past, end))
            room -= end - seq.n_past
        return tuple(sorted(parts, key=lambda part: part.seq.slot))

    def _decode_call(self) -> DecodeCall[T] | None:
        rows: list[tuple[int, Sequence[T] | None]] = []
        n_rows = 0
        for slot, seq in enumerate(self.slots):
            if seq is not None and seq.decodes:
                rows.append((slot, seq))
                n_rows = slot + 1
            elif self.fill_holes:
                rows.append((slot, None))
        if not n_rows:
            return None
        if self.fill_holes:
            n_rows = max(self.width if self.fixed_width else n_rows, self.min_rows)
            rows += [(slot, None) for slot in range(len(rows), n_rows)]
            del rows[n_rows:]
        return DecodeCall(tuple(rows))
