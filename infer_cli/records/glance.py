"""What there is in the record store, for a shell's Tab: ids and beginnings. Never makes or mends it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

from infer_cli.records.schema import FAILURES, readable
from infer_cli.records.store import store_path

_WAIT_S = 0.5  # for another process's transaction
_MOST_READ = 10_000  # characters of a prompt's messages: what is longer is not shown

_RECORDS = """SELECT id, NULL, created_at, kind, model, iif(length(messages) <= :most, messages, '[]')
    FROM records ORDER BY seq DESC LIMIT :limit"""
# A conversation with its last record's time and its first one's words.
_THREADS = """SELECT threads.id, threads.name, last.created_at, 'chat', last.model,
    iif(length(first.messages) <= :most, first.messages, '[]')
    FROM threads
    JOIN records AS last ON last.seq = (SELECT max(seq) FROM records WHERE thread = threads.id)
    JOIN records AS first ON first.seq = (SELECT min(seq) FROM records WHERE thread = threads.id)
    ORDER BY last.seq DESC LIMIT :limit"""


class Glance(NamedTuple):
    """A record or a conversation, which may have a name. `at`: Unix seconds. `asked`: the user's words."""

    id: str
    name: str | None
    at: float
    kind: str
    model: str
    asked: str


def recent_records(limit: int) -> list[Glance]:
    """The newest records first; none where the store can't be read."""
    return list(_glances(_RECORDS, limit))


def recent_threads(limit: int) -> list[Glance]:
    """Conversations, the one that was used last first; none where the store can't be read."""
    return list(_glances(_THREADS, limit))


def _glances(query: str, limit: int) -> Iterator[Glance]:
    path = store_path()
    if not path.is_file():
        return
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_WAIT_S)
    except sqlite3.Error:
        return
    try:
        rows = readable(connection).execute(query, {"most": _MOST_READ, "limit": limit}).fetchall()
    except FAILURES:  # whoever reads the store for its contents tells of it
        return
    finally:
        connection.close()
    for key, name, at, kind, model, messages in rows:
        if isinstance(key, str) and isinstance(at, float):
            yield Glance(key, name, at, str(kind), str(model or ""), _last_asked(messages))


def _last_asked(messages: object) -> str:
    """What the user said last; empty where that is not kept."""
    try:
        found = json.loads(str(messages))
        asked = [m["content"] for m in found if m["role"] == "user" and isinstance(m["content"], str)]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return asked[-1] if asked else ""
