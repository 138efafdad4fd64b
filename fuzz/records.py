"""The record store: its file with bytes changed, and sound files whose rows say what they should not.

`sqlite` is a whole file. `rows` is a JSON list of edits, [column, value] or [column, value, table]: each
is made in one row of a sound store, so all other rows must still be there.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fuzz.mutate import any_value, changed_bytes, changed_value, json_bytes
from fuzz.target import Broken, Input, Target
from infer_cli.errors import ExitStatus, UsageError
from infer_cli.records.record import Adapter, Evaluated, ModelFile, Record, as_json
from infer_cli.records.store import Store
from infer_cli.records.thread import Thread
from infer_cli.settings.origins import Setting
from infer_cli.text.reasoning import TagPair
from infer_cli.types import Message

_N = 6  # records of the sound store
_DAMAGED = 3  # the one that is edited
_COLUMNS = tuple(field.name for field in fields(Record))
_THREADS = ("id", "name", "branch", "heads", "told")


class RecordsTarget(Target):
    name = "records"
    statuses = frozenset({ExitStatus.UNEXPECTED, ExitStatus.USAGE})  # UNEXPECTED: SQLite's own complaint

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._sound = scratch / "sound.sqlite"
        with Store.open(self._sound, _no_warning) as store:
            for i in range(_N):
                store.add_turn(_record(i), Thread("talk", "main", {"main": f"id{i}"}))
        connection = sqlite3.connect(self._sound)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.close()
        self._bytes = self._sound.read_bytes()
        self._folder = scratch / "store"

    def generate(self, rng: random.Random) -> Input:
        if rng.random() < 0.4:
            data = changed_bytes(rng, self._bytes[:100], most=2) + self._bytes[100:]
            if rng.random() < 0.8:
                page = rng.randrange(len(self._bytes) // 4096) * 4096
                changed = changed_bytes(rng, self._bytes[page : page + 4096])[:4096].ljust(4096, b"\0")
                data = self._bytes[:page] + changed + self._bytes[page + 4096 :]
            return Input("sqlite", data)
        if rng.random() < 0.15:
            return Input("rows", json_bytes(rng, [[rng.choice(_THREADS), _column_value(rng), "threads"]]))
        return Input("rows", json_bytes(rng, [[rng.choice(_COLUMNS), _column_value(rng)]]))

    def check(self, given: Input) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        path = self._folder / "records.sqlite"
        edited = given.kind == "rows"
        path.write_bytes(self._bytes if edited else given.data)
        try:
            if edited and not _edit(path, json.loads(given.data)):
                return
        except RecursionError:  # the edits are ours, and only a list of them
            return
        warnings: list[str] = []
        with Store.open(path, warnings.append) as store:
            _read_all(store)
            exported = [record.id for record in store.export()]
            if edited and (missing := {f"id{i}" for i in range(_N) if i != _DAMAGED} - set(exported)):
                raise Broken(f"a damaged row takes others along: {sorted(missing)}")
            store.add(replace(_record(99), thread=None))
            if store.get("id99").text != "text 99":
                raise Broken("a record that was added is another one")


def _read_all(store: Store) -> None:
    for record in (*store.newest(50), *store.newest(9, search="text"), *store.backwards(), *store.export()):
        json.dumps(as_json(record)).encode()
    for thread in store.threads(20):
        json.dumps([thread.thread.id, thread.last_at, thread.n_turns, thread.begins])
    for name in ("id1", f"id{_DAMAGED}", "talk", "id"):
        for find in (store.get, store.find):
            with contextlib.suppress(UsageError):
                find(name)


def _edit(path: Path, edits: list[list[Any]]) -> bool:
    """Whether SQLite takes all of these values."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            for name, value, *table in edits:
                known = name in (_THREADS if table else _COLUMNS)
                where = "threads" if table else f"records WHERE id = 'id{_DAMAGED}'"
                target, _, condition = where.partition(" ")
                if not known:
                    return False
                connection.execute(f"UPDATE {target} SET {name} = ? {condition}", [_sqlite(value)])
    except (sqlite3.Error, OverflowError, UnicodeEncodeError):
        return False
    finally:
        connection.close()
    return True


def _sqlite(value: object) -> object:
    """`{"blob": "…"}` stands for bytes, other lists and objects for their JSON."""
    if isinstance(value, dict) and set(value) == {"blob"}:
        return str(value["blob"]).encode("utf-8", "replace")
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _column_value(rng: random.Random) -> Any:
    choice = rng.random()
    if choice < 0.3:
        return any_value(rng)
    if choice < 0.4:
        return {"blob": "abcde"[: rng.randrange(6)]}
    if choice < 0.5:
        return "[" * rng.choice((1, 20_000))
    return json.dumps(changed_value(rng, [["a", 1, 2], {"role": "user", "content": "x"}, "x", {"a": 1}]))


def _record(i: int) -> Record:
    return Record(
        f"id{i}", "chat", 1.7e9 + i,
        thread="talk", parent=f"id{i - 1}" if i else None, turn=i + 1, custom_id="c",
        model="m", model_sha256="ab", model_files=(ModelFile("/m.gguf", 1, 2),),
        adapters=(Adapter("/a", 0.5),),
        fingerprint="f", engine={"infer": "1"}, mode="canonical", promise="canonical", width=1, n_ctx=512,
        params={"temperature": 0.0}, settings=(Setting("temperature", 0.0, "default"),), prompt=f"prompt {i}",
        messages=(Message("user", "Why?"),), prompt_ids=(1, 2, 3), history=(Evaluated("prefill", 3),),
        reasoning_pairs=(TagPair("<think>", "</think>"),), text=f"text {i}",
        tokens=(4, 5), finish_reason="stop",
        usage={"prompt_tokens": 3, "cached_tokens": 0, "completion_tokens": 2}, timings={}, digest="sha256:0",
    )  # fmt: skip


def _no_warning(text: str) -> None:
    raise Broken(f"a sound store warns: {text}")
