"""The record store: one SQLite file, written by any number of processes at once.

A record is there once `add` has returned, whatever happens to the process after. Knows no command line.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from infer_cli.errors import InferError, UnexpectedFailure, UsageError
from infer_cli.records import statements
from infer_cli.records.columns import row_of, text_value
from infer_cli.records.database import Database
from infer_cli.records.record import Record
from infer_cli.records.statements import Damaged
from infer_cli.records.thread import Thread, ThreadSummary
from infer_cli.system.paths import data_dir

MAX_BYTES = 512 * 10**6  # of the store; beyond it the oldest records go

_EXPORT_STEP = 50  # records a query
_BACK_STEP = 5
_SUMMARY_STEP = 5
_MOST_NAMED = 5  # damaged records, each in a warning of its own
_WRITE_MORE = "write more of the id"

T = TypeVar("T")
Warn = Callable[[str], None]


def store_path() -> Path:
    return data_dir() / "records.sqlite"


def keep(records: Iterable[Record], warn: Warn) -> None:
    """Write records to the user's store. A failure, in making them too, is one warning."""
    try:
        with Store.open(store_path(), warn) as store:
            store.add_all(list(records))
    except (InferError, OSError) as e:
        warn(f"the answer was not recorded: {e}")


def keep_turn(make: Callable[[], Record], thread: Thread, warn: Warn) -> None:
    """As `keep`, for a turn of a conversation."""
    try:
        with Store.open(store_path(), warn) as store:
            store.add_turn(make(), thread)
    except (InferError, OSError) as e:
        warn(f"the answer was not recorded: {e}")


