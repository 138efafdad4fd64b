"""A batch from Python: target, scan, plan, run, outcome, without a command line or a terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from infer_cli.batch.engine_choice import LoadPlan
from infer_cli.batch.in_flight import note_crash
from infer_cli.batch.job import flight_path
from infer_cli.batch.measuring import estimate
from infer_cli.batch.planning import BatchPlan, plan_batch
from infer_cli.batch.request import BatchRequest
from infer_cli.batch.rows import Input
from infer_cli.batch.run import BatchRun, Outcome
from infer_cli.batch.scanned import Scan
from infer_cli.batch.summary import Tally
from infer_cli.batch.target import FileTarget, JobSoFar
from infer_cli.errors import UsageError
from infer_cli.models.installed import fake_model
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.session import Session
from tests.batch_helpers import by_unit, lines, prompts, write_rows

ENGINE = EngineOptions(threads=1, mode="invariant")


class Notes:
    """What a listener is told."""

    def __init__(self) -> None:
        self.statuses: list[str] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.status, self.note, self.warn = self.statuses.append, self.notes.append, self.warnings.append

    def clear(self) -> None:
        pass


def load(plan: LoadPlan) -> Session:
    return Session(fake_model("fake"), plan.engine, plan.width, 2)


class Begun(NamedTuple):
    run: BatchRun
    plan: BatchPlan
    so_far: JobSoFar


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", *prompts(6))


def request_for(rows: Path, **more: Any) -> BatchRequest:
    return BatchRequest(Input(str(rows), "jsonl"), ENGINE, **more)


def scanned_of(request: BatchRequest, so_far: JobSoFar) -> Scan:
    return plan_batch(request, None, so_far, load, Notes()).scanned


@contextmanager
def begun(
    rows: Path, out: Path, *, retry_errors: bool = False, max_failed: float | None = None, **more: Any
) -> Iterator[Begun]:
    request = request_for(rows, **more)
    with closing(FileTarget(out, retry_errors=retry_errors)) as target:
        so_far = target.read()
        plan = plan_batch(request, target, so_far, load, Notes())
        with closing(BatchRun(request, target, so_far, plan, max_failed)) as run:
            yield Begun(run, plan, so_far)


def run(rows: Path, out: Path, **more: Any) -> tuple[Outcome, Tally]:
    with begun(rows, out, **more) as batch:
        return batch.run.run(), batch.run.tally


def test_all_rows_are_answered(rows: Path, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    live: list[int] = []
    with begun(rows, out) as batch:
        outcome, tally = batch.run.run(live.append), batch.run.tally
    assert (outcome.stopped, outcome.n_failed, tally.n_done) == (None, 0, 6)
    assert outcome.wall_s > 0 and max(live) == 6
    assert {line["text"] for line in by_unit(out).values()} == {f"You said: {text}" for text in prompts(6)}
    assert not flight_path(out).exists()
    assert capfd.readouterr() == ("", "")


def test_it_goes_on_where_it_was_interrupted(rows: Path, out: Path) -> None:
    with begun(rows, out) as batch:
        tally, interrupt = batch.run.tally, batch.run.interrupt
        outcome = batch.run.run(lambda n_live: interrupt() if tally.n_done >= 2 else None)
    assert outcome.stopped == "interrupted"
    kept = by_unit(out)
    assert flight_path(out).exists()
    with begun(rows, out) as batch:
        assert batch.plan.scanned.n_to_answer == 6 - len(kept)
        assert batch.so_far.answered.rows.keys() == {row for row, _ in kept}
        assert batch.run.run().stopped is None
    assert (batch.run.tally.n_before, batch.run.tally.n_done) == (len(kept), 6 - len(kept))
    assert kept.items() <= by_unit(out).items()
    assert len(by_unit(out)) == 6


def test_it_stops_before_it_has_begun(rows: Path, out: Path) -> None:
    with begun(rows, out) as batch:
        batch.run.interrupt()
        assert batch.run.run().stopped == "interrupted"
    assert out.read_bytes() == b""


def test_another_job_is_refused_and_leaves_no_engine(rows: Path, out: Path) -> None:
    run(rows, out)
    before = out.read_bytes()
    n_threads = threading.active_count()
    with pytest.raises(UsageError, match="max_tokens was 1024, is 9"):
        run(rows, out, max_tokens=9)
    assert threading.active_count() == n_threads
    assert out.read_bytes() == before
    assert run(rows, out, max_tokens=9, redo=True)[1].n_done == 6


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
    request = request_for(rows, max_tokens=9)
    scanned = scanned_of(request, so_far)
    assert (scanned.n_mine, scanned.n_to_answer, scanned.changed) == (8, 3, [0])
    write_rows(rows, *prompts(5))
    assert scanned_of(request, so_far).changed == [5]


def test_a_scan_of_what_may_all_be_redone_has_room_for_all(rows: Path, out: Path) -> None:
    run(rows, out)
    so_far = FileTarget(out).read()
    for redo, n_least in ((False, 0), (True, 2000)):
        request = request_for(rows, redo=redo, max_tokens=2000)
        found = scanned_of(request, so_far)
        assert found.n_to_answer == 0
        assert (found.n_window > n_least) == redo


def test_a_scan_without_a_template_ends(rows: Path) -> None:
    request = request_for(rows, chat_template=str(rows.parent / "none"))
    with pytest.raises(UsageError, match="none"):
        scanned_of(request, JobSoFar.nothing())


# --- the plan -------------------------------------------------------------------------------------


def test_a_listener_is_told_what_was_chosen_and_what_fails(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", {"prompt": "x", "top_k": 1}, *prompts(120))
    told = Notes()
    plan = plan_batch(request_for(rows), None, JobSoFar.nothing(), load, told)
    assert told.statuses == ["reading rows: 100", "looking for the best width"]
    assert told.notes == list(plan.choice.notes) and "replies side by side" in told.notes[0]
    assert told.warnings == ["row 0: top_k has no meaning without sampling: the reply is greedy"]
    answered = Notes()
    with closing(FileTarget(tmp_path / "out")) as target:
        plan_batch(request_for(rows, parallel=2), target, target.read(), load, answered)
    assert answered.warnings == answered.notes == []  # its line in the output says so


# --- measurements ---------------------------------------------------------------------------------


def test_an_estimate(rows: Path) -> None:
    _, session, _, scanned, choice = plan_batch(
        request_for(rows, max_tokens=50), None, JobSoFar.nothing(), load, Notes()
    )
    found = estimate(scanned, session.loaded, choice.policy)
    assert (found.pace.n_rows, scanned.n_reply_tokens, scanned.n_longest_reply) == (6, 300, 50)
    assert found.seconds == found.pace.seconds(scanned.n_distinct_tokens, 300, 50) > 0
