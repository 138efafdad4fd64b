"""A damaged record store: what can be read is served, the rest is named, and nothing ends in a traceback."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from infer_cli.backend.fake import FakeVocab
from infer_cli.cli.records.view import described, markdown_of, table_row
from infer_cli.conversation import continuing
from infer_cli.errors import InferError, UnexpectedFailure
from infer_cli.records import recorded_job
from infer_cli.records.columns import CODECS, NAMES, THREAD_NAMES
from infer_cli.records.compare import compare
from infer_cli.records.record import Record, as_json, is_whole_reply, reply_of
from infer_cli.records.store import Store, store_path
from infer_cli.records.thread import Thread
from tests.cli_helpers import infer, one_error_line

JUNK: list[object] = [
    None, 0, -1, 7, 2**62, 1.5, -1e300, float("inf"), "", "x", "\x1b]0;x\x07", "null", "1", "{}", "[]", "[1]",
    "[[]]", '[["a"]]', '{"a": 1}', '{"stop": 3}', '{"temperature": "x", "max_tokens": 1}', '{"mode": []}',
    '[["threads", {}, "default"]]', '[["overflow", 7, "--overflow"]]', '{"dropped": [], "summary": 1}',
    '{"message": []}', "[" * 50_000, '"\\ud800"', b"", b"\x00", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04",
    "run", "canonical", "stop", "main",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with answers of each kind, as the commands write it: the last one is a lone answer."""
    home = tmp_path_factory.mktemp("home")
    env = {"INFER_HOME": str(home)}
    (home / "rows.txt").write_text("a\nb\n")
    for arguments in (
        ("batch", "-m", "fake", home / "rows.txt", "-o", home / "out.jsonl", "--quiet"),
        ("run", "-m", "fake", "private words", "--private"),
        ("run", "-m", "fake", "the sky", "-t", "1", "--seed", "3", "--stop", "END"),
    ):
        assert infer(*arguments, env=env).code == 0
    assert infer("chat", "-m", "fake", stdin=b"one\ntwo\n/branch b\nthree\n", env=env).code == 0
    assert infer("run", "-m", "fake", "the sea", env=env).code == 0
    path = home / "data" / "records.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    return path


@pytest.fixture
def damaged(whole: Path, own_home: Path) -> Path:
    """A copy to be damaged: the user's own store."""
    store_path().parent.mkdir(parents=True)
    shutil.copyfile(whole, store_path())
    return store_path()


