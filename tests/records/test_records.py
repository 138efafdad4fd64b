from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.answering.reply import as_json as reply_json
from infer_cli.errors import UnexpectedFailure, UsageError
from infer_cli.records import database, schema, statements, store
from infer_cli.records.compare import Difference, TokenDifference, compare
from infer_cli.records.record import (
    Adapter,
    Evaluated,
    ModelFile,
    Place,
    Record,
    as_json,
    continues,
    evaluated,
    model_files,
    pack_ids,
    record_of,
    reply_of,
    segments_of,
    unpack_ids,
)
from infer_cli.records.schema import MIGRATIONS, has_fts5, migrate, user_version
from infer_cli.records.search import condition
from infer_cli.records.store import Store, keep, store_path
from infer_cli.records.thread import Thread, Told
from infer_cli.settings.origins import Setting
from infer_cli.text.reasoning import TagPair
from infer_cli.types import (
    ChoiceScore,
    EngineIdentity,
    Message,
    ModelIdentity,
    Reply,
    Segment,
    Timings,
    Usage,
)
from tests.cli_helpers import REPO

ROOT = REPO


def reply(**changes: object) -> Reply:
    whole = Reply(
        id="00c0ffee00c0ffee",
        custom_id=None,
        sample=0,
        text="Because of Rayleigh scattering.",
        reasoning="hm",
        tokens=(7, 8, 2**31 - 1),
        logprobs=None,
        finish_reason="stop",
        digest="sha256:aa",
        usage=Usage(3, 0, 3),
        timings=Timings(0.2, 0.0, 0.12, 0.21, float("inf"), 140.0),
        run_seed=5,
        seed=6,
        mode="canonical",
        promise="canonical",
        probed=False,
        params={"temperature": 0.8, "max_tokens": 1024, "stop": ["secret stop"], "choices": ["secret"]},
        model=ModelIdentity("m", "ab"),
        engine=EngineIdentity("1", "b1", "f0", {"infer": "1", "llama_cpp": "b1"}),
        truncation={"policy": "oldest", "dropped_tokens": 3, "dropped": []},
        choices=(ChoiceScore("a secret choice", (7, 8), -1.5, 1.0), ChoiceScore("no", (9,), -math.inf, 0.0)),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def record(path: Path, *, private: bool = False, **changes: object) -> Record:
    """A record with every field set, of a model file at `path`."""
    path.write_bytes(b"GGUF")
    return record_of(
        reply(**changes),
        kind="chat",
        prompt_ids=(1001, 2002, 3003, 4004),
        prompt_text="<user>Why is the sky blue?",
        messages=[Message("user", "Why is the sky blue?", {"name": "Ann"})],
        model_path=path,
        template_sha256="cd",
        settings=[
            Setting("temperature", 0.8, "--temperature"),
            Setting("stop", ["secret stop"], "--stop"),
        ],
        width=1,
        n_ctx=512,
        adapters=[Adapter("/a.gguf", 0.5)],
        reasoning_pairs=[TagPair("<think>", "</think>")],
        open_reasoning=TagPair("<think>", "</think>"),
        history=[Evaluated("prefill", 3), Evaluated("decode", 1)],
        place=Place("talk", "before", 3, 1, {"dropped": [2], "summary": None, "cuts": []}),
        private=private,
    )


def plain(record_id: str, prompt: str = "", text: str = "", **more: object) -> Record:
    return replace(Record(record_id, "run", time.time(), prompt=prompt, text=text), **more)  # type: ignore[arg-type]


def turn(record_id: str, parent: str | None, number: int, thread: str = "t", **more: object) -> Record:
    said = (Message("user", f"asked {record_id}"),)
    return plain(
        record_id, "", "", kind="chat", thread=thread, parent=parent, turn=number, messages=said, **more
    )


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "records.sqlite"


@pytest.fixture
def opened(path: Path, warnings: list[str]) -> Iterator[Store]:
    with Store.open(path, warnings.append) as store:
        yield store


# --- a record -------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(opened: Store, path: Path, tmp_path: Path) -> None:
    written = replace(
        record(tmp_path / "m.gguf"), custom_id="row 1", error={"code": 1, "message": "x"}, output="/o.jsonl"
    )
    unset = [f.name for f in fields(Record) if getattr(written, f.name) in (None, (), {})]
    assert unset == []
    assert opened.add(written) == written.id
    opened.close()
    with Store.open(path, pytest.fail) as again:
        assert again.get(written.id) == replace(
            written, timings={**(written.timings or {}), "prefill_tps": None}
        )


def test_a_record_holds_what_a_reply_shows(tmp_path: Path) -> None:
    public, shown = as_json(record(tmp_path / "m.gguf")), reply_json(reply())
    different = {key for key in shown if key != "logprobs" and public[key] != shown[key]}
    assert different == {"model", "engine"}  # these say more than the reply's
    for part in ("model", "engine"):
        ours, its = public[part], shown[part]
        assert isinstance(ours, dict) and isinstance(its, dict)
        assert {key: ours[key] for key in its} == its


def test_what_a_run_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    made = record_of(
        reply(text=None),
        prompt_ids=(1, 2),
        prompt_text="x",
        messages=None,
        model_path=tmp_path / "m.gguf",
        template_sha256=None,
        settings=[],
        width=1,
        n_ctx=256,
    )
    assert made.history == (Evaluated("prefill", 2),)
    assert made.text_sha256 is None
    stat = (tmp_path / "m.gguf").stat()
    assert made.model_files == (ModelFile(str(tmp_path / "m.gguf"), 4, stat.st_mtime_ns),)


def test_a_private_record_has_no_content(opened: Store, path: Path, tmp_path: Path) -> None:
    whole, private = record(tmp_path / "m.gguf"), record(tmp_path / "m.gguf", private=True)
    opened.add(private)
    kept = opened.get(private.id)
    assert kept.private and not whole.private
    assert (kept.digest, kept.prompt_sha256, kept.text_sha256) == (
        whole.digest, whole.prompt_sha256, whole.text_sha256,
    )  # fmt: skip
    opened.close()
    written = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for secret in (
        b"sky blue",
        b"Rayleigh",
        b"secret stop",
        b"secret choice",
        b'"secret"',
        b"hm\x00",
        pack_ids((7, 8, 2**31 - 1)),
        pack_ids((1001, 2002)),
    ):
        assert secret not in written


def test_a_reply_comes_back_from_its_record(opened: Store, tmp_path: Path) -> None:
    opened.add(record(tmp_path / "m.gguf", logprobs=None, timings=Timings(0.2, 0.0, None, 0.21, None, 140.0)))
    kept = reply_of(opened.get("00c0ffee00c0ffee"))
    whole = reply(timings=Timings(0.2, 0.0, None, 0.21, None, 140.0))
    assert kept == whole


def test_an_evaluation_as_a_record_has_it(tmp_path: Path) -> None:
    made = record(tmp_path / "m.gguf")
    segments = segments_of(made)
    assert segments == (Segment("prompt", (1001, 2002, 3003)), Segment("decoded", (4004,)))
    assert evaluated(segments) == made.history
    assert continues(made) and not continues(replace(made, history=made.history[:1]))


@given(st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_token_ids_as_bytes(ids: list[int]) -> None:
    assert unpack_ids(pack_ids(ids)) == tuple(ids)
    assert len(pack_ids(ids)) == 4 * len(ids)


def test_a_name_that_is_not_utf8(opened: Store) -> None:
    opened.add(plain("a", model=os.fsdecode(b"m\xff"), output=os.fsdecode(b"/o\xff")))
    assert opened.get("a").output == os.fsdecode(b"/o\xff")
    assert opened.newest(1, models=[os.fsdecode(b"m\xff")])[0].model == "m\\udcff"


def test_a_batch_is_one_record(opened: Store) -> None:
    opened.add(Record("b1", "batch", 0.0, model="m", output="/tmp/out.jsonl"))
    assert opened.get("b1") == Record("b1", "batch", 0.0, model="m", output="/tmp/out.jsonl")


# --- reading and removing -------------------------------------------------------------------------


def test_get_takes_a_prefix_that_is_unique(opened: Store) -> None:
    opened.add_all([plain("ab12"), plain("ab12-1"), plain("ab13"), plain("c%")])
    assert opened.get("ab12").id == "ab12"
    assert opened.get("ab13").id == "ab13"
    assert opened.get("c").id == "c%"
    assert opened.get("c…").id == "c%"  # copied from where it was cut short
    for unknown in ("", "b", "%", "AB12"):
        with pytest.raises(UsageError, match="no record"):
            opened.get(unknown)
    with pytest.raises(UsageError, match=r"begins several records: ab12, ab12-1, ab13$"):
        opened.get("ab1")


def test_newest_filters(opened: Store) -> None:
    opened.add(plain("a", model="m", thread="t", created_at=10.0))
    opened.add(plain("b", model="n", thread="t", created_at=20.0))
    opened.add(plain("c", model="m", created_at=30.0))

    def ids(limit: int = 9, **chosen: object) -> str:
        return "".join(r.id for r in opened.newest(limit, **chosen))  # type: ignore[arg-type]

    assert (ids(), ids(2)) == ("cba", "cb")
    assert (ids(models=["m"]), ids(thread="t"), ids(since=20.0)) == ("ca", "ba", "cb")
    assert (ids(models=["n", "m"]), ids(models=["n", "none"])) == ("cba", "b")
    assert ids(models=["m"], thread="t", since=11.0) == ""


def test_export_is_oldest_first_and_in_pieces(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_EXPORT_STEP", 3)
    opened.add_all([plain(f"{i}", thread="odd" if i % 2 else None) for i in range(9)])
    assert [r.id for r in opened.export()] == list("012345678")
    assert [r.id for r in opened.export(thread="odd")] == list("1357")


def test_remove(opened: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "_REMOVE_STEP", 2)
    opened.add_all([plain(f"{i}", "confidential", created_at=float(i)) for i in range(9)])
    assert opened.remove(["1", "none"]) == 1
    assert opened.remove_before(4.0) == 3
    assert [r.id for r in opened.export()] == list("45678")
    assert opened.remove_all() == 5
    assert opened.newest(9, search="confidential") == []
    opened.close()
    assert b"confidential" not in b"".join(file.read_bytes() for file in path.parent.iterdir())


def test_an_id_is_taken_once(opened: Store) -> None:
    opened.add(plain("a", text="first"))
    with pytest.raises(UnexpectedFailure, match="UNIQUE"):
        opened.add_all([plain("b"), plain("a", text="second")])
    assert [(r.id, r.text) for r in opened.export()] == [("a", "first")]


# --- conversations --------------------------------------------------------------------------------


def test_a_turn_and_where_its_conversation_stands(opened: Store) -> None:
    opened.add_turn(turn("a", None, 1), Thread("t", "main", {"main": "a"}))
    opened.add_turn(turn("b", "a", 2), Thread("t", "x", {"main": "a", "x": "b"}))
    assert opened.thread("t") == Thread("t", "x", {"main": "a", "x": "b"})
    opened.move(Thread("t", "empty", {"main": None, "x": "b", "empty": None}))
    assert opened.thread("t") == Thread("t", "empty", {"main": None, "x": "b", "empty": None})
    told = Told("fake", "Be brief.", (Setting("top_k", 5, "/set"),))
    opened.move(Thread("t", "empty", {"main": None}, told=told))
    assert opened.thread("t") == Thread("t", "empty", {"main": None}, told=told)
    opened.move(Thread("t", "empty", {"main": None, "x": "b", "empty": None}))
    opened.move(Thread("none", "main", {}))
    assert opened.thread("none") is None
    with pytest.raises(UnexpectedFailure, match="UNIQUE"):
        opened.add_turn(turn("a", None, 1), Thread("t", "main", {"main": "a"}))
    assert opened.thread("t") == Thread("t", "empty", {"main": None, "x": "b", "empty": None}), "all or none"


def test_only_a_lone_answer_is_taken_into_a_conversation(opened: Store) -> None:
    opened.add_all([plain("run"), plain("other")])
    opened.add_turn(turn("b", "run", 2), Thread("t", "main", {"main": "b"}))
    opened.add_turn(turn("c", "run", 2, thread="u"), Thread("u", "main", {"main": "c"}))
    places = {r.id: (r.thread, r.turn) for r in opened.export()}
    assert places == {"run": ("t", 1), "other": (None, None), "b": ("t", 2), "c": ("u", 2)}


def test_a_private_turn_leaves_only_its_record(opened: Store) -> None:
    opened.add_turn(turn("a", None, 1, private=True), Thread("t", "said by the user", {"main": "a"}))
    assert opened.thread("t") is None and opened.get("a").thread == "t"


def test_names_of_conversations(opened: Store) -> None:
    for i in "ab":
        opened.add_turn(turn(i, None, 1, thread=i * 3), Thread(i * 3, "main", {"main": i}))
    opened.rename("aaa", "mine")
    opened.rename("aaa", "mine")
    with pytest.raises(UsageError, match="another conversation is named 'mine'"):
        opened.rename("bbb", "mine")
    with pytest.raises(UsageError, match="not kept"):
        opened.rename("ccc", "free")
    opened.add_turn(turn("c", "a", 2, thread="aaa"), Thread("aaa", "main", {"main": "c"}))
    assert opened.find("mine") == Thread("aaa", "main", {"main": "c"}, "mine"), "a turn leaves the name"


def test_find(opened: Store) -> None:
    opened.add_all([plain("5c1"), plain("5c22"), plain("d0")])
    opened.add_turn(turn("e1", None, 1, thread="5c2200"), Thread("5c2200", "main", {"main": "e1"}))
    opened.rename("5c2200", "d")
    assert opened.find("5c1") == opened.get("5c1")
    assert opened.find("5c22") == opened.get("5c22"), "whole ids come first"
    assert opened.find("5c220") == opened.find("d") == opened.thread("5c2200"), "then names"
    assert opened.find("d0") == opened.get("d0")
    for unknown in ("", "zz", "%"):
        with pytest.raises(UsageError, match="no record or conversation"):
            opened.find(unknown)
    with pytest.raises(UsageError, match=r"begins several ids: 5c2200, 5c1, 5c22$"):
        opened.find("5c")


def test_the_last_conversations(opened: Store) -> None:
    opened.add_turn(turn("a", None, 1, created_at=1.0), Thread("t", "main", {"main": "a"}))
    opened.add_turn(turn("b", None, 1, "u", created_at=2.0), Thread("u", "main", {"main": "b"}))
    opened.add_turn(turn("c", "a", 2, created_at=3.0), Thread("t", "main", {"main": "c"}))
    assert [(s.thread.id, s.last_at, s.n_turns, s.begins) for s in opened.threads(9)] == [
        ("t", 3.0, 2, "asked a"), ("u", 2.0, 1, "asked b"),
    ]  # fmt: skip
    opened.move(Thread("t", "main", {"main": None}))
    assert [(s.thread.id, s.n_turns) for s in opened.threads(1)] == [("t", 0)]


def test_what_is_left_of_a_removed_conversation(opened: Store) -> None:
    for i, parent in (("a", None), ("b", "a")):
        opened.add_turn(turn(i, parent, 1), Thread("t", "main", {"main": i}))
    opened.rename("t", "confidential")
    assert opened.remove(["a"]) == 1
    assert opened.thread("t") is not None
    assert opened.remove(["b"]) == 1
    assert opened.thread("t") is None


def test_backwards_is_newest_first_and_in_pieces(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_BACK_STEP", 3)
    opened.add_all([plain(f"{i}") for i in range(9)])
    assert [r.id for r in opened.backwards()] == list("876543210")


# --- search ---------------------------------------------------------------------------------------

_TEXTS = {
    "sky": ("Why is the sky blue?", "Rayleigh scattering."),
    "cafe": ("Où est le CAFÉ?", "100% là_bas"),
    "tokyo": ("東京はどこですか", "日本です"),
    "code": ("explain a->b AND c++", 'say "hi" \\ there'),
}


@pytest.fixture(params=["indexed", "not indexed"])
def searched(request: pytest.FixtureRequest, path: Path) -> Iterator[Store]:
    if request.param == "not indexed":
        path.parent.mkdir()
        connection = sqlite3.connect(path, isolation_level=None)
        migrate(connection, MIGRATIONS[:1])
        connection.execute("PRAGMA user_version = 2")  # as by a build without FTS5
        connection.close()
    with Store.open(path, pytest.fail) as store:
        store.add_all([plain(name, *texts) for name, texts in _TEXTS.items()])
        yield store


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("sky", ["sky"]),
        ("BLUE scatter", ["sky"]),
        ("sky cafe", []),
        ("京", ["tokyo"]),
        ("日本 東京", ["tokyo"]),
        ("a->b", ["code"]),
        ("->", ["code"]),
        ("c++", ["code"]),
        ('"hi"', ["code"]),
        ("\\", ["code"]),
        ("100%", ["cafe"]),
        ("%", ["cafe"]),
        ("AND", ["code"]),
        ("NEAR(", []),
        ("prompt:sky", []),
        ("  ", ["code", "tokyo", "cafe", "sky"]),
    ],
)
def test_search(searched: Store, query: str, found: list[str]) -> None:
    assert [r.id for r in searched.newest(9, search=query)] == found


def test_the_index_knows_case_and_accents(opened: Store) -> None:
    opened.add(plain("cafe", *_TEXTS["cafe"]))
    assert [r.id for r in opened.newest(9, search="cafe ou LA")] == ["cafe"]


@given(st.text(max_size=20))
def test_any_query_is_valid_sql(query: str) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    where, values = condition(query, indexed=True)
    safe = [value.encode("utf-8", "backslashreplace").decode() for value in values]
    assert connection.execute(f"SELECT id FROM records WHERE {where}", safe).fetchall() == []
    connection.close()


# --- the file -------------------------------------------------------------------------------------


def test_files_are_the_users_own(opened: Store, path: Path) -> None:
    opened.add(plain("a"))
    names = {file.name for file in path.parent.iterdir()}
    assert {"records.sqlite", "records.sqlite-wal", "records.sqlite-shm"} <= names
    if sys.platform != "win32":
        assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_a_new_store(opened: Store, path: Path) -> None:
    connection = sqlite3.connect(path)
    facts = [
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("user_version", "journal_mode", "auto_vacuum")
    ]
    connection.close()
    assert facts == [len(MIGRATIONS), "wal", 2]


def _older(path: Path, version: int = len(MIGRATIONS) - 1) -> None:
    """A store of an earlier version, with one record."""
    path.parent.mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, MIGRATIONS[:version])
    row = {
        "id": "old",
        "kind": "run",
        "created_at": 1.0,
        "prompt": "sky",
        "sample": 0,
        "probed": 0,
        "private": 0,
    }
    row |= dict.fromkeys(
        ("model_files", "adapters", "settings", "history", "reasoning_pairs"), "[]"
    ) | dict.fromkeys(("engine", "params"), "{}")
    row |= dict.fromkeys(
        ("messages", "open_reasoning", "truncation", "usage", "timings", "error", "output"), "null"
    )
    connection.execute(
        f"INSERT INTO records ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values())
    )
    connection.close()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_earlier_versions_migrate(path: Path, version: int) -> None:
    _older(path, version)
    with Store.open(path, pytest.fail) as opened:
        assert opened.newest(9, search="sky") == [Record("old", "run", 1.0, prompt="sky")]
        opened.add(plain("new", "sky"))
        assert [r.id for r in opened.newest(9, search="sky")] == ["new", "old"]
        opened.add_turn(turn("c", "old", 2), Thread("t", "main", {"main": "c"}))
        assert [(r.id, r.turn) for r in opened.export(thread="t")] == [("old", 1), ("c", 2)]


def test_a_migration_that_fails_leaves_the_version_before(path: Path) -> None:
    _older(path, 1)
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, (MIGRATIONS[0], ("CREATE TABLE extra (x)", "no SQL")))
    assert user_version(connection) == 1
    assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'extra'").fetchall() == []
    connection.close()


