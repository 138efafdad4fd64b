"""The SQL of the record store: each function does one thing on an open connection.

All of them raise what SQLite raises; what a damaged row holds is a `Damaged` among the others.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from infer_cli.records import search
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
from infer_cli.records.record import Record
from infer_cli.records.schema import is_indexed, transaction
from infer_cli.records.thread import Thread

LAST = "last"  # in place of an id: no id is a word

_PRUNE_STEP = 16  # records a transaction
_REMOVE_STEP = 200
_SALVAGE_STEP = 100
_MERGE_PAGES = 500

_SELECT = f"SELECT seq, {', '.join(NAMES)} FROM records WHERE"
_INSERT = f"INSERT INTO records ({', '.join(NAMES)}) VALUES ({', '.join('?' * len(NAMES))})"
_INSERT_NUMBERED = (
    f"INSERT OR IGNORE INTO records (seq, {', '.join(NAMES)}) VALUES (?, {', '.join('?' * len(NAMES))})"
)
_INSERT_THREAD = (
    f"INSERT OR IGNORE INTO threads ({', '.join(THREAD_NAMES)}) VALUES (:{', :'.join(THREAD_NAMES)})"
)


class Damaged(NamedTuple):
    """A row that is no record or conversation: what to call it, and what is wrong with it."""

    name: str
    why: str


Rows = list[tuple[int, "Record | Damaged"]]


# --- writing --------------------------------------------------------------------------------------


def insert_rows(connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
    """Rows as `row_of` makes them, in one transaction: all of them or none."""
    with transaction(connection):
        connection.executemany(_INSERT, rows)


def insert_turn(connection: sqlite3.Connection, record: Record, row: Sequence[Any], thread: Thread) -> None:
    """The row of a turn, and how its conversation stands with it, in one transaction."""
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


def insert_missing(
    connection: sqlite3.Connection, records: Iterator[tuple[int, Record]], threads: Iterable[Thread]
) -> int:
    """Numbered records and conversations, as far as they are not there; returns how many records."""
    n_kept = 0
    while some := list(itertools.islice(records, _SALVAGE_STEP)):
        with transaction(connection):
            for number, record in some:
                row = row_of(record)
                done = connection.execute(_INSERT_NUMBERED, [number, *row])
                if not done.rowcount:  # another process has used the number meanwhile
                    done = connection.execute(_INSERT.replace("INSERT", "INSERT OR IGNORE", 1), row)
                n_kept += done.rowcount
    with transaction(connection):
        connection.executemany(_INSERT_THREAD, map(thread_values, threads))
    return n_kept


def update_thread(connection: sqlite3.Connection, thread: Thread) -> None:
    with transaction(connection):
        connection.execute(
            "UPDATE threads SET branch = :branch, heads = :heads, told = :told WHERE id = :id",
            thread_values(thread),
        )


def rename_thread(connection: sqlite3.Connection, thread_id: str, name: str) -> tuple[bool, bool]:
    """Whether another conversation has the name, and whether this one has it now."""
    with transaction(connection):
        other = connection.execute(
            "SELECT 1 FROM threads WHERE name = ? AND id != ?", [text_value(name), thread_id]
        ).fetchone()
        if other is not None:
            return True, False
        done = connection.execute("UPDATE threads SET name = ? WHERE id = ?", [text_value(name), thread_id])
        return False, done.rowcount > 0


def prune(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Delete the oldest records until the store has no more than `max_bytes`."""
    oldest = "SELECT seq FROM records WHERE seq < (SELECT max(seq) FROM records) ORDER BY seq LIMIT ?"
    while _size(connection).used > max_bytes:
        if not _delete(connection, oldest, [_PRUNE_STEP]):
            break  # the newest record stays, however large
    if _size(connection).file > max_bytes:
        connection.execute("PRAGMA incremental_vacuum").fetchall()