class Store:
    """An open record store. Belongs to the thread that opened it.

    Every method raises UnexpectedFailure where the disk or SQLite fails. A row that is damaged is left out,
    and `warn` is told which. A file that is damaged is set aside, see `Database`.
    """

    def __init__(self, path: Path, warn: Warn, max_bytes: int) -> None:
        self.path = path
        self._warn = warn
        self._max_bytes = max_bytes
        self._database = Database(path, warn)
        self._left_out: dict[str, str] = {}  # what is damaged, and how

    @classmethod
    def open(cls, path: Path, warn: Warn, *, max_bytes: int = MAX_BYTES) -> Store:
        """Open a store, made if it is not there, migrated if it is older.

        Raises UnexpectedFailure, also for a store that a newer version wrote, which is left as it is.
        """
        store = cls(path, warn, max_bytes)
        store._database.run(lambda connection: None)
        return store

    def close(self) -> None:
        """Let go of the file, and tell of damaged rows beyond those that were named."""
        n_more = len(self._left_out) - _MOST_NAMED
        if n_more > 0:
            self._warn(f"{n_more} more of the records are damaged and left out")
        self._left_out = dict(list(self._left_out.items())[:_MOST_NAMED])
        self._database.close()

    @property
    def n_left_out(self) -> int:
        """How many records and conversations were damaged among those that were read so far."""
        return len(self._left_out)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- writing -------------------------------------------------------------------------------

    def add(self, record: Record) -> str:
        """Write one record; returns its id. Raises UnexpectedFailure for an id that is taken."""
        self.add_all([record])
        return record.id

    def add_all(self, records: Sequence[Record]) -> None:
        """Write records in one transaction: all of them or none."""
        rows = [row_of(record) for record in records]
        self._write(lambda connection: statements.insert_rows(connection, rows))

    def add_turn(self, record: Record, thread: Thread) -> None:
        """Write a turn and how its conversation stands with it, in one transaction.

        An answer of no thread that the turn follows becomes the thread's first. A private turn leaves
        nothing but its record: branches have names that the user wrote.
        """
        row = row_of(record)
        self._write(lambda connection: statements.insert_turn(connection, record, row, thread))

    def _write(self, insert: Callable[[sqlite3.Connection], None]) -> None:
        self._database.run(insert)
        self._database.run(lambda connection: statements.prune(connection, self._max_bytes))

    def move(self, thread: Thread) -> None:
        """Note how a conversation stands now; nothing where none of its turns was kept."""
        self._database.run(lambda connection: statements.update_thread(connection, thread))

    def rename(self, thread_id: str, name: str) -> None:
        """Name a conversation. Raises UsageError where another one has the name, or none of it was kept."""
        is_taken, is_done = self._database.run(
            lambda connection: statements.rename_thread(connection, thread_id, name)
        )
        if is_taken:
            raise UsageError(f"another conversation is named {name!r}", "choose another name")
        if not is_done:
            raise UsageError("this conversation is not kept", "a turn that is recorded begins it")

    def remove(self, ids: Sequence[str]) -> int:
        """Remove records by their whole ids; returns how many there were."""
        marks = ", ".join("?" * len(ids))
        return self._remove(f"id IN ({marks})", ids)

    def remove_before(self, created_at: float) -> int:
        return self._remove("created_at < ?", [created_at])

    def remove_all(self) -> int:
        return self._remove("1", [])

    def _remove(self, where: str, values: Sequence[object]) -> int:
        return self._database.run(lambda connection: statements.remove_records(connection, where, values))

    # --- reading -------------------------------------------------------------------------------

    def id_of(self, id_or_prefix: str) -> str:
        """The id of a record, sound or damaged, of which `id_or_prefix` is it or a beginning that no other id
        has. Raises UsageError."""
        id_or_prefix = _without_ellipsis(id_or_prefix)
        found = self._database.run(
            lambda connection: statements.select_ids(connection, "records", id_or_prefix)
        )
        if not found:
            raise UsageError(f"no record {id_or_prefix!r}", "`infer records list` shows their ids")
        if len(found) > 1:
            raise UsageError(f"{id_or_prefix!r} begins several records: {_listed(found)}", _WRITE_MORE)
        return found[0]

    def get(self, id_or_prefix: str) -> Record:
        """A record by its id or a beginning that no other id has.

        Raises UsageError, and UnexpectedFailure for one that is damaged.
        """
        return self._record(self.id_of(id_or_prefix))

    def find(self, text: str) -> Record | Thread:
        """A record or a conversation by its id, its name, or the beginning of an id that no other has.

        Raises UsageError, and UnexpectedFailure for one that is damaged.
        """
        text = _without_ellipsis(text)
        records, threads = self._database.run(lambda connection: statements.select_named(connection, text))
        found = [*threads, *records]
        if not found:
            raise UsageError(
                f"no record or conversation {text!r}", "`infer records list` shows the ids of both"
            )
        if len(found) > 1:
            raise UsageError(f"{text!r} begins several ids: {_listed(found)}", _WRITE_MORE)
        if records:
            return self._record(records[0])
        thread = self.thread(threads[0])
        if thread is None:
            raise UnexpectedFailure(
                f"conversation {threads[0]} is damaged", "name one of its records: `infer records list`"
            )
        return thread

    def _record(self, record_id: str) -> Record:
        """A record by its whole id, which is there."""
        rows = self._database.run(
            lambda connection: statements.select_records(
                connection, "id = ?", [text_value(record_id)], "LIMIT 1"
            )
        )
        if not rows:
            raise UsageError(f"no record {record_id!r}", "another process has just removed it")
        ((_, found),) = rows
        if isinstance(found, Damaged):
            raise UnexpectedFailure(
                f"record {record_id} is damaged: {found.why}",
                f"the others can be read; `infer records rm {record_id}` removes it",
            )
        return found

    def thread(self, thread_id: str) -> Thread | None:
        """A conversation by its whole id; None where there is none, or it is damaged."""
        found = self._database.run(
            lambda connection: statements.select_threads(connection, "id = ?", [text_value(thread_id)])
        )
        sound = self._sound(enumerate(found))
        return sound[0][1] if sound else None

    def threads(self, limit: int) -> list[ThreadSummary]:
        """Conversations, the one that was used last first."""
        found = self._database.run(lambda connection: statements.select_last_threads(connection, limit))
        summaries = (self._summary(thread) for _, thread in self._sound(enumerate(found)))
        return [summary for summary in summaries if summary is not None]

    def _summary(self, thread: Thread) -> ThreadSummary | None:
        """A line about a conversation; None where none of its records can be read."""
        first_rows, last_rows, n_turns = self._database.run(
            lambda connection: statements.select_ends(connection, thread, _SUMMARY_STEP)
        )
        first, last = self._sound(first_rows), self._sound(last_rows)
        if not first or not last:
            return None
        asked = [message.text for message in first[0][1].messages or () if message.role == "user"]
        return ThreadSummary(thread, last[0][1].created_at, n_turns, (asked[-1] if asked else "") or "")

    def backwards(self) -> Iterator[Record]:
        """All records, newest first. No transaction is open between two of them."""
        before = 2**62
        while True:

            def select(connection: sqlite3.Connection, seq: int = before) -> statements.Rows:
                return statements.select_before(connection, seq, _BACK_STEP)

            rows = self._database.run(select)
            yield from (record for _, record in self._sound(rows))
            if len(rows) < _BACK_STEP:
                return
            before = rows[-1][0]

    def newest(
        self,
        limit: int,
        *,
        search: str | None = None,
        models: Sequence[str] = (),
        thread: str | None = None,
        since: float | None = None,
    ) -> list[Record]:
        """Records, newest first. `search`: each of its words is in the prompt or the reply.

        `models`: names of which one is its model's, none: of any. `since` is in Unix seconds.
        """
        rows = self._database.run(
            lambda connection: statements.select_newest(connection, limit, search, models, thread, since)
        )
        return [record for _, record in self._sound(rows)]

    def export(self, *, thread: str | None = None) -> Iterator[Record]:
        """All records, or a thread's, oldest first. No transaction is open between two of them."""
        last = 0
        while True:

            def select(connection: sqlite3.Connection, after: int = last) -> statements.Rows:
                return statements.select_after(connection, after, _EXPORT_STEP, thread)

            rows = self._database.run(select)
            yield from (record for _, record in self._sound(rows))
            if len(rows) < _EXPORT_STEP:
                return
            last = rows[-1][0]

    def _sound(self, rows: Iterable[tuple[int, T | Damaged]]) -> list[tuple[int, T]]:
        """Rows without the damaged ones, of which the first few are named."""
        sound: list[tuple[int, T]] = []
        for number, found in rows:
            if not isinstance(found, Damaged):
                sound.append((number, found))
            elif found.name not in self._left_out:
                self._left_out[found.name] = found.why
                if len(self._left_out) <= _MOST_NAMED:
                    self._warn(f"{found.name} is damaged and left out: {found.why}")
        return sound


def _without_ellipsis(text: str) -> str:
    """An id as it was typed, or copied from where it was cut short."""
    return text.strip().removesuffix("…")


def _listed(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
