"""Reads what can still be read of a damaged record store, which it leaves as it is."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from infer_cli.records.columns import NAMES, THREAD_NAMES, DamagedRow, record_of_row, thread_of_row
from infer_cli.records.record import Record
from infer_cli.records.schema import FAILURES, readable
from infer_cli.records.statements import insert_missing
from infer_cli.records.thread import Thread

_STEP = 50  # records a query
_MOST_PROBES = 50_000  # numbers that are tried one by one between what the two ends give
# Columns that older stores have not, as their migrations fill them.
_LATER = {"parent": "NULL", "turn": "NULL", "dropped_turns": "0", "shortened": "'null'", "told": "'null'"}


def copy_sound(path: Path, target: sqlite3.Connection) -> int:
    """Copy what can be read of the damaged store at `path` into another; returns how many records."""
    with opened(path) as damaged:
        return insert_missing(target, records_in(damaged), threads_in(damaged))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A damaged store to be read."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield readable(connection)
    finally:
        connection.close()


def records_in(connection: sqlite3.Connection) -> Iterator[tuple[int, Record]]:
    """The records that can be read, with their numbers, each once: from both ends to where damage begins,
    then one by one between."""
    names = _present(connection, "records", NAMES)
    if not names:
        return
    select = f"SELECT seq, {names} FROM records WHERE"
    first = 0
    for seq, record in _pass(connection, f"{select} seq > ? ORDER BY seq LIMIT {_STEP}", first):
        first = seq
        if record is not None:
            yield seq, record
    last = 2**62
    for seq, record in _pass(connection, f"{select} seq < ? ORDER BY seq DESC LIMIT {_STEP}", last):
        if seq <= first:
            return
        last = seq
        if record is not None:
            yield seq, record
    for seq in range(first + 1, min(last, first + _MOST_PROBES)):
        with contextlib.suppress(*FAILURES, DamagedRow):
            for number, *row in connection.execute(f"{select} seq = ?", [seq]).fetchall():
                if number == seq:
                    yield seq, record_of_row(row)


def threads_in(connection: sqlite3.Connection) -> Iterator[Thread]:
    """The conversations that can be read."""
    names = _present(connection, "threads", THREAD_NAMES)
    if not names:
        return
    with contextlib.suppress(*FAILURES):
        for row in connection.execute(f"SELECT {names} FROM threads"):
            with contextlib.suppress(DamagedRow):
                yield thread_of_row(row)


def _pass(connection: sqlite3.Connection, query: str, start: int) -> Iterator[tuple[int, Record | None]]:
    """Rows from one end on, None for one that is damaged by itself; ends where nothing more can be read."""
    at = start
    with contextlib.suppress(*FAILURES):
        while rows := connection.execute(query, [at]).fetchall():
            for seq, *row in rows:
                if type(seq) is not int or seq == at or (seq > at) != (start == 0):
                    return  # numbers that go back and forth are damage too
                at = seq
                try:
                    record = record_of_row(row)
                except DamagedRow:
                    yield seq, None
                else:
                    yield seq, record


def _present(connection: sqlite3.Connection, table: str, names: tuple[str, ...]) -> str:
    """`names` as a query has them; empty where there is no such table."""
    try:
        found = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    except FAILURES:
        return ""
    if any(name not in found and name not in _LATER for name in names):
        return ""
    return ", ".join(name if name in found else f"{_LATER[name]} AS {name}" for name in names)