def _change(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    with connection:
        connection.execute(statement, values)
    connection.close()


def _use(path: Path, warn: Callable[[str], None]) -> list[Record]:
    """Do what the commands do with every record and conversation. Nothing but InferError is raised."""
    with Store.open(path, warn) as store:
        found = list(store.export())
        assert {r.id for r in store.newest(100)} == {r.id for r in store.backwards()} == {r.id for r in found}
        store.newest(5, search="sky")
        for record in found:
            (
                described(record),
                markdown_of(record),
                table_row(record),
                as_json(record),
                compare(record, found[0]),
            )
            if is_whole_reply(record):
                reply_of(record)
            for work in (
                lambda r=record: (recorded_job.engine_options(r), recorded_job.job_of(r, FakeVocab())),
                lambda r=record: continuing.find_named(store, r.id),
            ):
                try:
                    work()
                except InferError:
                    continue
        names = [thread.thread.id for thread in store.threads(100)]
        for name in names:
            try:
                assert isinstance(store.find(name), Thread)
                continuing.find_named(store, name)
            except InferError:
                continue
        with contextlib.suppress(InferError):
            continuing.find_latest(store)
    return found


def test_a_whole_store_has_nothing_to_tell(damaged: Path) -> None:
    assert len(_use(damaged, pytest.fail)) == 7


@pytest.mark.parametrize("column", NAMES)
def test_any_column_of_any_record_may_hold_anything(damaged: Path, whole: Path, column: str) -> None:
    """The rows beside it are served as they are."""
    with Store.open(damaged, pytest.fail) as store:
        before = {record.id: record for record in store.export()}
    numbers = range(1, len(before) + 1)
    nullable = column in ("thread", "parent", "turn")
    for n, junk in enumerate(JUNK):
        shutil.copyfile(whole, damaged)
        number = numbers[n % len(numbers)]
        victim = list(before)[number - 1]
        warnings: list[str] = []
        try:
            _change(damaged, f"UPDATE OR IGNORE records SET {column} = ? WHERE seq = ?", junk, number)
        except sqlite3.IntegrityError:
            continue  # a column that can't be null
        found = {record.id: record for record in _use(damaged, warnings.append)}
        assert {i: r for i, r in found.items() if i in before and i != victim} == {
            i: r for i, r in before.items() if i != victim
        }
        if not nullable and victim not in found and column != "id":
            assert len(warnings) >= 1
            assert victim in warnings[0]
            assert column in warnings[0]


@pytest.mark.parametrize("column", THREAD_NAMES)
def test_any_column_of_a_conversation_may_hold_anything(damaged: Path, whole: Path, column: str) -> None:
    for junk in [*JUNK, '{"main": "x", "b": null}', "[1, null, []]", '[null, null, [["stop", 3, "-x"]]]']:
        shutil.copyfile(whole, damaged)
        try:
            _change(damaged, f"UPDATE threads SET {column} = ?", junk)
        except sqlite3.IntegrityError:
            continue
        assert len(_use(damaged, lambda warning: None)) == 7


def test_records_that_lead_in_a_circle(damaged: Path) -> None:
    _change(damaged, "UPDATE records SET parent = id WHERE thread IS NOT NULL")
    with Store.open(damaged, pytest.fail) as store:
        assert continuing.find_named(store, store.threads(1)[0].thread.id).has_gaps


def test_text_that_is_not_utf8(damaged: Path) -> None:
    _change(damaged, "UPDATE records SET text = CAST(x'61ff62' AS TEXT) WHERE seq = 3")
    warnings: list[str] = []
    assert len(_use(damaged, warnings.append)) == 6
    assert all("text: it is not UTF-8" in warning for warning in warnings)


@pytest.mark.parametrize("seed", range(40))
def test_bytes_that_flipped(damaged: Path, seed: int) -> None:
    """Of a few random places, or of a whole stretch."""
    rng = random.Random(seed)
    data = bytearray(damaged.read_bytes())
    for _ in range(rng.choice((1, 3, 30))):
        start = rng.randrange(16, len(data))
        for i in range(start, min(len(data), start + rng.choice((1, 1, 4, 200)))):
            data[i] = rng.randrange(256)
    damaged.write_bytes(data)
    try:
        _use(damaged, lambda warning: None)
        with Store.open(damaged, lambda warning: None) as store:
            store.add(Record("after", "run", 1.0))
            assert store.get("after").id == "after"
    except UnexpectedFailure as e:
        assert str(damaged) in e.message


@pytest.mark.parametrize("content", [b"\0", b"\xa5", b"\x0d"])
def test_what_pages_beside_a_damaged_one_hold_is_served(own_home: Path, content: bytes) -> None:
    path = store_path()
    with Store.open(path, pytest.fail) as store:
        records = [Record(f"r{i:03}", "run", 1.0 + i, text=f"sky {i} " * 100) for i in range(200)]
        store.add_all(records)
    size = path.stat().st_size // 4096
    for page in (size // 4, size // 3, size // 2):
        data = bytearray(path.read_bytes())
        data[page * 4096 : (page + 1) * 4096] = content * 4096
        path.write_bytes(data)
    warnings: list[str] = []
    with Store.open(path, warnings.append) as store:
        found = list(store.export())
        assert len(found) >= 190
        assert [r for r in records if r.id in {f.id for f in found}] == found
        store.add(Record("after", "run", 999.0))
        assert store.newest(1)[0].id == "after"
        assert store.newest(5, search="sky")
    (warning,) = warnings
    assert f"with the {len(found)} records that could be read" in warning
    (aside,) = path.parent.glob("records.sqlite.damaged-*[0-9]Z")
    assert aside.name in warning


def test_the_commands_leave_a_damaged_record_out(damaged: Path) -> None:
    with Store.open(damaged, pytest.fail) as store:
        ids = [record.id for record in store.export()]
    sky, talk = ids[2], ids[-2]
    _change(damaged, "UPDATE records SET params = '[', tokens = 'x' WHERE seq = 3")
    listed = infer("records", "list")
    assert (listed.code, listed.text.count("\n")) == (0, 6)
    assert listed.err == f"warning: record {sky} is damaged and left out: params: it is not JSON\n"
    assert infer("records", "list", "--search", "sea").text.count("\n") == 1
    assert infer("records", "show", ids[-1]).code == 0
    one_error_line(infer("records", "show", sky), 1, sky, "params", f"infer records rm {sky}")
    one_error_line(infer("records", "diff", sky, ids[-1]), 1, sky)
    one_error_line(infer("replay", sky), 1, sky)
    assert infer("replay", ids[-1]).code == 0
    exported = infer("records", "export")
    assert (exported.code, exported.text.count("\n")) == (8, 6)
    assert exported.err.endswith("1 damaged record left out\n")
    one_error_line(infer("chat", "-m", "fake", "--resume", sky, stdin=b"x\n"), 1, sky)
    assert infer("chat", "-m", "fake", "--resume", talk, stdin=b"x\n").code == 0
    removed = infer("records", "rm", sky)
    assert (removed.code, removed.err) == (0, "removed 1 record\n")
    assert infer("records", "export").code == 0


def test_of_many_damaged_records_some_are_named(damaged: Path) -> None:
    _change(damaged, "UPDATE records SET usage = 'x'")
    done = infer("records", "list")
    assert (done.code, done.out) == (0, b"")
    assert done.err.count("is damaged and left out") == 5
    assert "2 more of the records are damaged" in done.err


def test_a_talk_goes_on_without_a_damaged_turn(damaged: Path) -> None:
    with Store.open(damaged, pytest.fail) as store:
        thread = store.threads(1)[0].thread.id
    _change(damaged, "UPDATE records SET history = '[]x' WHERE turn = 1")
    done = infer("chat", "-m", "fake", "--resume", thread, stdin=b"again\n")
    assert (done.code, done.text.count("\n")) == (0, 1)
    assert "turns of this conversation are missing" in done.err


@pytest.mark.parametrize(
    "value",
    [
        '[["A", [1], -1.0]]',
        '[["", [1], -1.0, 1.0]]',
        '[["A", [], -1.0, 1.0]]',
        '[["A", [true], -1.0, 1.0]]',
        '[["A", [1], 0.5, 1.0]]',
        '[["A", [1], NaN, 1.0]]',
        '[["A", [1], -1.0, 1.5]]',
        "{}",
    ],
)
def test_choices_that_were_never_written(value: str) -> None:
    _, decode = CODECS["choices"]
    assert decode('[["A", [1], -Infinity, 0.0], ["B", [2, 3], -0.5, 1.0]]') is not None
    with pytest.raises((ValueError, TypeError)):
        decode(value)


def test_a_record_of_strange_values_is_not_computed(damaged: Path) -> None:
    """Of the right types, but none that llama.cpp would take."""
    with Store.open(damaged, pytest.fail) as store:
        record = store.newest(1)[0]
    strange: list[dict[str, object]] = [
        {"params": {**record.params, "temperature": 1e300}},
        {"engine": {**record.engine, "threads": 10**9}},
        {"engine": {**record.engine, "mode": "odd"}},
        {"engine": {}},
        {"params": {}},
        {"history": ()},
    ]
    for changes in strange:
        changed = dataclasses.replace(record, **changes)  # type: ignore[arg-type]
        with pytest.raises(InferError, match=record.id):
            recorded_job.engine_options(changed)
            recorded_job.job_of(changed, FakeVocab())
