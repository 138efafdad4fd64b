"""The record store: one SQLite file, written by any number of processes at once.

A record is there once `add` has returned, whatever happens to the process after. Knows no command line.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from infer_cli.errors import InferError, UnexpectedFailure, UsageError
from infer_cli.paths import data_dir
from infer_cli.private_files import make_private_dir
from infer_cli.reasoning import TagPair
from infer_cli.records import search
from infer_cli.records.record import Adapter, Evaluated, ModelFile, Record, pack_ids, unpack_ids
from infer_cli.records.schema import MIGRATIONS, has_fts5, is_indexed, migrate, transaction, user_version
from infer_cli.settings import Setting
from infer_cli.types import Message

MAX_BYTES = 512 * 2**20  # of the store; beyond it the oldest records go
BUSY_TIMEOUT_S = 30.0  # for another process's transaction

_PRUNE_STEP = 16  # records a transaction
_REMOVE_STEP = 200
_EXPORT_STEP = 50
_BACK_STEP = 5
_MERGE_PAGES = 500

if TYPE_CHECKING:
    from infer_cli.records.thread import Thread, ThreadSummary, Told

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

    Every method raises UnexpectedFailure where the disk or SQLite fails. A store that turns out to be
    damaged is renamed to `<name>.damaged-<time>`, `warn` is told, and a new one begun.
    """

    def __init__(self, path: Path, warn: Warn, max_bytes: int) -> None:
        self.path = path
        self._warn = warn
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    @classmethod
    def open(cls, path: Path, warn: Warn, *, max_bytes: int = MAX_BYTES) -> Store:
        """Open a store, made if it is not there, migrated if it is older.

        Raises UnexpectedFailure, also for a store that a newer version wrote, which is left as it is.
        """
        store = cls(path, warn, max_bytes)
        store._run(lambda connection: None)
        return store

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

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
        rows = [_row(record) for record in records]

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
        row = _row(record)

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
                    "INSERT INTO threads (id, branch, heads, told) VALUES (?, ?, ?, ?) ON CONFLICT (id)"
                    " DO UPDATE SET branch = excluded.branch, heads = excluded.heads, told = excluded.told",
                    [thread.id, _text(thread.branch), _json(thread.heads), _json(thread.told)],
                )

        self._run(insert)
        self._run(self._prune)

    def move(self, thread: Thread) -> None:
        """Note how a conversation stands now; nothing where none of its turns was kept."""

        def update(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.execute(
                    "UPDATE threads SET branch = ?, heads = ?, told = ? WHERE id = ?",
                    [_text(thread.branch), _json(thread.heads), _json(thread.told), thread.id],
                )

        self._run(update)

    def rename(self, thread_id: str, name: str) -> None:
        """Name a conversation. Raises UsageError where another one has the name, or none of it was kept."""

        def update(connection: sqlite3.Connection) -> tuple[bool, bool]:
            with transaction(connection):
                other = connection.execute(
                    "SELECT 1 FROM threads WHERE name = ? AND id != ?", [_text(name), thread_id]
                ).fetchone()
                if other is not None:
                    return True, False
                done = connection.execute(
                    "UPDATE threads SET name = ? WHERE id = ?", [_text(name), thread_id]
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

    def get(self, id_or_prefix: str) -> Record:
        """A record by its id or a beginning that no other id has. Raises UsageError."""

        def find(connection: sqlite3.Connection) -> list[Record]:
            exact = _select(connection, "id = ?", [_text(id_or_prefix)], "LIMIT 1")
            if exact or not id_or_prefix:
                return exact
            bounds: list[object] = [_text(id_or_prefix), _text(id_or_prefix) + "\U0010ffff"]
            return _select(connection, "id >= ? AND id < ?", bounds, "ORDER BY id LIMIT 4")

        found = self._run(find)
        if not found:
            raise UsageError(f"no record {id_or_prefix!r}", "`infer records list` shows their ids")
        if len(found) > 1:
            ids = ", ".join(record.id for record in found[:3]) + (", …" if len(found) > 3 else "")
            raise UsageError(f"{id_or_prefix!r} begins several records: {ids}", "write more of the id")
        return found[0]

    def find(self, text: str) -> Record | Thread:
        """A record or a conversation by its id, its name, or the beginning of an id that no other has.

        Raises UsageError.
        """

        def find(connection: sqlite3.Connection) -> Record | Thread | list[str]:
            exact = _select(connection, "id = ?", [_text(text)], "LIMIT 1")
            threads = _threads(connection, "id = ? OR name = ? ORDER BY id = ? DESC", [_text(text)] * 3)
            if exact or threads:
                return exact[0] if exact else threads[0]
            bounds: list[object] = [_text(text), _text(text) + "\U0010ffff"]
            begun: list[Record | Thread] = []
            if text:
                begun += _threads(connection, "id >= ? AND id < ? ORDER BY id LIMIT 4", bounds)
                begun += _select(connection, "id >= ? AND id < ?", bounds, "ORDER BY id LIMIT 4")
            return begun[0] if len(begun) == 1 else [one.id for one in begun]

        found = self._run(find)
        if not isinstance(found, list):
            return found
        if not found:
            raise UsageError(
                f"no record or conversation {text!r}", "`infer records list` shows the ids of both"
            )
        ids = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
        raise UsageError(f"{text!r} begins several ids: {ids}", "write more of the id")

    def thread(self, thread_id: str) -> Thread | None:
        """A conversation by its whole id."""
        found = self._run(lambda connection: _threads(connection, "id = ?", [thread_id]))
        return found[0] if found else None

    def threads(self, limit: int) -> list[ThreadSummary]:
        """Conversations, the one that was used last first."""

        def select(connection: sqlite3.Connection) -> list[ThreadSummary]:
            last = "(SELECT max(seq) FROM records WHERE thread = threads.id)"
            found = _threads(connection, f"1 ORDER BY {last} DESC LIMIT ?", [limit])
            return [_summary(connection, thread) for thread in found]

        return self._run(select)

    def backwards(self) -> Iterator[Record]:
        """All records, newest first. No transaction is open between two of them."""
        before = 2**62
        while True:

            def select(connection: sqlite3.Connection, seq: int = before) -> list[tuple[int, Record]]:
                return _numbered(connection, "seq < ?", [seq, _BACK_STEP], "ORDER BY seq DESC LIMIT ?")

            rows = self._run(select)
            yield from (record for _, record in rows)
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

        def select(connection: sqlite3.Connection) -> list[Record]:
            where, values = _filter(connection, search, model, thread, since)
            return _select(connection, where, [*values, limit], "ORDER BY seq DESC LIMIT ?")

        return self._run(select)

    def export(self, *, thread: str | None = None) -> Iterator[Record]:
        """All records, or a thread's, oldest first. No transaction is open between two of them."""
        last = 0
        while True:

            def select(connection: sqlite3.Connection, after: int = last) -> list[tuple[int, Record]]:
                where, values = _filter(connection, None, None, thread, None)
                return _numbered(
                    connection, f"seq > ? AND {where}", [after, *values, _EXPORT_STEP], "ORDER BY seq LIMIT ?"
                )

            rows = self._run(select)
            yield from (record for _, record in rows)
            if len(rows) < _EXPORT_STEP:
                return
            last = rows[-1][0]

    # --- the file ------------------------------------------------------------------------------

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work`; where that shows the store to be damaged, set it aside and do it on a new one."""
        try:
            try:
                return work(self._connected())
            except sqlite3.DatabaseError as e:
                if not _shows_damage(e):
                    raise
            self._set_aside()
            return work(self._connected())
        except (sqlite3.Error, OSError) as e:
            raise UnexpectedFailure(f"the record store {self.path}: {e}") from e

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            make_private_dir(self.path.parent)
            with contextlib.suppress(FileExistsError):
                # SQLite gives its -wal and -shm files the same permissions.
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self._file = _file_identity(self.path)
            self._connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            try:
                self._prepare(self._connection)
            except BaseException:
                self.close()
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

    def _set_aside(self) -> None:
        """Rename the damaged file and what belongs to it, unless another process has done so."""
        damaged = self._file
        self.close()
        with self._lock():
            if _file_identity(self.path) != damaged:
                return
            now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
            aside = self.path.with_name(f"{self.path.name}.damaged-{now}")
            # The log first: a new store beside an old log would take it for its own.
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")
        self._warn(f"the record store was damaged: it is now {aside}, and a new one is begun")

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time makes, migrates or sets aside the file."""
        from filelock import FileLock

        with FileLock(f"{self.path}.lock", timeout=BUSY_TIMEOUT_S, mode=0o600):
            yield


def _file_identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _shows_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is no database (SQLITE_NOTADB) or a broken one (SQLITE_CORRUPT).

    These two alone come as the base class itself; Python 3.10 tells no error numbers.
    """
    return type(error) is sqlite3.DatabaseError


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
            values.append(_text(value))
    if since is not None:
        clauses.append("created_at >= ?")
        values.append(since)
    if words is not None:
        clause, patterns = search.condition(words, indexed=is_indexed(connection))
        clauses.append(clause)
        values += map(_text, patterns)
    return " AND ".join(clauses) or "1", values


def _select(connection: sqlite3.Connection, where: str, values: list[object], rest: str) -> list[Record]:
    return [record for _, record in _numbered(connection, where, values, rest)]


def _numbered(
    connection: sqlite3.Connection, where: str, values: list[object], rest: str
) -> list[tuple[int, Record]]:
    rows = connection.execute(f"SELECT seq, {_NAMES} FROM records WHERE {where} {rest}", values).fetchall()
    return [(seq, _record(row)) for seq, *row in rows]


def _threads(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> list[Thread]:
    from infer_cli.records.thread import Thread

    names = "id, branch, heads, name, told"
    rows = connection.execute(f"SELECT {names} FROM threads WHERE {where}", list(values)).fetchall()
    return [Thread(i, branch, json.loads(heads), name, _told(told)) for i, branch, heads, name, told in rows]


def _told(value: str) -> Told | None:
    from infer_cli.records.thread import Told

    told = json.loads(value)
    if told is None:
        return None
    model, system, settings = told
    return Told(model, system, tuple(Setting(*setting) for setting in settings))


def _summary(connection: sqlite3.Connection, thread: Thread) -> ThreadSummary:
    from infer_cli.records.thread import ThreadSummary

    (first,) = _select(connection, "thread = ?", [thread.id], "ORDER BY seq LIMIT 1")
    (last_at,) = connection.execute(
        "SELECT created_at FROM records WHERE thread = ? ORDER BY seq DESC LIMIT 1", [thread.id]
    ).fetchone()
    head = connection.execute(
        "SELECT turn FROM records WHERE id = ?", [thread.heads.get(thread.branch)]
    ).fetchone()
    asked = [message.text for message in first.messages or () if message.role == "user"]
    return ThreadSummary(thread, last_at, 0 if head is None else head[0], asked[-1] if asked else "")


# --- values in columns ----------------------------------------------------------------------------


class _Column(NamedTuple):
    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _text(value: str) -> str:
    """SQLite's text is UTF-8, which has no lone surrogates: bytes of a file name that were none."""
    return value.encode("utf-8", "backslashreplace").decode()


def _text_or_none(value: str | None) -> str | None:
    return None if value is None else _text(value)


def _ids(value: Sequence[int] | None) -> bytes | None:
    return None if value is None else pack_ids(value)


def _ids_back(value: bytes | None) -> tuple[int, ...] | None:
    return None if value is None else unpack_ids(value)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _each(make: Callable[..., T]) -> Callable[[str], tuple[T, ...]]:
    return lambda value: tuple(make(*item) for item in json.loads(value))


def _messages_json(value: Sequence[Message] | None) -> str:
    return _json(None if value is None else [asdict(message) for message in value])


def _messages_back(value: str) -> tuple[Message, ...] | None:
    messages = json.loads(value)
    return None if messages is None else tuple(Message(**message) for message in messages)


def _settings_json(value: Sequence[Setting]) -> str:
    return _json([[setting.name, setting.value, setting.origin] for setting in value])


def _tag_pair_back(value: str) -> TagPair | None:
    pair = json.loads(value)
    return None if pair is None else TagPair(*pair)


_CODECS: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    **dict.fromkeys(
        ("id", "thread", "parent", "custom_id", "model", "prompt", "text", "reasoning"),
        (_text_or_none, _same),
    ),
    **dict.fromkeys(
        ("engine", "params", "truncation", "usage", "timings", "error", "output", "shortened"),
        (_json, json.loads),
    ),
    **dict.fromkeys(("prompt_ids", "tokens"), (_ids, _ids_back)),
    **dict.fromkeys(("probed", "private"), (int, bool)),
    "model_files": (_json, _each(ModelFile)),
    "adapters": (_json, _each(Adapter)),
    "history": (_json, _each(Evaluated)),
    "reasoning_pairs": (_json, _each(TagPair)),
    "open_reasoning": (_json, _tag_pair_back),
    "messages": (_messages_json, _messages_back),
    "settings": (_settings_json, _each(Setting)),
}
_COLUMNS = [_Column(f.name, *_CODECS.get(f.name, (_same, _same))) for f in fields(Record)]
_NAMES = ", ".join(column.name for column in _COLUMNS)
_INSERT = f"INSERT INTO records ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))})"


def _row(record: Record) -> list[Any]:
    return [column.encode(getattr(record, column.name)) for column in _COLUMNS]


def _record(row: Sequence[Any]) -> Record:
    pairs = zip(_COLUMNS, row, strict=True)
    return Record(**{column.name: column.decode(value) for column, value in pairs})
