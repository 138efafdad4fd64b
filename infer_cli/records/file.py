"""The record store's file: whose it is, and what damage looks like."""

from __future__ import annotations

import sqlite3
from pathlib import Path

BUSY_TIMEOUT_S = 30.0  # for another process's transaction


def file_identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def shows_damage(error: Exception) -> bool:
    """Whether the file is no database (SQLITE_NOTADB), a broken one (SQLITE_CORRUPT), or one without what a
    store of its version has.

    The first two alone come as `DatabaseError` itself; Python 3.10 tells no error numbers.
    """
    return type(error) in (sqlite3.DatabaseError, UnicodeDecodeError) or (
        isinstance(error, sqlite3.OperationalError) and str(error).startswith(_OTHER_TABLES)
    )


_OTHER_TABLES = ("no such table", "no such column", "table ", "duplicate column", "index ", "trigger ")
