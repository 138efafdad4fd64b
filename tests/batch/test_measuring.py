"""Which weights a job takes less time with, by what is measured, and that no model is left behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import pytest

from infer_cli.batch import measuring
from infer_cli.batch.engine_choice import EngineChoice, LoadPlan
from infer_cli.batch.measuring import Candidate, WeightsTrial, try_f16
from infer_cli.batch.planning import BatchPlan, plan_batch
from infer_cli.batch.request import BatchRequest
from infer_cli.batch.rows import Input
from infer_cli.batch.scanned import Scan
from infer_cli.batch.target import JobSoFar
from infer_cli.engine.mode_policy import ModePolicy
from infer_cli.errors import OutOfMemory
from infer_cli.models.installed import fake_model
from infer_cli.runtime.calibration import Pace
from infer_cli.runtime.fake_loading import FakeLoaded
from infer_cli.runtime.model_protocols import LoadedModel
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.session import Session
from tests.batch_helpers import prompts, write_rows

FAST = EngineOptions(threads=1, mode="fast")
READ = Scan(n_to_answer=64, n_distinct_tokens=10_000)
WRITTEN = dataclasses.replace(READ, n_reply_tokens=32_000, n_longest_reply=500)


class Speed(NamedTuple):
    """Tokens a second of a prompt and of replies at `width`, which is best. `fits`: into memory."""

    read: float
    written: float = 100.0
    width: int = 16
    fits: bool = True


STORED = Speed(100.0)


class SpeedySession(Session):
    """Of the fake model, which closes where one asks whether it is closed."""

    def __init__(self, speed: Speed) -> None:
        super().__init__(fake_model("fake"), FAST, speed.width, 2)
        self.speed, self.is_closed = speed, False

    def close(self) -> None:
        self.is_closed = True
        super().close()


class Bench:
    """The measurement: of sessions that it opens, at the width of the policy that it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, int, int]] = []
        self._speeds: dict[LoadedModel, Speed] = {}

    def open(self, speed: Speed) -> SpeedySession:
        session = SpeedySession(speed)
        self._speeds[session.loaded] = speed
        return session

    def __call__(self, loaded: LoadedModel, policy: ModePolicy, n_replies: int) -> Pace:
        speed = self._speeds[loaded]
        self.asked.append((speed.read, policy.width, n_replies))
        if not speed.fits:
            raise OutOfMemory("no room")
        return Pace(speed.read, policy.width, policy.width / speed.written)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench()
    monkeypatch.setattr(measuring, "quickest_pace", bench)
    return bench


def choose(session: Session) -> EngineChoice:
    assert isinstance(session, SpeedySession)
    policy = session.loaded.choose_policy(session.speed.width)
    return EngineChoice(policy, policy.width, 300)


def tried(bench: Bench, scanned: Scan, f16: Speed) -> tuple[WeightsTrial, SpeedySession, SpeedySession]:
    """The trial, the stored weights and the others."""
    stored, expanded = bench.open(STORED), bench.open(f16)
    return try_f16(Candidate(stored, choose(stored)), scanned, lambda: expanded, choose), stored, expanded


@pytest.mark.parametrize(
    ("scanned", "f16", "taken", "found"),
    [
        (READ, Speed(126.0), True, "prompts are read 1.3 times as fast"),
        (READ, Speed(124.0), False, "prompts are read 1.2 times as fast"),
        (READ, Speed(230.0, 10.0), True, "prompts are read 2.3 times as fast"),  # nothing is written
        (WRITTEN, Speed(100.0, 150.0), True, "prompts are read 1.0 times as fast, replies written 1.5 times"),
        (WRITTEN, Speed(230.0, 80.0), False, "prompts are read 2.3 times as fast, replies written 0.8 times"),
        (WRITTEN, Speed(90.0, 160.0), True, "prompts are read 0.9 times as fast, replies written 1.6 times"),
        (
            WRITTEN,
            Speed(230.0, 108.0),
            False,
            "prompts are read 2.3 times as fast, replies written 1.1 times",
        ),
    ],
)
def test_what_the_whole_job_takes_less_time_with(
    bench: Bench, scanned: Scan, f16: Speed, taken: bool, found: str
) -> None:
    trial, stored, expanded = tried(bench, scanned, f16)
    assert trial.chosen.session is (expanded if taken else stored)
    begin = "weights are F16 in memory" if taken else "weights are as they are stored"
    assert (trial.why, trial.failed) == (f"{begin}: as F16 {found}", False)
    assert (stored.is_closed, expanded.is_closed) == (False, not taken)


