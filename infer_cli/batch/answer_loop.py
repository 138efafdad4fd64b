"""Keeps the engine fed with rows and writes each answer as it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal

from infer_cli.answering.feed import Feed
from infer_cli.batch.in_flight import CRASHES_TO_GIVE_UP, Flight
from infer_cli.batch.job import OutputFormat
from infer_cli.batch.kind import A, AskedRow, Origin, RowPreparer
from infer_cli.batch.neighbours import LookAhead, neighbours_together
from infer_cli.batch.open_row import OpenRow
from infer_cli.batch.output import Output, Unit
from infer_cli.batch.room import Room
from infer_cli.batch.rows import Row
from infer_cli.batch.summary import Tally
from infer_cli.errors import ExitStatus, InferError
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.types import EngineRequest, Event, Finished, Prefilled, ScoreRequest, Token

Stop = Literal["interrupted", "errors"]
Progress = Callable[[int], None]  # is told how many requests the engine has
_CRASHED = "llama.cpp crashed on this row, alone too"
_KILLED = "the system killed the process on this row, alone too: most often memory ran out"


@dataclass(frozen=True)
class _PendingRow(Generic[A]):
    """A row that is to be answered, and which of its samples."""

    asked: AskedRow[A]
    samples: list[int]


@dataclass(frozen=True)
class _RowUnderWay(Generic[A]):
    """A row of which some samples are with the engine. `answers`: those of a line that is not whole yet."""

    asked: AskedRow[A]
    open: OpenRow[A]
    answers: list[A]


class AnswerLoop(Generic[A]):
    """Answers rows. `is_written` says what the output holds already; `room` is what was planned for a row.

    `max_failed` None: any number of answers may fail.
    """

    def __init__(
        self,
        running: RunningEngine,
        preparer: RowPreparer[A],
        origin: Origin,
        output: Output,
        form: OutputFormat,
        tally: Tally,
        flight: Flight | None,
        is_written: Callable[[int, int], bool],
        room: Room,
        ahead: LookAhead,
        max_failed: float | None,
    ) -> None:
        self._service = running.service
        self._preparer, self._origin = preparer, origin
        self._lines = preparer.lines(origin, form)
        self._output, self._form, self._tally, self._flight = output, form, tally, flight
        self._is_written, self._room, self._ahead = is_written, room, ahead
        self._max_failed = max_failed
        self._rows: dict[int, _RowUnderWay[A]] = {}
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
            self._run(self._work([row]), on_progress)
        self._in_turn = True

    def run(self, rows: Iterable[Row], on_progress: Progress) -> None:
        """Answer rows, all that are left; returns when all are, or soon after `stop`."""
        self._run(self._work(rows), on_progress)

    def _run(self, work: Iterator[tuple[Unit, EngineRequest | ScoreRequest]], on_progress: Progress) -> None:
        def on_event(event: Event) -> None:
            if not isinstance(event, Finished):
                self._count_tokens(event)
                on_progress(feed.n_open)

        feed = Feed(self._service, work, on_event)
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

    def _work(self, rows: Iterable[Row]) -> Iterator[tuple[Unit, EngineRequest | ScoreRequest]]:
        """What the engine is asked: rows whose prompts begin alike follow each other."""
        for waiting in neighbours_together(
            self._waiting(rows), lambda waiting: waiting.asked.prompt_ids, self._ahead
        ):
            asked, samples = waiting.asked, waiting.samples
            open_row = OpenRow(self._origin, asked, samples)
            self._rows[asked.row.index] = _RowUnderWay(asked, open_row, [])
            self._tally.begin(asked.prompt_ids)
            if self._flight is not None:
                self._flight.begin(asked.row.index)
            for sample in samples:
                for request in open_row.requests(sample):
                    yield Unit(asked.row.index, sample), request

    def _waiting(self, rows: Iterable[Row]) -> Iterator[_PendingRow[A]]:
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
            if lacking := self._room.lacks(asked):
                self._fail(row, todo, ExitStatus.DOES_NOT_FIT, f"{lacking}: did the input change meanwhile?")
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
        n_told = self._read.pop(end.request_id, 0)
        if end.likelihood is not None:  # what others began with alike is not told
            self._tally.n_read += end.usage.prompt_tokens - n_told
        if end.reason == "cancelled":
            return
        row = self._rows[unit.row]
        answer = row.open.finished(unit.sample, end)
        if answer is None:
            return
        self._count(answer)
        if row.asked.n_dropped:
            self._tally.dropped[unit.row] = row.asked.n_dropped
        if self._form == "openai":
            row.answers.append(answer)
            if row.open.is_done:
                self._write(row.asked.row, Unit(unit.row, 0), sorted(row.answers, key=lambda a: a.sample))
        else:
            self._write(row.asked.row, unit, [answer])
        if row.open.is_done:
            del self._rows[unit.row]
            if self._flight is not None:
                self._flight.end(unit.row)

    def _fail(self, row: Row, samples: list[int], code: int, message: str) -> None:
        for unit in self._line_units(row, samples):
            answer = self._lines.failure(row, unit.sample, code, message)
            self._write(row, unit, [answer])
            self._count(answer)

    def _write(self, row: Row, unit: Unit, answers: list[A]) -> None:
        self._output.complete(unit, self._lines.line(row, answers))
        if not self._in_turn:
            self._alone.add(unit)

    def _count(self, answer: A) -> None:
        self._tally.add(answer)
        if answer.error is None:
            return
        self.n_failed += 1
        if self._flight is not None:
            self._flight.fail()
        if self._max_failed is not None and self.n_failed > self._max_failed:
            self.stop("errors")