_OPEN_AND_ADD = """
import sys, time
from pathlib import Path
from infer_cli.records.record import Record
from infer_cli.records.store import Store
sys.stdin.read()
with Store.open(Path(sys.argv[1]), lambda message: print(message, file=sys.stderr)) as store:
    store.add(Record(sys.argv[2], "run", time.time(), prompt="sky"))
"""


def _at_once(path: Path, n: int) -> list[str]:
    """Open the store from `n` processes at the same moment, each adding one record; what they complain of."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN_AND_ADD, str(path), f"p{i}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(n)
    ]
    time.sleep(0.3)  # until they have imported
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    complaints = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * n, complaints
    return [complaint for complaint in complaints if complaint]


@pytest.mark.parametrize("before", ["nothing", "previous version"])
def test_processes_that_make_or_migrate_at_once(path: Path, before: str) -> None:
    if before == "previous version":
        _older(path)
    assert _at_once(path, 4) == []
    with Store.open(path, pytest.fail) as opened:
        found = {r.id for r in opened.newest(9, search="sky")}
    assert found - {"old"} == {"p0", "p1", "p2", "p3"}


def test_a_newer_version_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE of_the_future (x)")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UnexpectedFailure, match="newer infer") as caught:
        Store.open(path, pytest.fail)
    assert caught.value.hint
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {path.name: before}


def test_an_index_that_this_sqlite_cannot_read(
    opened: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "has_fts5", lambda connection: False)
    with pytest.raises(UnexpectedFailure, match="FTS5"):
        Store.open(path, pytest.fail)


def test_without_fts5_there_is_no_index(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "has_fts5", lambda connection: False)
    with Store.open(path, pytest.fail) as opened:
        opened.add(plain("a", "the sky"))
        assert [r.id for r in opened.newest(1, search="SKY")] == ["a"]
        assert opened.remove_all() == 1
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'search'").fetchall() == []
    assert has_fts5(connection)
    connection.close()


# --- damage ---------------------------------------------------------------------------------------


def _aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob("records.sqlite.damaged-*"))


def test_a_file_that_is_no_database(path: Path, warnings: list[str]) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database " * 1000)
    with Store.open(path, warnings.append) as opened:
        opened.add(plain("a"))
        assert opened.get("a").id == "a"
    (aside,) = _aside(path)
    assert aside.read_bytes() == b"not a database " * 1000
    assert warnings == [f"the record store was damaged: it is now {aside}, and a new one is begun"]


def _overwrite_tables(path: Path) -> None:
    """Leave the header, so that the damage shows only once a table is read."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def test_damage_inside(path: Path, warnings: list[str]) -> None:
    with Store.open(path, warnings.append) as opened:
        opened.add_all([plain(f"{i}", "sky " * 500) for i in range(50)])
    _overwrite_tables(path)
    with Store.open(path, warnings.append) as opened:
        opened.add(plain("after"))
        assert [r.id for r in opened.export()] == ["after"]
    assert len(warnings) == len(_aside(path)) == 1


