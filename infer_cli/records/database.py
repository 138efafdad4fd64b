"""The record store's file: opened, made, migrated, and set aside where it is damaged. Knows no query."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from infer_cli.errors import UnexpectedFailure
from infer_cli.records import salvage
from infer_cli.records.schema import (
    FAILURES,
    MIGRATIONS,
    has_fts5,
    is_indexed,
    migrate,
    readable,
    user_version,
)
from infer_cli.system.files import check_regular
from infer_cli.system.private_files import make_private_dir

BUSY_TIMEOUT_S = 30.0  # for another process's transaction
_OTHER_TABLES = ("no such table", "no such column", "table ", "duplicate column", "index ", "trigger ")

T = TypeVar("T")


class Database:
    """The SQLite file at `path`, opened when it is first used. Belongs to the thread that uses it.

    A file that turns out to be damaged is renamed to `<name>.damaged-<time>`, `warn` is told, and a new one
    begun with what can be read of it.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn = warn
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None  # of the file that the connection is to

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work`; where that shows the file to be damaged, set it aside and do it on a new one.

        Raises UnexpectedFailure where the disk or SQLite fails, and for a file that a newer version wrote,
        which is left as it is.
        """
        try:
            try:
                return work(self._connected())
            except FAILURES as e:
                if not shows_damage(e):
                    raise
            aside = self._set_aside()
            if aside is not None:
                n_kept = salvage.copy_sound(aside, self._connected())
                with_what = f" with the {n_kept} records that could be read" if n_kept else ""
                self._warn(
                    f"the record store was damaged: it is now {aside}, and a new one is begun{with_what}"
                )
            return work(self._connected())
        except (*FAILURES, OSError) as e:
            why = e.strerror if isinstance(e, OSError) else e
            raise UnexpectedFailure(f"the record store {self._path}: {why}") from e

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            make_private_dir(self._path.parent)
            with contextlib.suppress(FileNotFoundError):
                check_regular(self._path)
            with contextlib.suppress(FileExistsError):
                # SQLite gives its -wal and -shm files the same permissions.
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self._identity = file_identity(self._path)
            self._connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            try:
                self._prepare(readable(self._connection))
            except BaseException:
                self.close()
                raise
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = user_version(connection)
        if version > len(MIGRATIONS):
            raise UnexpectedFailure(
                f"the record store {self._path} was written by a newer infer"
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
                f"the record store {self._path} has a full-text index, and this Python's SQLite has no FTS5",
                "use a Python whose sqlite3 has it, or set INFER_HOME to another directory",
            )
        connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
        connection.execute("PRAGMA secure_delete = ON")

    def _set_aside(self) -> Path | None:
        """Rename the damaged file and what belongs to it; None where another process has done so."""
        damaged = self._identity
        self.close()
        with self._lock():
            if file_identity(self._path) != damaged:
                return None
            now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
            aside = self._path.with_name(f"{self._path.name}.damaged-{now}")
            # The log first: a new store beside an old log would take it for its own.
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self._path}{suffix}", f"{aside}{suffix}")
        return aside

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time makes, migrates or sets aside the file."""
        from filelock import FileLock

        with FileLock(f"{self._path}.lock", timeout=BUSY_TIMEOUT_S, mode=0o600):
            yield


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
