"""A batch from Python: target, scan, plan, run, outcome, without a command line or a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from infer_cli.batch import measuring
from infer_cli.batch.in_flight import note_crash
from infer_cli.batch.job import flight_path
from infer_cli.batch.measuring import estimate, try_f16
from infer_cli.batch.planning import job_of, plan, plan_load
from infer_cli.batch.request import BatchRequest
from infer_cli.batch.rows import Input
from infer_cli.batch.run import BatchRun, Outcome
from infer_cli.batch.scan import Scan, scan
from infer_cli.batch.summary import Tally
from infer_cli.batch.target import FileTarget, JobSoFar
from infer_cli.errors import OutOfMemory, UsageError
from infer_cli.models.installed import fake_model
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.session import Session
from tests.batch_helpers import by_unit, lines, prompts, write_rows

ENGINE = EngineOptions(threads=1, mode="invariant")


class Begun(NamedTuple):
    run: BatchRun
    tally: Tally
    scanned: Scan
    so_far: JobSoFar


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", *prompts(6))


def scanned_of(request: BatchRequest, so_far: JobSoFar) -> Scan:
    session = Session(fake_model("fake"), ENGINE, 16, 2)
    return _scan(request, session, so_far)


def _scan(request: BatchRequest, session: Session, so_far: JobSoFar) -> Scan:
    preparer = request.preparer(session, 1)
    return scan(
        request, preparer, so_far.answered, lambda n: None, lambda row, error: None, count_distinct=True
    )


@contextmanager
def begun(
    rows: Path,
    out: Path,
    on_progress: Callable[[int], None] = lambda n_live: None,
    *,
    retry_errors: bool = False,
    max_failed: float | None = None,
    **more: Any,
) -> Iterator[Begun]:
    request = BatchRequest(Input(str(rows), "jsonl"), ENGINE, n_logprobs=None, **more)
    target = FileTarget(out, retry_errors=retry_errors)
    so_far = target.read()
    session = Session(fake_model("fake"), *plan_load(request, so_far.job), 2)
    preparer = request.preparer(session, request.run_seed(so_far.job))
    scanned = _scan(request, session, so_far)
    target.check_rows(scanned.changed, redo=request.redo)
    choice = plan(request, so_far.job, scanned, session.loaded, lambda window, n: {4: 1.0})
    running = session.start(choice.window, choice.policy)
    job = job_of(request, so_far.job, scanned, preparer, choice.width, 4096, running.provenance())
    so_far = target.begin(job, so_far, scanned.changed, redo=request.redo)
    tally = Tally(scanned.n_mine, scanned.n_replies, choice.policy.width)
    tally.take_over(so_far.answered)
    run = BatchRun(
        job,
        request.input,
        running,
        preparer,
        target,
        so_far,
        tally,
        on_progress,
        n_window=choice.window,
        max_failed=max_failed,
    )
    try:
        yield Begun(run, tally, scanned, so_far)
    finally:
        running.close()
        target.close()


def run(rows: Path, out: Path, **more: Any) -> tuple[Outcome, Tally]:
    with begun(rows, out, **more) as batch:
        return batch.run.run(), batch.tally


def test_all_rows_are_answered(rows: Path, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    live: list[int] = []
    outcome, tally = run(rows, out, on_progress=live.append)
    assert (outcome.stopped, outcome.n_failed, tally.n_done) == (None, 0, 6)
    assert outcome.wall_s > 0 and max(live) == 6
    assert {line["text"] for line in by_unit(out).values()} == {f"You said: {text}" for text in prompts(6)}
    assert not flight_path(out).exists()
    assert capfd.readouterr() == ("", "")


def test_it_goes_on_where_it_was_interrupted(rows: Path, out: Path) -> None:
    with begun(rows, out, lambda n_live: batch.run.interrupt() if batch.tally.n_done >= 2 else None) as batch:
        assert batch.run.run().stopped == "interrupted"
    kept = by_unit(out)
    assert flight_path(out).exists()
    with begun(rows, out) as batch:
        assert batch.scanned.n_to_answer == 6 - len(kept)
        assert batch.so_far.answered.rows.keys() == {row for row, _ in kept}
        assert batch.run.run().stopped is None
    assert (batch.tally.n_before, batch.tally.n_done) == (len(kept), 6 - len(kept))
    assert kept.items() <= by_unit(out).items()
    assert len(by_unit(out)) == 6


def test_it_stops_before_it_has_begun(rows: Path, out: Path) -> None:
    with begun(rows, out) as batch:
        batch.run.interrupt()
        assert batch.run.run().stopped == "interrupted"
    assert out.read_bytes() == b""


def test_failures_are_counted_and_may_be_too_many(tmp_path: Path, out: Path) -> None:
    bad: dict[str, object] = {"prompt": "x", "top_k": 1}
    rows = write_rows(tmp_path / "in.jsonl", bad, bad, *prompts(3))
    outcome, tally = run(rows, out, max_failed=1)
    assert (outcome.stopped, outcome.n_failed, tally.error_codes) == ("errors", 2, {2: 2})
    outcome, tally = run(rows, out)
    assert (outcome.stopped, tally.n_before, tally.n_failed_before, tally.n_done) == (None, 2, 2, 3)
    outcome, tally = run(rows, out, retry_errors=True)
    assert (tally.n_before, tally.n_failed) == (3, 2)


def test_a_row_that_may_have_crashed_is_answered_alone(rows: Path, out: Path) -> None:
    with begun(rows, out) as batch:
        batch.run.interrupt()
        batch.run.run()
    flight_path(out).write_bytes(b"+4\n")
    assert note_crash(flight_path(out)).to_try == [4]
    assert run(rows, out)[0].stopped is None
    assert lines(out)[0]["row"] == 4
    assert len(by_unit(out)) == 6


# --- the scan -------------------------------------------------------------------------------------


def test_a_scan_tells_rows_that_changed_from_those_to_answer(tmp_path: Path, rows: Path, out: Path) -> None:
    run(rows, out)
    so_far = FileTarget(out).read()
    write_rows(rows, "other", *prompts(6)[1:5], *prompts(8)[5:])
    request = BatchRequest(Input(str(rows), "jsonl"), ENGINE, max_tokens=9)
    scanned = scanned_of(request, so_far)
    assert (scanned.n_mine, scanned.n_to_answer, scanned.changed) == (8, 3, [0])
    write_rows(rows, *prompts(5))
    assert scanned_of(request, so_far).changed == [5]


def test_a_scan_of_what_may_all_be_redone_has_room_for_all(rows: Path, out: Path) -> None:
    run(rows, out)
    so_far = FileTarget(out).read()
    for redo, n_least in ((False, 0), (True, 2000)):
        request = BatchRequest(Input(str(rows), "jsonl"), ENGINE, redo=redo, max_tokens=2000)
        found = scanned_of(request, so_far)
        assert found.n_to_answer == 0
        assert (found.n_window > n_least) == redo


def test_a_scan_without_a_template_ends(rows: Path) -> None:
    request = BatchRequest(Input(str(rows), "jsonl"), ENGINE, chat_template=str(rows.parent / "none"))
    with pytest.raises(UsageError, match="none"):
        scanned_of(request, JobSoFar.nothing())


# --- measurements ---------------------------------------------------------------------------------


def test_an_estimate(rows: Path) -> None:
    request = BatchRequest(Input(str(rows), "jsonl"), ENGINE, max_tokens=50)
    session = Session(fake_model("fake"), ENGINE, 16, 2)
    scanned = _scan(request, session, JobSoFar.nothing())
    found = estimate(scanned, session.loaded, session.loaded.policy)
    assert (found.pace.n_rows, scanned.n_reply_tokens, scanned.n_longest_reply) == (6, 300, 50)
    assert found.seconds == found.pace.seconds(scanned.n_distinct_tokens, 300, 50) > 0


@pytest.mark.parametrize(("ratio", "taken"), [(1.3, True), (1.2, False)])
def test_f16_weights_are_taken_where_they_pay(
    monkeypatch: pytest.MonkeyPatch, ratio: float, taken: bool
) -> None:
    stored, expanded = (Session(fake_model("fake"), ENGINE, 1, 2) for _ in range(2))
    speeds = {stored.loaded: 10.0, expanded.loaded: 10.0 * ratio}
    monkeypatch.setattr(measuring, "reading_tps", speeds.__getitem__)
    trial = try_f16(stored, lambda: expanded)
    assert (trial.session is expanded, trial.failed) == (taken, False)
    begin = "weights are F16 in memory" if taken else "weights are as they are stored"
    assert trial.why == f"{begin}: as F16 prompts are read {ratio:.1f} times as fast"


def test_f16_weights_that_cannot_be_had_are_done_without() -> None:
    stored = Session(fake_model("fake"), ENGINE, 1, 2)

    def fail() -> Session:
        raise OutOfMemory("too large")

    trial = try_f16(stored, fail)
    assert (trial.session is stored, trial.failed) == (True, True)
    assert trial.why == "weights are as they are stored: too large"