def test_damage_while_open_takes_the_log_along(opened: Store, path: Path, warnings: list[str]) -> None:
    opened.add_all([plain(f"{i}", "sky " * 500) for i in range(50)])
    with Store.open(path, warnings.append) as other:  # keeps the log alive
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.close()
        _overwrite_tables(path)
        opened.close()
        with Store.open(path, warnings.append) as again:
            again.add(plain("after"))
            assert [r.id for r in again.export()] == ["after"]
        assert other.path == path
    assert len(warnings) == 1
    assert len({file.name.removesuffix("-wal").removesuffix("-shm") for file in _aside(path)}) == 1


def test_several_processes_meet_damage_at_once(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database " * 1000)
    (complaint,) = _at_once(path, 4)
    assert complaint.count("the record store was damaged") == 1
    with Store.open(path, pytest.fail) as opened:
        assert {r.id for r in opened.export()} == {"p0", "p1", "p2", "p3"}
    assert len(_aside(path)) == 1


# --- size -----------------------------------------------------------------------------------------


def test_the_oldest_go_first(path: Path) -> None:
    limit = 400_000
    with Store.open(path, pytest.fail, max_bytes=limit) as opened:
        for i in range(200):
            opened.add(plain(f"{i:03}", f"word{i} " * 500))
        left = [r.id for r in opened.export()]
        assert left == [f"{i:03}" for i in range(200 - len(left), 200)]
        assert 20 < len(left) < 150
        assert opened.newest(9, search="word3") == [] and opened.newest(9, search="word199")
    assert path.stat().st_size <= limit


def test_one_record_larger_than_the_limit(path: Path) -> None:
    with Store.open(path, pytest.fail, max_bytes=100_000) as opened:
        opened.add(plain("small"))
        opened.add(plain("large", "x" * 300_000))
        assert [r.id for r in opened.export()] == ["large"]


# --- keeping an answer ----------------------------------------------------------------------------


def test_keep(warnings: list[str]) -> None:
    keep([plain("a"), plain("b")], warnings.append)
    with Store.open(store_path(), warnings.append) as opened:
        assert [r.id for r in opened.export()] == ["a", "b"]
    assert warnings == []


def test_a_failure_to_keep_is_one_warning(warnings: list[str]) -> None:
    store_path().parent.parent.mkdir(parents=True)
    store_path().parent.write_text("a file where the directory should be")
    keep([plain("a")], warnings.append)
    (warning,) = warnings
    assert warning.startswith("the answer was not recorded: the record store ")


def test_a_record_that_cannot_be_made_is_one_warning(tmp_path: Path, warnings: list[str]) -> None:
    def records() -> Iterator[Record]:
        made = record(tmp_path / "m.gguf")
        (tmp_path / "m.gguf").unlink()
        yield replace(made, model_files=model_files(tmp_path / "m.gguf"))

    keep(records(), warnings.append)
    (warning,) = warnings
    assert warning.startswith("the answer was not recorded: ") and "m.gguf" in warning


def test_a_store_held_by_another_process_is_waited_for(
    opened: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Store.open(path, pytest.fail) as impatient:
        assert list(impatient.export()) == []  # reading does not wait
        began = time.monotonic()
        with pytest.raises(UnexpectedFailure, match="locked"):
            impatient.add(plain("a"))
        assert time.monotonic() - began >= 0.05
        other.execute("COMMIT")
        other.close()
        assert impatient.add(plain("a")) == "a"


# --- comparing ------------------------------------------------------------------------------------


def test_equal_records() -> None:
    a = plain("a", "p", "t", tokens=(1,), digest="d", params={"x": 1})
    same = compare(a, replace(a, id="b", created_at=0.0))
    assert same.same_reply and same.differences == ()
    assert same.prompt is None and same.reply is None


def test_what_differs() -> None:
    a = plain("a", "p", "The cat sat", tokens=(1, 2, 3), digest="d", engine={"threads": 2, "infer": "1"},
              params={"x": 1}, settings=(Setting("x", 1, "default"),))  # fmt: skip
    b = replace(a, tokens=(1, 9), text="The dog", digest="e", engine={"threads": 4, "infer": "1"},
                params={"x": 2, "y": 0}, settings=(Setting("x", 2, "--x"),), prompt_ids=(1,))  # fmt: skip
    found = compare(a, b)
    assert not found.same_reply
    assert found.differences == (
        Difference("params.x", 1, 2),
        Difference("params.y", None, 0),
        Difference("origin.x", "default", "--x"),
        Difference("engine.threads", 2, 4),
    )
    assert found.prompt is None  # one of them is not kept
    assert found.reply == TokenDifference(1, 2, 9, "The cat sat", "The dog")


def test_one_reply_longer() -> None:
    a = plain("a", "p", "x" * 100, tokens=(1, 2), prompt_ids=(5,))
    found = compare(a, replace(a, text="x" * 100 + "yz", tokens=(1, 2, 3)))
    assert found.reply == TokenDifference(2, None, 3, "x" * 30, "x" * 30 + "yz")
