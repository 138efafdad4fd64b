"""The record store: one SQLite file, written by any number of processes at once.

A record is there once `add` has returned, whatever happens to the process after. Knows no command line.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple, TypeVar

from infer_cli.errors import InferError, UnexpectedFailure, UsageError
from infer_cli.records import salvage, search
from infer_cli.records.columns import (
    NAMES,
    THREAD_NAMES,
    DamagedRow,
    record_of_row,
    row_of,
    text_value,
    thread_of_row,
    thread_values,
)
from infer_cli.records.file import BUSY_TIMEOUT_S, file_identity, shows_damage
from infer_cli.records.record import Record
from infer_cli.records.schema import (
    FAILURES,
    MIGRATIONS,
    has_fts5,
    is_indexed,
    migrate,
    readable,
    transaction,
    user_version,
)
from infer_cli.records.thread import Thread, ThreadSummary
from infer_cli.system.files import check_regular
from infer_cli.system.paths import data_dir
from infer_cli.system.private_files import make_private_dir

MAX_BYTES = 512 * 10**6  # of the store; beyond it the oldest records go

_PRUNE_STEP = 16  # records a transaction
_REMOVE_STEP = 200
_EXPORT_STEP = 50
_BACK_STEP = 5
_MERGE_PAGES = 500
_SALVAGE_STEP = 100
_MOST_NAMED = 5  # damaged records, each in a warning of its own
_SUMMARY_STEP = 5

_SELECT = f"SELECT seq, {', '.join(NAMES)} FROM records WHERE"
_INSERT = f"INSERT INTO records ({', '.join(NAMES)}) VALUES ({', '.join('?' * len(NAMES))})"
_INSERT_NUMBERED = (
    f"INSERT OR IGNORE INTO records (seq, {', '.join(NAMES)}) VALUES (?, {', '.join('?' * len(NAMES))})"
)
_INSERT_THREAD = (
    f"INSERT OR IGNORE INTO threads ({', '.join(THREAD_NAMES)}) VALUES (:{', :'.join(THREAD_NAMES)})"
)

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
    and `warn` is told which. A file that turns out to be damaged is renamed to `<name>.damaged-<time>`,
    `warn` is told, and a new one begun with what can be read of it.
    """

    def __init__(self, path: Path, warn: Warn, max_bytes: int) -> None:
        self.path = path
        self._warn = warn
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._left_out: dict[str, str] = {}  # what is damaged, and how

    @classmethod
    def open(cls, path: Path, warn: Warn, *, max_bytes: int = MAX_BYTES) -> Store:
        """Open a store, made if it is not there, migrated if it is older.

        Raises UnexpectedFailure, also for a store that a newer version wrote, which is left as it is.
        """
        store = cls(path, warn, max_bytes)
        store._run(lambda connection: None)
        return store

    def close(self) -> None:
        """Let go of the file, and tell of damaged rows beyond those that were named."""
        n_more = len(self._left_out) - _MOST_NAMED
        if n_more > 0:
            self._warn(f"{n_more} more of the records are damaged and left out")
        self._left_out = dict(list(self._left_out.items())[:_MOST_NAMED])
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

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

        def insert(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany(_INSERT, rows)

        self._run(insert)
        self._run(self._prune)

    def add_turn(self, record: Record, thread: Thread) -> None:
        """Write a turn and how its conversation stands with it, in one transaction.

        An answer of no thread that the turn follows becomes the thread's first. A private turn leaves
        nothing but its record: branches have names that the user wrote.
        """
        row = row_of(record)

        def insert(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.execute(_INSERT, row)
                if record.private:
                    return
                connection.execute(
                    "UPDATE records SET thread = ?, turn = 1 WHERE id = ? AND thread IS NULL",
                    [thread.id, record.parent],
                )
                connection.execute(
                    "INSERT INTO threads (id, branch, heads, told) VALUES (:id, :branch, :heads, :told)"
                    " ON CONFLICT (id)"
                    " DO UPDATE SET branch = excluded.branch, heads = excluded.heads, told = excluded.told",
                    thread_values(thread),
                )

        self._run(insert)
        self._run(self._prune)

    def move(self, thread: Thread) -> None:
        """Note how a conversation stands now; nothing where none of its turns was kept."""

        def update(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.execute(
                    "UPDATE threads SET branch = :branch, heads = :heads, told = :told WHERE id = :id",
                    thread_values(thread),
                )

        self._run(update)

    def rename(self, thread_id: str, name: str) -> None:
        """Name a conversation. Raises UsageError where another one has the name, or none of it was kept."""

        def update(connection: sqlite3.Connection) -> tuple[bool, bool]:
            with transaction(connection):
                other = connection.execute(
                    "SELECT 1 FROM threads WHERE name = ? AND id != ?", [text_value(name), thread_id]
                ).fetchone()
                if other is not None:
                    return True, False
                done = connection.execute(
                    "UPDATE threads SET name = ? WHERE id = ?", [text_value(name), thread_id]
                )
                return False, done.rowcount > 0

        is_taken, is_done = self._run(update)
        if is_taken:
            raise UsageError(f"another conversation is named {name!r}", "choose another name")
        if not is_done:
            raise UsageError("this conversation is not kept", "a turn that is recorded begins it")

    def _prune(self, connection: sqlite3.Connection) -> None:
        oldest = "SELECT seq FROM records WHERE seq < (SELECT max(seq) FROM records) ORDER BY seq LIMIT ?"
        while _size(connection).used > self._max_bytes:
            if not _delete(connection, oldest, [_PRUNE_STEP]):
                break  # the newest record stays, however large
        if _size(connection).file > self._max_bytes:
            connection.execute("PRAGMA incremental_vacuum").fetchall()

    def remove(self, ids: Sequence[str]) -> int:
        """Remove records by their whole ids; returns how many there were."""
        marks = ", ".join("?" * len(ids))
        return self._remove(f"id IN ({marks})", list(ids))

    def remove_before(self, created_at: float) -> int:
        return self._remove("created_at < ?", [created_at])

    def remove_all(self) -> int:
        return self._remove("1", [])

    def _remove(self, where: str, values: list[object]) -> int:
        chosen = f"SELECT seq FROM records WHERE {where} ORDER BY seq LIMIT ?"

        def remove(connection: sqlite3.Connection) -> int:
            n_removed = 0
            while n := _delete(connection, chosen, [*values, _REMOVE_STEP]):
                n_removed += n
            if n_removed:
                _forget_removed(connection)
            return n_removed

        return self._run(remove)

    # --- reading -------------------------------------------------------------------------------

    def id_of(self, id_or_prefix: str) -> str:
        """The id of a record, sound or damaged, of which `id_or_prefix` is it or a beginning that no other id
        has. Raises UsageError."""

        def find(connection: sqlite3.Connection) -> list[str]:
            return _ids_like(connection, "records", id_or_prefix)

        found = self._run(find)
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

        def find(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
            records = _ids_like(connection, "records", text)
            if records == [text]:
                return records, []
            threads = _ids(
                connection,
                "SELECT id FROM threads WHERE id = ? OR name = ? ORDER BY id = ? DESC LIMIT 1",
                [text_value(text)] * 3,
            )
            return ([], threads) if threads else (records, _ids_like(connection, "threads", text))

        records, threads = self._run(find)
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

        def select(connection: sqlite3.Connection) -> list[tuple[int, Record | _Damaged]]:
            return _rows(connection, "id = ?", [text_value(record_id)], "LIMIT 1")

        rows = self._run(select)
        if not rows:
            raise UsageError(f"no record {record_id!r}", "another process has just removed it")
        ((_, found),) = rows
        if isinstance(found, _Damaged):
            raise UnexpectedFailure(
                f"record {record_id} is damaged: {found.why}",
                f"the others can be read; `infer records rm {record_id}` removes it",
            )
        return found

    def thread(self, thread_id: str) -> Thread | None:
        """A conversation by its whole id; None where there is none, or it is damaged."""
        found = self._run(lambda connection: _threads(connection, "id = ?", [text_value(thread_id)]))
        sound = self._sound(enumerate(found))
        return sound[0][1] if sound else None

    def threads(self, limit: int) -> list[ThreadSummary]:
        """Conversations, the one that was used last first."""

        def select(connection: sqlite3.Connection) -> list[Thread | _Damaged]:
            last = "(SELECT max(seq) FROM records WHERE thread = threads.id)"
            return _threads(connection, f"1 ORDER BY {last} DESC LIMIT ?", [limit])

        found = (self._summary(thread) for _, thread in self._sound(enumerate(self._run(select))))
        return [summary for summary in found if summary is not None]

    def _summary(self, thread: Thread) -> ThreadSummary | None:
        """A line about a conversation; None where none of its records can be read."""

        def select(connection: sqlite3.Connection) -> tuple[_Rows, _Rows, object]:
            of_thread: list[object] = [thread.id, _SUMMARY_STEP]
            head = connection.execute(
                "SELECT turn FROM records WHERE id = ?", [thread.heads.get(thread.branch)]
            ).fetchone()
            return (
                _rows(connection, "thread = ?", of_thread, "ORDER BY seq LIMIT ?"),
                _rows(connection, "thread = ?", of_thread, "ORDER BY seq DESC LIMIT ?"),
                None if head is None else head[0],
            )

        first_rows, last_rows, n_turns = self._run(select)
        first, last = self._sound(first_rows), self._sound(last_rows)
        if not first or not last:
            return None
        asked = [message.text for message in first[0][1].messages or () if message.role == "user"]
        n = n_turns if isinstance(n_turns, int) else 0
        return ThreadSummary(thread, last[0][1].created_at, n, (asked[-1] if asked else "") or "")

    def backwards(self) -> Iterator[Record]:
        """All records, newest first. No transaction is open between two of them."""
        before = 2**62
        while True:

            def select(connection: sqlite3.Connection, seq: int = before) -> _Rows:
                found = _rows(connection, "seq < ?", [seq, _BACK_STEP], "ORDER BY seq DESC LIMIT ?")
                return _in_order([-seq, *(-number for number, _ in found)], found)

            rows = self._run(select)
            yield from (record for _, record in self._sound(rows))
            if len(rows) < _BACK_STEP:
                return
            before = rows[-1][0]

    def newest(
        self,
        limit: int,
        *,
        search: str | None = None,
        model: str | None = None,
        thread: str | None = None,
        since: float | None = None,
    ) -> list[Record]:
        """Records, newest first. `search`: each of its words is in the prompt or the reply.

        `since` is in Unix seconds.
        """

        def select(connection: sqlite3.Connection) -> _Rows:
            where, values = _filter(connection, search, model, thread, since)
            return _rows(connection, where, [*values, limit], "ORDER BY seq DESC LIMIT ?")

        return [record for _, record in self._sound(self._run(select))]

    def export(self, *, thread: str | None = None) -> Iterator[Record]:
        """All records, or a thread's, oldest first. No transaction is open between two of them."""
        last = 0
        while True:

            def select(connection: sqlite3.Connection, after: int = last) -> _Rows:
                where, values = _filter(connection, None, None, thread, None)
                found = _rows(
                    connection, f"seq > ? AND {where}", [after, *values, _EXPORT_STEP], "ORDER BY seq LIMIT ?"
                )
                return _in_order([after, *(number for number, _ in found)], found)

            rows = self._run(select)
            yield from (record for _, record in self._sound(rows))
            if len(rows) < _EXPORT_STEP:
                return
            last = rows[-1][0]

    def _sound(self, rows: Iterable[tuple[int, T | _Damaged]]) -> list[tuple[int, T]]:
        """Rows without the damaged ones, of which the first few are named."""
        sound: list[tuple[int, T]] = []
        for number, found in rows:
            if not isinstance(found, _Damaged):
                sound.append((number, found))
            elif found.name not in self._left_out:
                self._left_out[found.name] = found.why
                if len(self._left_out) <= _MOST_NAMED:
                    self._warn(f"{found.name} is damaged and left out: {found.why}")
        return sound

    # --- the file ------------------------------------------------------------------------------

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work`; where that shows the file to be damaged, set it aside and do it on a new one."""
        try:
            try:
                return work(self._connected())
            except FAILURES as e:
                if not shows_damage(e):
                    raise
            aside = self._set_aside()
            if aside is not None:
                n_kept = self._salvage(aside)
                with_what = f" with the {n_kept} records that could be read" if n_kept else ""
                self._warn(
                    f"the record store was damaged: it is now {aside}, and a new one is begun{with_what}"
                )
            return work(self._connected())
        except (*FAILURES, OSError) as e:
            why = e.strerror if isinstance(e, OSError) else e
            raise UnexpectedFailure(f"the record store {self.path}: {why}") from e

    def _salvage(self, aside: Path) -> int:
        """Copy what can be read of a damaged store into the new one; returns how many records."""
        connection = self._connected()
        n_kept = 0
        with salvage.opened(aside) as damaged:
            records = salvage.records_in(damaged)
            while some := list(itertools.islice(records, _SALVAGE_STEP)):
                with transaction(connection):
                    for number, record in some:
                        row = row_of(record)
                        done = connection.execute(_INSERT_NUMBERED, [number, *row])
                        if not done.rowcount:  # another process has used the number meanwhile
                            done = connection.execute(_INSERT.replace("INSERT", "INSERT OR IGNORE", 1), row)
                        n_kept += done.rowcount
            with transaction(connection):
                connection.executemany(_INSERT_THREAD, map(thread_values, salvage.threads_in(damaged)))
        return n_kept

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            make_private_dir(self.path.parent)
            with contextlib.suppress(FileNotFoundError):
                check_regular(self.path)
            with contextlib.suppress(FileExistsError):
                # SQLite gives its -wal and -shm files the same permissions.
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self._file = file_identity(self.path)
            self._connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            try:
                self._prepare(readable(self._connection))
            except BaseException:
                self._disconnect()
                raise
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = user_version(connection)
        if version > len(MIGRATIONS):
            raise UnexpectedFailure(
                f"the record store {self.path} was written by a newer infer"
                f" (schema {version}; this one knows up to {len(MIGRATIONS)})",
                "update infer, or set INFER_HOME to another directory",
            )
        if version < len(MIGRATIONS):
            with self._lock():
                # Before the first table, or it has no effect.
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("PRAGMA journal_mode = WAL")
                migrate(connection)
        if is_indexed(connection) and not has_fts5(connection):
            raise UnexpectedFailure(
                f"the record store {self.path} has a full-text index, and this Python's SQLite has no FTS5",
                "use a Python whose sqlite3 has it, or set INFER_HOME to another directory",
            )
        connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
        connection.execute("PRAGMA secure_delete = ON")

    def _set_aside(self) -> Path | None:
        """Rename the damaged file and what belongs to it; None where another process has done so."""
        damaged = self._file
        self._disconnect()
        with self._lock():
            if file_identity(self.path) != damaged:
                return None
            now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
            aside = self.path.with_name(f"{self.path.name}.damaged-{now}")
            # The log first: a new store beside an old log would take it for its own.
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")
        return aside

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time makes, migrates or sets aside the file."""
        from filelock import FileLock

        with FileLock(f"{self.path}.lock", timeout=BUSY_TIMEOUT_S, mode=0o600):
            yield


class _Size(NamedTuple):
    """Bytes of the database without its log: all pages, and those that hold something."""

    file: int
    used: int


def _size(connection: sqlite3.Connection) -> _Size:
    n_pages, n_free, page_size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return _Size(n_pages * page_size, (n_pages - n_free) * page_size)


def _delete(connection: sqlite3.Connection, chosen: str, values: Iterable[object]) -> int:
    """Delete the records whose `seq` the query `chosen` gives, in one transaction; returns how many."""
    with transaction(connection):
        return connection.execute(f"DELETE FROM records WHERE seq IN ({chosen})", list(values)).rowcount


def _forget_removed(connection: sqlite3.Connection) -> None:
    """Leave nothing of removed records in the index, the file's free pages or the log."""
    if is_indexed(connection):
        # The index keeps a removed record's words until its segments are merged: all of them, in steps.
        pages = -_MERGE_PAGES
        while True:
            before = connection.total_changes
            with transaction(connection):
                connection.execute("INSERT INTO search (search, rank) VALUES ('merge', ?)", [pages])
            if connection.total_changes - before < 2:  # SQLite's sign that nothing was left to do
                break
            pages = _MERGE_PAGES
    connection.execute("PRAGMA incremental_vacuum").fetchall()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _filter(
    connection: sqlite3.Connection,
    words: str | None,
    model: str | None,
    thread: str | None,
    since: float | None,
) -> tuple[str, list[object]]:
    clauses: list[str] = []
    values: list[object] = []
    for clause, value in (("model = ?", model), ("thread = ?", thread)):
        if value is not None:
            clauses.append(clause)
            values.append(text_value(value))
    if since is not None:
        clauses.append("created_at >= ?")
        values.append(since)
    if words is not None:
        clause, patterns = search.condition(words, indexed=is_indexed(connection))
        clauses.append(clause)
        values += map(text_value, patterns)
    return " AND ".join(clauses) or "1", values


class _Damaged(NamedTuple):
    """A row that is no record or conversation: what to call it, and what is wrong with it."""

    name: str
    why: str


_Rows = list[tuple[int, "Record | _Damaged"]]
_WRITE_MORE = "write more of the id"


def _rows(connection: sqlite3.Connection, where: str, values: list[object], rest: str) -> _Rows:
    """Records with their numbers."""
    found: _Rows = []
    for seq, *row in connection.execute(f"{_SELECT} {where} {rest}", values).fetchall():
        try:
            found.append((seq, record_of_row(row)))
        except DamagedRow as e:
            found.append((seq, _Damaged(_name_of(row[NAMES.index("id")], f"record number {seq}"), str(e))))
    return found


def _in_order(numbers: Sequence[int], rows: _Rows) -> _Rows:
    """`rows`. Raises DatabaseError unless `numbers` ascend: a walk over them might never end."""
    if any(a >= b for a, b in itertools.pairwise(numbers)):
        raise sqlite3.DatabaseError("its rows are not in order")
    return rows


def _threads(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> list[Thread | _Damaged]:
    query = f"SELECT {', '.join(THREAD_NAMES)} FROM threads WHERE {where}"
    found: list[Thread | _Damaged] = []
    for row in connection.execute(query, list(values)).fetchall():
        try:
            found.append(thread_of_row(row))
        except DamagedRow as e:
            name = _name_of(row[THREAD_NAMES.index("id")], "")
            found.append(_Damaged(f"conversation {name}".strip(), str(e)))
    return found


def _name_of(value: object, otherwise: str) -> str:
    """What to call a damaged row: its id, if that is one."""
    if isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable():
        return f"record {value}" if otherwise else value
    return otherwise


def _ids_like(connection: sqlite3.Connection, table: str, text: str) -> list[str]:
    """The id that is `text`, else up to 4 that begin with it."""
    exact = _ids(connection, f"SELECT id FROM {table} WHERE id = ? LIMIT 1", [text_value(text)])
    if exact or not text:
        return exact
    bounds = [text_value(text), text_value(text) + "\U0010ffff"]
    return _ids(connection, f"SELECT id FROM {table} WHERE id >= ? AND id < ? ORDER BY id LIMIT 4", bounds)


def _ids(connection: sqlite3.Connection, query: str, values: Sequence[object]) -> list[str]:
    found = connection.execute(query, list(values)).fetchall()
    return [value for (value,) in found if isinstance(value, str)]


def _listed(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
