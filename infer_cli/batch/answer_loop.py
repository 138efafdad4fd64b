"""Keeps the engine fed with rows and writes each reply as it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple, TypeVar

from infer_cli.answering.feed import Feed
from infer_cli.batch.in_flight import CRASHES_TO_GIVE_UP, Flight
from infer_cli.batch.job import OutputFormat
from infer_cli.batch.output import Output, Unit
from infer_cli.batch.preparing import PreparedRow, Preparer, request_of
from infer_cli.batch.replies import Origin, failure, line_of, reply_of
from infer_cli.batch.rows import Row
from infer_cli.batch.summary import Tally
from infer_cli.errors import ExitStatus, InferError
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.types import EngineRequest, Event, Finished, Prefilled, Reply, Token

T = TypeVar("T")

Stop = Literal["interrupted", "errors"]
Progress = Callable[[int], None]  # is told how many requests the engine has
_CRASHED = "llama.cpp crashed on this row, alone too"
_KILLED = "the system killed the process on this row, alone too: most often memory ran out"
LOOK_AHEAD = 256  # rows that are put into another order for the sake of what their prompts share


class _PendingRow(NamedTuple):
    """A row that is to be answered, and which of its samples."""

    asked: PreparedRow
    samples: list[int]


@dataclass
class _OpenRow:
    """A row of which some samples are with the engine. `replies`: those of a line that is not whole yet."""

    asked: PreparedRow
    n_left: int
    replies: list[Reply] = field(default_factory=list)


class AnswerLoop:
    """Answers rows. `is_written` says what the output holds already; `n_window` is what each slot holds.

    `max_failed` None: any number of replies may fail.
    """

    def __init__(
        self,
        running: RunningEngine,
        preparer: Preparer,
        origin: Origin,
        output: Output,
        form: OutputFormat,
        tally: Tally,
        flight: Flight | None,
        is_written: Callable[[int, int], bool],
        n_window: int,
        max_failed: float | None,
    ) -> None:
        self._service = running.service
        self._preparer, self._origin = preparer, origin
        self._output, self._form, self._tally, self._flight = output, form, tally, flight
        self._is_written, self._n_window, self._max_failed = is_written, n_window, max_failed
        self._rows: dict[int, _OpenRow] = {}
        self._read: dict[str, int] = {}  # prompt tokens evaluated, by request
        self._fed: Feed[Unit] | None = None
        self._in_turn = True
        self.n_failed = 0 if flight is None else flight.n_failed
        self._alone: set[Unit] = set()  # what was answered before its turn
        self.stopped: Stop | None = None

    def stop(self, why: Stop) -> None:
        """End without the replies that are under way. Safe in a signal handler."""
        self.stopped = self.stopped or why
        if self._fed is not None:
            self._fed.cancel()

    def run_alone(self, rows: Iterable[Row], on_progress: Progress) -> None:
        """Answer rows one after the other, before `run`."""
        self._in_turn = False
        for row in rows:
            self._run(self._units([row]), on_progress)
        self._in_turn = True

    def run(self, rows: Iterable[Row], on_progress: Progress) -> None:
        """Answer rows, all that are left; returns when all are, or soon after `stop`."""
        self._run(self._units(rows), on_progress)

    def _run(self, units: Iterator[tuple[PreparedRow, int]], on_progress: Progress) -> None:
        def on_event(event: Event) -> None:
            if not isinstance(event, Finished):
                self._count_tokens(event)
                on_progress(feed.n_open)

        feed = Feed(self._service, self._work(units), on_event)
        self._fed = feed
        if self.stopped is not None:  # before there was anything to cancel
            feed.cancel()
        for unit, end in feed:
            self._finished(unit, end)
            on_progress(feed.n_open)
        self._fed = None

    def _count_tokens(self, event: Token | Prefilled) -> None:
        if isinstance(event, Token):
            self._tally.n_written += 1
            return
        self._tally.n_read += event.done - self._read.get(event.request_id, 0)
        self._read[event.request_id] = event.done

    # --- into the engine -----------------------------------------------------------------------

    def _work(self, units: Iterator[tuple[PreparedRow, int]]) -> Iterator[tuple[Unit, EngineRequest]]:
        for asked, sample in units:
            request = request_of(asked, sample, {} if asked.raw else self._preparer.tag_tokens)
            yield Unit(asked.row.index, sample), request

    def _units(self, rows: Iterable[Row]) -> Iterator[tuple[PreparedRow, int]]:
        """What the engine is to do: rows whose prompts begin alike follow each other."""
        for asked, samples in neighbours_together(
            self._waiting(rows), lambda waiting: waiting.asked.prompt_ids
        ):
            self._rows[asked.row.index] = _OpenRow(asked, len(samples))
            if self._flight is not None:
                self._flight.begin(asked.row.index)
            for sample in samples:
                yield asked, sample

    def _waiting(self, rows: Iterable[Row]) -> Iterator[_PendingRow]:
        """Rows in input order; those that can't be answered become error rows on the way."""
        for row in rows:
            if self.stopped is not None:
                return
            try:
                asked = self._preparer.prepare(row)
            except InferError as e:
                if self.stopped is not None:  # and the rendering of the row with it
                    return
                if todo := self._todo(row, 1):
                    self._fail(row, todo, e.exit_status, e.in_full)
                continue
            todo = self._todo(row, asked.n_samples)
            if not todo:
                continue
            if self._flight is not None and self._flight.crashes.get(row.index, 0) >= CRASHES_TO_GIVE_UP:
                was_killed = row.index in self._flight.killed
                code = ExitStatus.OUT_OF_MEMORY if was_killed else ExitStatus.NATIVE_CRASH
                self._fail(row, todo, code, _KILLED if was_killed else _CRASHED)
                continue
            if asked.n_window > self._n_window:
                message = f"{asked.n_window} tokens do not fit the {self._n_window} that were planned"
                self._fail(row, todo, ExitStatus.DOES_NOT_FIT, f"{message}: did the input change meanwhile?")
                continue
            yield _PendingRow(asked, todo)

    def _todo(self, row: Row, n_samples: int) -> list[int]:
        """The samples that are still to be answered."""
        todo = []
        for unit in self._line_units(row, range(n_samples)):
            if self._is_written(row.index, unit.sample):
                continue
            is_open = self._output.expect(unit) if self._in_turn else not self._output.waits(unit)
            if is_open and unit not in self._alone:
                todo.append(unit.sample)
        return list(range(n_samples)) if todo and self._form == "openai" else todo

    def _line_units(self, row: Row, samples: Iterable[int]) -> list[Unit]:
        """The units of the output's lines: one for all samples in OpenAI's form."""
        return [Unit(row.index, s) for s in ([0] if self._form == "openai" else samples)]

    # --- out of the engine ---------------------------------------------------------------------

    def _finished(self, unit: Unit, end: Finished) -> None:
        self._read.pop(end.request_id, None)
        if end.reason == "cancelled":
            return
        row = self._rows[unit.row]
        row.n_left -= 1
        pairs = () if row.asked.raw else self._preparer.pairs
        reply = reply_of(self._origin, row.asked, unit.sample, end, pairs)
        self._count(reply)
        if row.asked.dropped:
            self._tally.dropped[unit.row] = row.asked.n_dropped
        if self._form == "openai":
            row.replies.append(reply)
            if row.n_left == 0:
                self._write(row.asked.row, Unit(unit.row, 0), sorted(row.replies, key=lambda r: r.sample))
        else:
            self._write(row.asked.row, unit, [reply])
        if row.n_left == 0:
            del self._rows[unit.row]
            if self._flight is not None:
                self._flight.end(unit.row)

    def _fail(self, row: Row, samples: list[int], code: int, message: str) -> None:
        for unit in self._line_units(row, samples):
            reply = failure(self._origin, row, unit.sample, code, message)
            self._write(row, unit, [reply])
            self._count(reply)

    def _write(self, row: Row, unit: Unit, replies: list[Reply]) -> None:
        is_chat = row.asked is None or not self._preparer.is_raw(row.asked)
        line = line_of(row, replies, self._form, self._preparer.vocab.token_text, is_chat=is_chat)
        self._output.complete(unit, line)
        if not self._in_turn:
            self._alone.add(unit)

    def _count(self, reply: Reply) -> None:
        self._tally.add(reply)
        if reply.error is None:
            return
        self.n_failed += 1
        if self._flight is not None:
            self._flight.fail()
        if self._max_failed is not None and self.n_failed > self._max_failed:
            self.stop("errors")


def neighbours_together(items: Iterator[T], key: Callable[[T], tuple[int, ...]]) -> Iterator[T]:
    """Items in blocks of `LOOK_AHEAD`, each sorted: one upwards, the next downwards, so that they meet where
    they are alike. The next block is read an item at a time while this one is given out.
    """
    block, downwards = list(islice(items, LOOK_AHEAD)), False
    while block:
        following: list[T] = []
        for item in sorted(block, key=key, reverse=downwards):
            yield item
            following += islice(items, 1)
        block, downwards = following, not downwards
