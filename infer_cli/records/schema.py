"""The tables of the record store, as numbered migrations.

`PRAGMA user_version` is the number of the last migration that was applied. A migration that has been
released is never changed; a new one is added behind it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

_RECORDS = (
    """CREATE TABLE records (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival; no number is used twice
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        created_at REAL NOT NULL,
        thread TEXT,
        custom_id TEXT,
        sample INTEGER NOT NULL,
        model TEXT,
        model_sha256 TEXT,
        model_files TEXT NOT NULL,
        adapters TEXT NOT NULL,
        template_sha256 TEXT,
        fingerprint TEXT,
        engine TEXT NOT NULL,
        mode TEXT,
        promise TEXT,
        probed INTEGER NOT NULL,
        width INTEGER,
        n_ctx INTEGER,
        params TEXT NOT NULL,
        settings TEXT NOT NULL,
        run_seed INTEGER,
        seed INTEGER,
        prompt TEXT,
        messages TEXT NOT NULL,
        prompt_ids BLOB,
        history TEXT NOT NULL,
        reasoning_pairs TEXT NOT NULL,
        open_reasoning TEXT NOT NULL,
        text TEXT,
        reasoning TEXT,
        tokens BLOB,
        finish_reason TEXT,
        truncation TEXT NOT NULL,
        usage TEXT NOT NULL,
        timings TEXT NOT NULL,
        digest TEXT,
        error TEXT NOT NULL,
        output TEXT NOT NULL,
        private INTEGER NOT NULL,
        prompt_sha256 TEXT,
        text_sha256 TEXT
    )""",
    "CREATE INDEX records_by_time ON records (created_at)",
    "CREATE INDEX records_by_thread ON records (thread) WHERE thread IS NOT NULL",
)

_FULL_TEXT = (
    """CREATE VIRTUAL TABLE search USING fts5 (
        prompt, text, content = 'records', content_rowid = 'seq', tokenize = 'unicode61 remove_diacritics 2'
    )""",
    """CREATE TRIGGER index_record AFTER INSERT ON records BEGIN
        INSERT INTO search (rowid, prompt, text) VALUES (new.seq, new.prompt, new.text);
    END""",
    """CREATE TRIGGER unindex_record AFTER DELETE ON records BEGIN
        INSERT INTO search (search, rowid, prompt, text) VALUES ('delete', old.seq, old.prompt, old.text);
    END""",
    "INSERT INTO search (search) VALUES ('rebuild')",
)

_THREADS = (
    "ALTER TABLE records ADD COLUMN parent TEXT",
    "ALTER TABLE records ADD COLUMN turn INTEGER",
    "ALTER TABLE records ADD COLUMN dropped_turns INTEGER NOT NULL DEFAULT 0",
    """CREATE TABLE threads (
        id TEXT PRIMARY KEY,
        name TEXT UNIQUE,
        branch TEXT NOT NULL,  -- the one in use
        heads TEXT NOT NULL  -- JSON object: each branch's last record, null where it has no turn
    )""",
    """CREATE TRIGGER forget_thread AFTER DELETE ON records WHEN old.thread IS NOT NULL BEGIN
        DELETE FROM threads
        WHERE id = old.thread AND NOT EXISTS (SELECT 1 FROM records WHERE thread = old.thread);
    END""",
)

_SHORTENED = ("ALTER TABLE records ADD COLUMN shortened TEXT NOT NULL DEFAULT 'null'",)

_TOLD = ("ALTER TABLE threads ADD COLUMN told TEXT NOT NULL DEFAULT 'null'",)

_CHOICES = ("ALTER TABLE records ADD COLUMN choices TEXT NOT NULL DEFAULT 'null'",)

MIGRATIONS = (_RECORDS, _FULL_TEXT, _THREADS, _SHORTENED, _TOLD, _CHOICES)


def migrate(connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> None:
    """Apply the migrations that are missing, each in one transaction. Several processes may do so at once.

    Where SQLite was built without FTS5 the full-text index is left out, for good.
    """
    for number, statements in enumerate(migrations, 1):
        if user_version(connection) >= number:
            continue
        with transaction(connection):
            if user_version(connection) >= number:  # another process was quicker
                continue
            if statements is not _FULL_TEXT or has_fts5(connection):
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction: it has the lock from its start, so it cannot fail half-way for want of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def readable(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Let a store be read whose bytes may be damaged: text that is not UTF-8 comes as lone surrogates, and
    SQLite checks each page that it reads."""
    connection.text_factory = _text_as_it_is
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def _text_as_it_is(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# What a query on a damaged store raises: an error's own text may hold its bytes, which are no UTF-8 then.
FAILURES = (sqlite3.Error, UnicodeDecodeError)


def user_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def is_indexed(connection: sqlite3.Connection) -> bool:
    """Whether the store has a full-text index."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'search'")
    return found.fetchone() is not None


def has_fts5(connection: sqlite3.Connection) -> bool:
    """Whether this build of SQLite can read a full-text index."""
    found = connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'")
    return found.fetchone() is not None
