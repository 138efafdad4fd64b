"""What a batch keeps on disk: the output, its journal, and who was under way at a crash."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from infer_cli.batch import resume
from infer_cli.batch.in_flight import Flight, after_crash, note_crash
from infer_cli.batch.job import Shard, job_dir, job_path
from infer_cli.batch.job_reading import read_job
from infer_cli.batch.ordered import OrderedOutput, journal_entry, read_journal
from infer_cli.batch.output import FileOutput, Unit
from infer_cli.batch.output_index import OutputIndex, read_output
from infer_cli.errors import UsageError
from infer_cli.system.files import lock


def line(row: int, sample: int = 0, error: object = None) -> bytes:
    value = {"id": "x", "sample": sample, "finish_reason": "stop", "error": error, "row": row}
    return json.dumps({**value, "row_sha256": f"{row:x}"}).encode() + b"\n"


def rows(path: Path) -> list[int]:
    return [json.loads(text)["row"] for text in path.read_bytes().splitlines()]


# --- the output -----------------------------------------------------------------------------------


def test_what_an_output_holds(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(line(4, 0) + line(2) + line(4, 3, {"code": 5}))
    held = read_output(path)
    assert [(row, sample) for row in range(6) for sample in range(4) if held.has(row, sample)] == [
        (2, 0), (4, 0), (4, 3),
    ]  # fmt: skip
    assert (held.rows[4].failed, held.rows[2].failed) == (True, False)
    assert held.finish_reasons == {"stop": 3}
    assert held.n_bytes == path.stat().st_size


@pytest.mark.parametrize("tail", [b'{"id"', line(7)[:-1], b"\0" * 99, b"\0\n\0\n"])
def test_a_broken_end_does_not_count(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "out"
    path.write_bytes(line(1) + tail)
    held = read_output(path)
    assert (list(held.rows), held.n_bytes) == ([1], len(line(1)))
    output = FileOutput(path, held.n_bytes)
    output.complete(Unit(2, 0), line(2))
    output.close()
    assert path.read_bytes() == line(1) + line(2)


@pytest.mark.parametrize("bad", [b"words\n", b"[]\n", b'{"row": -1}\n', b'{"row": 1}\n', b"[" * 9999 + b"\n"])
def test_a_strange_line_inside_is_refused(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "out"
    path.write_bytes(line(1) + bad + line(2))
    with pytest.raises(UsageError, match="line 2"):
        read_output(path)
    path.write_bytes(line(1) + line(1))
    with pytest.raises(UsageError, match="twice"):
        read_output(path)


@pytest.mark.parametrize("kind", ["output", "journal", "flight"])
def test_what_a_full_disk_refuses_is_named(kind: str, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    path = tmp_path / kind
    write: Callable[[], None]
    with open("/dev/full", "wb") as full, contextlib.ExitStack() as opened:
        if kind == "flight":
            flight = Flight(path)
            opened.callback(flight.close)
            os.dup2(full.fileno(), flight._fd)
            write = partial(flight.begin, 7)
        elif kind == "output":
            output = FileOutput(path, 0)
            opened.callback(os.close, output._fd)
            os.dup2(full.fileno(), output._fd)
            write = partial(output.complete, Unit(0, 0), line(0))
        else:
            ordered = OrderedOutput(FileOutput(tmp_path / "out", 0), path)
            opened.callback(ordered._file.close)
            ordered.expect(Unit(0, 0))
            os.dup2(full.fileno(), ordered._file.fileno())
            write = partial(ordered.complete, Unit(1, 0), line(1))
        with pytest.raises(OSError, match="No space left") as caught:
            write()
    assert caught.value.filename == str(path)


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    held = lock(tmp_path / "lock", tmp_path / "out")
    with pytest.raises(UsageError, match="another process"):
        lock(tmp_path / "lock", tmp_path / "out")
    held.release()
    lock(tmp_path / "lock", tmp_path / "out").release()


# --- input order ----------------------------------------------------------------------------------


def test_lines_wait_for_their_turn(tmp_path: Path) -> None:
    path, journal = tmp_path / "out", tmp_path / "waiting"
    ordered = OrderedOutput(FileOutput(path, 0), journal)
    for row in (0, 1, 2, 3):
        assert ordered.expect(Unit(row, 0))
    for row, written in ((2, []), (1, []), (0, [0, 1, 2]), (3, [0, 1, 2, 3])):
        ordered.complete(Unit(row, 0), line(row))
        assert rows(path) == written
    assert journal.stat().st_size == 0
    ordered.close()


@pytest.mark.parametrize("cut", [0, 1, 40, 10_000])
def test_what_waits_is_found_by_the_next_process(tmp_path: Path, cut: int) -> None:
    path, journal = tmp_path / "out", tmp_path / "waiting"
    first = OrderedOutput(FileOutput(path, 0), journal)
    for row in (0, 1, 2, 3):
        first.expect(Unit(row, 0))
    for row in (1, 3):
        first.complete(Unit(row, 0), line(row))
    first.close()
    torn = journal.read_bytes()[: -cut or None]
    journal.write_bytes(torn)
    n_whole = torn.count(b'"id"') if cut != 1 and cut != 40 else 1

    found = resume.find(path, journal)
    assert (len(found.written.rows), len(found.answered.rows)) == (0, n_whole)
    again = OrderedOutput(FileOutput(path, 0), journal)
    todo = [row for row in (0, 1, 2, 3) if again.expect(Unit(row, 0))]
    assert todo == [row for row in (0, 1, 2, 3) if row not in found.answered.rows]
    for row in reversed(todo):
        again.complete(Unit(row, 0), line(row))
    again.close()
    assert rows(path) == [0, 1, 2, 3]


def test_a_line_that_was_written_before_its_journal_was_emptied(tmp_path: Path) -> None:
    path, journal = tmp_path / "out", tmp_path / "waiting"
    first = OrderedOutput(FileOutput(path, 0), journal)
    first.expect(Unit(0, 0))
    first.expect(Unit(1, 0))
    first.complete(Unit(1, 0), line(1))
    kept = journal.read_bytes()
    first.complete(Unit(0, 0), line(0))
    first.close()
    journal.write_bytes(kept)  # as if killed in between
    found = resume.find(path, journal)
    assert found.answered.rows.keys() == {0, 1}
    assert found.written.has(1, 0)


def test_lines_behind_a_gap_go_back_to_the_journal(tmp_path: Path) -> None:
    path, journal = tmp_path / "out", tmp_path / "waiting"
    path.write_bytes(line(0) + line(1, error={"code": 7}) + line(2) + line(3))
    resume.drop(path, journal, lambda found: not found.failed, ordered=True)
    assert rows(path) == [0]
    assert resume.find(path, journal).answered.rows.keys() == {0, 2, 3}
    path.write_bytes(line(0) + line(1, error={"code": 7}) + line(2))
    resume.drop(path, tmp_path / "none", lambda found: not found.failed, ordered=False)
    assert rows(path) == [0, 2]


def test_nothing_is_held_at_first(tmp_path: Path) -> None:
    found = resume.find(tmp_path / "out", tmp_path / "waiting")
    assert found.answered.rows == OutputIndex().rows == {}


# --- crashes --------------------------------------------------------------------------------------


def test_a_row_is_given_up_at_its_second_crash(tmp_path: Path) -> None:
    path = tmp_path / "flight"
    first = Flight(path)
    for row in (1, 2, 3):
        first.begin(row)
    first.end(2)
    first.close()
    assert note_crash(path) == ([1, 3], [])

    second = Flight(path)
    assert second.crashes == {1: 1, 3: 1}
    second.begin(1)
    second.end(1)
    second.begin(3)
    second.close()
    assert note_crash(path) == ([], [3])
    assert Flight(path).crashes == {3: 2}


def test_a_crash_without_rows_is_no_row_s(tmp_path: Path) -> None:
    path = tmp_path / "flight"
    assert note_crash(path) == ([], [])
    flight = Flight(path)
    flight.begin(1)
    flight.end(1)
    flight.close()
    assert note_crash(path) == ([], [])
    assert Flight(path).crashes == {}


def test_failures_count_beyond_a_crash_and_not_beyond_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "flight"
    for crashed, n_failed in ((True, 0), (True, 1), (False, 2), (False, 0)):
        flight = Flight(path)
        assert flight.n_failed == n_failed
        flight.begin(n_failed)
        flight.fail()
        flight.close()
        if crashed:
            note_crash(path)
        assert after_crash(path) == crashed


def test_a_kill_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "flight"
    flight = Flight(path)
    flight.begin(1)
    flight.close()
    path.write_bytes(path.read_bytes() + b"+2")  # torn
    assert Flight(path).crashes == {}
    assert note_crash(path) == ([], [])


def test_a_kill_by_the_system_is_told_from_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "flight"
    for n, killed in enumerate((True, False, True), 1):
        flight = Flight(path)
        flight.begin(4)
        flight.close()
        note_crash(path, killed=killed)
        again = Flight(path)
        assert again.crashes == {4: n}
        assert again.killed == ({4} if killed else set())
        again.close()


@pytest.mark.parametrize(
    "text", ["+" + "9" * 5000, "=1 " + "9" * 5000, "=" + "\u0663" * 3, "+-1", "=1 x", "+1 2 3", "\0" * 99]
)
def test_strange_lines_of_a_flight_say_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "flight"
    path.write_bytes(f"{text}\n!\n".encode())
    assert Flight(path).crashes == {}


@pytest.mark.parametrize(
    "head",
    [
        b'{"row": 1, "sample": 0, "size": %d}' % 10**30,
        b'{"row": 1, "sample": 0, "size": -1}',
        b'{"row": 1.5, "sample": 0, "size": 9}',
        b"[" * 100_000,
        b'{"row": 2, "sample": 0, "size": %d}' % len(line(1)),  # not the row of the line
        b"",
    ],
)
def test_a_strange_journal_ends_where_it_is_strange(tmp_path: Path, head: bytes) -> None:
    journal = tmp_path / "waiting"
    journal.write_bytes(journal_entry(Unit(3, 0), line(3)) + head + b"\n" + line(1))
    assert [unit for unit, _, _ in read_journal(journal)] == [Unit(3, 0)]


# --- the job's file -------------------------------------------------------------------------------

JOB: dict[str, object] = {
    "version": 1, "id": "ab", "created_at": "2026-01-01T00:00:00+00:00",
    "model": {"name": "fake", "sha256": None}, "fingerprint": "0" * 16,
    "engine": {"mode": "canonical", "width": 16}, "width": 16, "window": 4096, "run_seed": None,
    "params": {"temperature": 0.0, "max_tokens": 9, "stop": [], "samples": 1}, "output_format": "infer",
    "ordered": False, "input": "in.jsonl", "n_rows": 3, "rows_sha256": "0", "shard": {"part": 1, "of": 1},
    "given": {"temperature": "0"}, "deadline_s": 3.5,
}  # fmt: skip


def write_job(output: Path, value: object) -> None:
    job_dir(output).mkdir(exist_ok=True)
    job_path(output).write_text(json.dumps(value))


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_job(tmp_path / "out", JOB)
    job = read_job(tmp_path / "out")
    assert job is not None
    job_dir(tmp_path / "other").mkdir()
    job.write(job_path(tmp_path / "other"))
    assert read_job(tmp_path / "other") == job
    write_job(tmp_path / "out", {name: JOB[name] for name in JOB if name not in ("given", "deadline_s")})
    assert read_job(tmp_path / "out") is not None  # of an older version


@pytest.mark.parametrize("name", [name for name in JOB if name != "version"])
def test_a_wrong_type_in_a_job_is_named(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    for bad in (10**30, -1, 0.5, True, None, "x", ["x"], {"x": 1}, {"part": 0, "of": 10**30}, 1e300):
        write_job(out, {**JOB, name: bad})
        try:
            job = read_job(out)
        except UsageError as e:
            assert f"job.json is not a batch's job file: {name} is " in e.message
        else:
            assert type(bad) is type(JOB[name]) or (name, bad) in OTHERS_THAT_ARE_FINE, (bad, job)
    if name not in ("shard", "given", "deadline_s"):
        write_job(out, {other: JOB[other] for other in JOB if other != name})
        with pytest.raises(UsageError, match=f"it has no {name}"):
            read_job(out)


OTHERS_THAT_ARE_FINE: list[tuple[str, object]] = [
    ("run_seed", None), ("given", None), ("deadline_s", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("width", 10**30), ("width", 0), ("window", 2**31), ("n_rows", -1), ("run_seed", 2**32),
        ("surprise", 1), ("shard", {"part": 3, "of": 2}), ("engine", {"mode": "x"}), ("deadline_s", 1e300),
        ("engine", {"mode": "fast", "width": 10**30}), ("model", {"name": 5, "sha256": None}),
        ("given", {"x": 1}), ("given", {"top_k": []}), ("output_format", "x"),
    ],
)  # fmt: skip
def test_a_wrong_value_in_a_job_is_named(tmp_path: Path, name: str, bad: object) -> None:
    write_job(tmp_path / "out", {**JOB, name: bad})
    with pytest.raises(UsageError, match=f"{name} is "):
        read_job(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("temperature", "x"), ("temperature", -1), ("temperature", 10**400), ("top_k", 1.5),
        ("max_tokens", 0), ("stop", "x"), ("stop", [""]), ("stop", [1]), ("system", 5),
        ("samples", 10**30), ("logprobs", -1),
        ("raw", "yes"), ("format", "xml"), ("row_template", 1), ("chat_template", []),
        ("variables", {"a": 1}), ("variables", []), ("overflow", "x"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_of_a_job_is_named(tmp_path: Path, name: str, bad: object) -> None:
    params = JOB["params"]
    assert isinstance(params, dict)
    write_job(tmp_path / "out", {**JOB, "params": {**params, name: bad}})
    with pytest.raises(UsageError, match=rf"params\.{name} is "):
        read_job(tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "can't be read"), ("[" * 100_000, "nested too deeply"), ("[]", "not a batch's job file"),
        ('{"version": NaN}', "NaN is not a JSON number"), ('{"version": 2}', "another version"),
        ('{"version": 1, "width": ' + "9" * 5000 + "}", "can't be read"), ("{}", "not a batch's job file"),
    ],
)  # fmt: skip
def test_what_is_no_job_is_refused(tmp_path: Path, text: str, words: str) -> None:
    job_dir(tmp_path / "out").mkdir()
    job_path(tmp_path / "out").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_job(tmp_path / "out")


@pytest.mark.parametrize("name", ["job.json", "flight", "waiting", "lock"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pipe", "a pipe"),
        ("link", "a link, not a file"),
        ("broken link", "a link to nothing"),
        ("directory", "a directory"),
    ],
)
def test_what_is_no_file_beside_an_output_is_refused(
    tmp_path: Path, name: str, kind: str, words: str
) -> None:
    out = tmp_path / "out"
    job_dir(out).mkdir()
    path, target = job_dir(out) / name, tmp_path / "precious"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(target)
        if kind == "link":
            target.write_text("precious")
    with pytest.raises(UsageError, match=f"{name}: it is {words}"):
        read_job(out)


# --- shards ---------------------------------------------------------------------------------------


def test_each_row_is_in_one_shard() -> None:
    shards = [Shard.parse(f"{i}/3") for i in (1, 2, 3)]
    assert [[row for row in range(7) if shard.has(row)] for shard in shards] == [[0, 3, 6], [1, 4], [2, 5]]
    for text in ("0/3", "4/3", "3", "a/b", "1/", "-1/2"):
        with pytest.raises(UsageError, match="--shard"):
            Shard.parse(text)