def remove_records(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> int:
    """Delete records for good; returns how many there were."""
    chosen = f"SELECT seq FROM records WHERE {where} ORDER BY seq LIMIT ?"
    n_removed = 0
    while n := _delete(connection, chosen, [*values, _REMOVE_STEP]):
        n_removed += n
    if n_removed:
        _forget_removed(connection)
    return n_removed


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


# --- reading --------------------------------------------------------------------------------------


def select_records(connection: sqlite3.Connection, where: str, values: Sequence[object], rest: str) -> Rows:
    """Records with their numbers."""
    found: Rows = []
    for seq, *row in connection.execute(f"{_SELECT} {where} {rest}", list(values)).fetchall():
        try:
            found.append((seq, record_of_row(row)))
        except DamagedRow as e:
            found.append((seq, Damaged(_name_of(row[NAMES.index("id")], f"record number {seq}"), str(e))))
    return found


def select_before(connection: sqlite3.Connection, seq: int, limit: int) -> Rows:
    """Records before a number, the newest first. Raises DatabaseError where a walk might never end."""
    found = select_records(connection, "seq < ?", [seq, limit], "ORDER BY seq DESC LIMIT ?")
    _check_order([-seq, *(-number for number, _ in found)])
    return found


def select_after(connection: sqlite3.Connection, seq: int, limit: int, thread: str | None) -> Rows:
    """Records after a number, the oldest first. Raises DatabaseError where a walk might never end."""
    where, values = _filter(connection, None, (), thread, None)
    found = select_records(connection, f"seq > ? AND {where}", [seq, *values, limit], "ORDER BY seq LIMIT ?")
    _check_order([seq, *(number for number, _ in found)])
    return found


def select_newest(
    connection: sqlite3.Connection,
    limit: int,
    words: str | None,
    models: Sequence[str],
    thread: str | None,
    since: float | None,
) -> Rows:
    """Records that all that is not None or empty holds for, newest first."""
    where, values = _filter(connection, words, models, thread, since)
    return select_records(connection, where, [*values, limit], "ORDER BY seq DESC LIMIT ?")


def select_threads(
    connection: sqlite3.Connection, where: str, values: Sequence[object]
) -> list[Thread | Damaged]:
    query = f"SELECT {', '.join(THREAD_NAMES)} FROM threads WHERE {where}"
    found: list[Thread | Damaged] = []
    for row in connection.execute(query, list(values)).fetchall():
        try:
            found.append(thread_of_row(row))
        except DamagedRow as e:
            name = _name_of(row[THREAD_NAMES.index("id")], "")
            found.append(Damaged(f"conversation {name}".strip(), str(e)))
    return found


def select_last_threads(connection: sqlite3.Connection, limit: int) -> list[Thread | Damaged]:
    """Conversations, the one that was used last first."""
    last = "(SELECT max(seq) FROM records WHERE thread = threads.id)"
    return select_threads(connection, f"1 ORDER BY {last} DESC LIMIT ?", [limit])


def select_ends(connection: sqlite3.Connection, thread: Thread, limit: int) -> tuple[Rows, Rows, int]:
    """The first and the last records of a conversation, up to `limit` each, outer ones first; and how many
    turns the branch in use has."""
    of_thread: list[object] = [thread.id, limit]
    head = connection.execute(
        "SELECT turn FROM records WHERE id = ?", [thread.heads.get(thread.branch)]
    ).fetchone()
    return (
        select_records(connection, "thread = ?", of_thread, "ORDER BY seq LIMIT ?"),
        select_records(connection, "thread = ?", of_thread, "ORDER BY seq DESC LIMIT ?"),
        head[0] if head is not None and isinstance(head[0], int) else 0,
    )


def select_ids(connection: sqlite3.Connection, table: str, text: str) -> list[str]:
    """The id that is `text`, else up to 4 that begin with it; of `last` that of the newest record."""
    if text == LAST:
        newest = "SELECT id FROM records ORDER BY seq DESC LIMIT 1"
        return _ids(connection, newest, []) if table == "records" else []
    exact = _ids(connection, f"SELECT id FROM {table} WHERE id = ? LIMIT 1", [text_value(text)])
    if exact or not text:
        return exact
    bounds = [text_value(text), text_value(text) + "\U0010ffff"]
    return _ids(connection, f"SELECT id FROM {table} WHERE id >= ? AND id < ? ORDER BY id LIMIT 4", bounds)


def select_named(connection: sqlite3.Connection, text: str) -> tuple[list[str], list[str]]:
    """Ids of records and of conversations: of the one that is named `text`, else of those that begin so."""
    records = select_ids(connection, "records", text)
    if records == [text]:
        return records, []
    threads = _ids(
        connection,
        "SELECT id FROM threads WHERE id = ? OR name = ? ORDER BY id = ? DESC LIMIT 1",
        [text_value(text)] * 3,
    )
    return ([], threads) if threads else (records, select_ids(connection, "threads", text))


def _ids(connection: sqlite3.Connection, query: str, values: Sequence[object]) -> list[str]:
    found = connection.execute(query, list(values)).fetchall()
    return [value for (value,) in found if isinstance(value, str)]


def _filter(
    connection: sqlite3.Connection,
    words: str | None,
    models: Sequence[str],
    thread: str | None,
    since: float | None,
) -> tuple[str, list[object]]:
    clauses: list[str] = []
    values: list[object] = []
    if models:
        clauses.append(f"model IN ({', '.join('?' * len(models))})")
        values += map(text_value, models)
    if thread is not None:
        clauses.append("thread = ?")
        values.append(text_value(thread))
    if since is not None:
        clauses.append("created_at >= ?")
        values.append(since)
    if words is not None:
        clause, patterns = search.condition(words, indexed=is_indexed(connection))
        clauses.append(clause)
        values += map(text_value, patterns)
    return " AND ".join(clauses) or "1", values


def _check_order(numbers: Sequence[int]) -> None:
    """Raises DatabaseError unless `numbers` ascend."""
    if any(a >= b for a, b in itertools.pairwise(numbers)):
        raise sqlite3.DatabaseError("its rows are not in order")


def _name_of(value: object, otherwise: str) -> str:
    """What to call a damaged row: its id, if that is one."""
    if isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable():
        return f"record {value}" if otherwise else value
    return otherwise