def test_each_is_measured_as_the_job_would_have_it(bench: Bench) -> None:
    trial, _, _ = tried(bench, WRITTEN, Speed(101.0, 150.0, width=32))
    assert bench.asked == [(100.0, 16, 64), (101.0, 32, 64)]
    assert (trial.chosen.choice.width, trial.chosen.choice.policy.width) == (32, 32)


def test_the_longest_reply_counts_where_few_are_left(bench: Bench) -> None:
    """Of 16 replies one is long: its steps are what takes the time, at either width."""
    lone = Scan(n_to_answer=16, n_reply_tokens=1600, n_longest_reply=1000)
    trial, stored, _ = tried(bench, lone, Speed(100.0, 190.0, width=32))
    assert trial.chosen.session is stored  # a step of 32 rows takes as long as one of 16


def test_weights_that_do_not_fit_are_closed_again(bench: Bench) -> None:
    trial, stored, expanded = tried(bench, READ, Speed(999.0, fits=False))
    assert (trial.chosen.session, trial.failed) == (stored, True)
    assert trial.why == "weights are as they are stored: no room"
    assert expanded.is_closed and not stored.is_closed


def test_weights_without_an_engine_are_closed_again(bench: Bench) -> None:
    stored, expanded = bench.open(STORED), bench.open(Speed(999.0))

    def fail(_session: Session) -> EngineChoice:
        raise OutOfMemory("no width fits")

    trial = try_f16(Candidate(stored, choose(stored)), READ, lambda: expanded, fail)
    assert (trial.chosen.session, trial.failed, expanded.is_closed) == (stored, True, True)


def test_weights_that_cannot_be_had_are_done_without(bench: Bench) -> None:
    def fail() -> Session:
        raise OutOfMemory("too large")

    stored = bench.open(STORED)
    trial = try_f16(Candidate(stored, choose(stored)), READ, fail, choose)
    assert (trial.chosen.session, trial.failed) == (stored, True)
    assert trial.why == "weights are as they are stored: too large"


def test_stored_weights_that_do_not_fit(bench: Bench) -> None:
    stored = bench.open(Speed(100.0, fits=False))
    with pytest.raises(OutOfMemory):
        try_f16(Candidate(stored, choose(stored)), READ, lambda: bench.open(STORED), choose)


# --- in a plan -------------------------------------------------------------------------------------


class Told:
    """What a listener is told, in order."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.note = self.warn = self.notes.append

    def status(self, text: str, /) -> None:
        pass

    def clear(self) -> None:
        pass


@pytest.mark.parametrize(
    ("written", "n_tokens", "expands"), [(150.0, 256, True), (100.0, 256, False), (150.0, 32, None)]
)
def test_a_job_of_long_replies(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: float,
    n_tokens: int,
    expands: bool | None,
) -> None:
    """`expands` None: it is not worth a trial."""
    monkeypatch.setattr(FakeLoaded, "may_expand", lambda _self, _n: True)
    loads: list[LoadPlan] = []

    def load(plan: LoadPlan) -> Session:
        loads.append(plan)
        return bench.open(Speed(100.0, written if plan.engine.expand else 100.0))

    rows = write_rows(tmp_path / "in.jsonl", *prompts(64))
    request = BatchRequest(Input(str(rows), "jsonl"), FAST, parallel=16, max_tokens=n_tokens)
    told = Told()
    plan: BatchPlan = plan_batch(request, None, JobSoFar.nothing(), load, told)
    assert [a_load.engine.expand for a_load in loads] == ([False] if expands is None else [False, True])
    speed = plan.session.speed if isinstance(plan.session, SpeedySession) else None
    assert speed == Speed(100.0, written if expands else 100.0)
    begin = "weights are F16 in memory" if expands else "weights are as they are stored"
    assert [note.partition(":")[0] for note in told.notes] == ([] if expands is None else [begin])
