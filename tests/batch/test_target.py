"""Where replies go: the lock, what is there of earlier runs, what is let go before it goes on."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest

from infer_cli.batch.in_flight import note_crash
from infer_cli.batch.job import JobEngine, JobFile, Shard, flight_path, job_path, journal_path
from infer_cli.batch.job_reading import read_job
from infer_cli.batch.ordered import journal_entry
from infer_cli.batch.output import Unit
from infer_cli.batch.target import FileTarget, JobSoFar, StreamTarget, Target
from infer_cli.errors import UsageError
from infer_cli.types import ModelIdentity

JOB = JobFile(
    id="ab",
    created_at="2026-01-01T00:00:00+00:00",
    model=ModelIdentity("fake", None),
    fingerprint="0" * 16,
    engine=JobEngine.of({"mode": "canonical", "width": 16}),
    width=16,
    window=4096,
    run_seed=None,
    params={"max_tokens": 9},
    output_format="infer",
    ordered=False,
    input="in.jsonl",
    n_rows=9,
    rows_sha256="0",
)
OTHER = dataclasses.replace(JOB, params={"max_tokens": 8})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def line(row: int, error: object = None) -> bytes:
    value = {"id": "x", "sample": 0, "finish_reason": "stop", "error": error, "row": row}
    return json.dumps({**value, "row_sha256": f"{row:x}"}).encode() + b"\n"


FAILED = {"code": 7, "message": "late"}


def begin(out: Path, *lines: bytes, job: JobFile = JOB) -> None:
    """As an earlier run would have left it."""
    target = FileTarget(out)
    target.begin(job, target.read(), (), redo=False)
    target.close()
    out.write_bytes(b"".join(lines))


def rows(out: Path) -> list[int]:
    return [json.loads(text)["row"] for text in out.read_bytes().splitlines()]


# --- the lock -------------------------------------------------------------------------------------


def test_an_output_is_one_process_s(out: Path) -> None:
    first = FileTarget(out)
    with pytest.raises(UsageError, match="another process is writing"):
        FileTarget(out)
    first.close()
    FileTarget(out).close()


def test_what_no_batch_has_written_is_left_alone(out: Path) -> None:
    out.write_text("dear diary\n")
    with pytest.raises(UsageError, match="no batch has written it"):
        FileTarget(out)
    assert not Path(f"{out}.job").exists()
    out.unlink()
    target = FileTarget(out)
    out.write_text("dear diary\n")
    with pytest.raises(UsageError, match="written meanwhile"):
        target.read()


def test_no_folder_for_the_job(out: Path) -> None:
    Path(f"{out}.job").write_text("")
    with pytest.raises(UsageError, match="can't be made"):
        FileTarget(out)


# --- what is there --------------------------------------------------------------------------------


def test_a_new_output_holds_nothing(out: Path) -> None:
    so_far = FileTarget(out).read()
    assert so_far.job is None
    assert so_far.written.rows == so_far.answered.rows == {}


def test_what_is_there_of_a_job(out: Path) -> None:
    begin(out, line(0), line(2, FAILED))
    journal_path(out).write_bytes(journal_entry(Unit(5, 0), line(5)))
    so_far = FileTarget(out).read()
    assert so_far.job == JOB
    assert list(so_far.written.rows) == [0, 2]
    assert list(so_far.answered.rows) == [0, 2, 5]


def test_a_job_without_a_reply_binds_nobody(out: Path) -> None:
    begin(out)
    assert FileTarget(out).read().job is None
    target = FileTarget(out.with_name("failed"), retry_errors=True)
    target.begin(JOB, target.read(), (), redo=False)
    out.with_name("failed").write_bytes(line(1, FAILED))
    assert target.read().job is None


def test_failures_are_retried_but_not_after_a_crash(out: Path) -> None:
    begin(out, line(0), line(1, FAILED))
    target = FileTarget(out, retry_errors=True)
    assert list(target.read().answered.rows) == [0]
    flight = target.open_flight()
    flight.begin(4)
    flight.close()
    target.close()
    note_crash(flight_path(out))
    assert list(FileTarget(out, retry_errors=True).read().answered.rows) == [0, 1]


# --- going on -------------------------------------------------------------------------------------


def test_rows_that_changed_are_refused_or_redone(out: Path) -> None:
    begin(out, line(0), line(1), line(2))
    target = FileTarget(out)
    target.check_rows([], redo=False)
    target.check_rows([1], redo=True)
    with pytest.raises(UsageError, match="different now: row 1"):
        target.check_rows([1], redo=False)
    so_far = target.begin(JOB, target.read(), [1], redo=True)
    assert list(so_far.written.rows) == rows(out) == [0, 2]
    assert so_far.job == JOB


def test_the_same_job_goes_on_behind_what_is_there(out: Path) -> None:
    begin(out, line(0), b'{"id": torn')
    target = FileTarget(out)
    more = dataclasses.replace(JOB, n_rows=12)
    before = target.read()
    assert target.begin(more, before, (), redo=False) == before
    assert read_job(out) == more
    output = target.open(before, ordered=False)
    output.complete(Unit(1, 0), line(1))
    output.close()
    assert rows(out) == [0, 1]


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (OTHER, "max_tokens was 9, is 8"),
        (dataclasses.replace(JOB, shard=Shard(1, 2)), "shard was 1/1, is 1/2"),
    ],
)
def test_another_job_is_refused_or_begins_anew(out: Path, job: JobFile, words: str) -> None:
    begin(out, line(0), line(1))
    before, written = out.read_bytes(), job_path(out).read_bytes()
    target = FileTarget(out)
    with pytest.raises(UsageError, match=words):
        target.begin(job, target.read(), (), redo=False)
    assert (out.read_bytes(), job_path(out).read_bytes()) == (before, written)
    so_far = target.begin(job, target.read(), (), redo=True)
    assert so_far.answered.rows == {}
    assert out.read_bytes() == b""
    assert read_job(out) == job


def test_what_is_let_go_of_an_ordered_output_leaves_a_gap(out: Path) -> None:
    ordered = dataclasses.replace(JOB, ordered=True)
    begin(out, line(0), line(1, FAILED), line(2), job=ordered)
    target = FileTarget(out, retry_errors=True)
    so_far = target.begin(ordered, target.read(), (), redo=False)
    assert (list(so_far.written.rows), list(so_far.answered.rows)) == ([0], [0, 2])
    output = target.open(so_far, ordered=True)
    assert [output.expect(Unit(row, 0)) for row in (1, 2)] == [True, False]
    output.complete(Unit(1, 0), line(1))
    output.close()
    assert rows(out) == [0, 1, 2]


def test_nothing_is_left_beside_a_finished_output(out: Path) -> None:
    target = FileTarget(out)
    so_far = target.begin(dataclasses.replace(JOB, ordered=True), target.read(), (), redo=False)
    flight, output = target.open_flight(), target.open(so_far, ordered=True)
    output.close()
    flight.close()
    target.finish()
    target.close()
    assert {path.name for path in Path(f"{out}.job").iterdir()} <= {"job.json", "lock"}


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
def test_a_stream_is_opened_late_and_holds_nothing(ordered: bool) -> None:
    stream, opened = io.BytesIO(), list[bool]()

    def open_stream() -> io.BytesIO:
        opened.append(True)
        return stream

    target: Target = StreamTarget(open_stream)
    so_far = target.begin(JOB, target.read(), (), redo=False)
    assert so_far.job is None and not so_far.answered.rows and not target.resumes
    assert target.open_flight() is None and not opened
    output = target.open(so_far, ordered=ordered)
    for row in (0, 1):
        output.expect(Unit(row, 0))
    for row in (1, 0):
        output.complete(Unit(row, 0), line(row))
    output.close()
    target.finish()
    assert stream.getvalue() == (line(0) + line(1) if ordered else line(1) + line(0))
    assert JobSoFar.nothing().answered.rows == {}
