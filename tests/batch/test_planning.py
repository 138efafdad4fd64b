"""Which engine a batch has: by what is asked for, by the job that goes on, by its rows and the machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from infer_cli.batch.engine_choice import (
    EngineChoice,
    QuickerEngine,
    choose_engine,
    may_try_f16,
    plan_load,
    quicker_than_canonical,
)
from infer_cli.batch.job import JobEngine, JobFile, Shard
from infer_cli.batch.planning import BatchPlan, check_seed, job_of
from infer_cli.batch.request import BatchRequest
from infer_cli.batch.rows import Input
from infer_cli.batch.scanned import Scan
from infer_cli.engine.mode_policy import ModePolicy
from infer_cli.errors import UsageError
from infer_cli.models.installed import fake_model
from infer_cli.runtime.fake_loading import FakeLoaded
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.session import Session
from infer_cli.settings.origins import Given
from infer_cli.types import EngineIdentity, Mode, ModelIdentity, Provenance

DEFAULT = EngineOptions(threads=1, mode="invariant", fallback="canonical")
JOINED = Scan(n_window=300, n_to_answer=40, n_prompt_tokens=9000, n_distinct_tokens=900, n_reply_tokens=100)
MANY = Scan(n_window=300, n_to_answer=40, n_prompt_tokens=900, n_distinct_tokens=900, n_reply_tokens=900)
FEW = dataclasses.replace(MANY, n_to_answer=3)
TWO = Shard(1, 2)


def in_mode(mode: Mode) -> EngineOptions:
    return EngineOptions(threads=1, mode=mode)


def request(engine: EngineOptions = DEFAULT, **more: Any) -> BatchRequest:
    return BatchRequest(Input("in.jsonl", "jsonl"), engine, **more)


def begun(mode: Mode = "fast", *, width: int = 5, run_seed: int | None = None, **facts: object) -> JobFile:
    return JobFile(
        id="begun",
        created_at="2026-01-01T00:00:00+00:00",
        model=ModelIdentity("fake", None),
        fingerprint="0" * 16,
        engine=JobEngine.of({"mode": mode, **facts}),
        width=width,
        window=4096,
        run_seed=run_seed,
        params={},
        output_format="infer",
        ordered=False,
        input="in.jsonl",
        n_rows=3,
        rows_sha256="0",
        deadline_s=4.0,
    )


class Measured:
    """Says that 8 are best, and how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __call__(self, n_window: int, n_replies: int) -> Mapping[int, float]:
        self.asked.append((n_window, n_replies))
        return {1: 10.0, 8: 99.0, 16: 100.0}


class Full(FakeLoaded):
    """Without room for shared memory."""

    def fits(self, policy: ModePolicy, n_ctx_seq: int) -> bool:
        return not policy.kv_unified


class Expandable(FakeLoaded):
    def may_expand(self, n_ctx_seq: int) -> bool:
        return n_ctx_seq == 300


def planned(
    asked: BatchRequest,
    job: JobFile | None,
    scanned: Scan,
    kind: type[FakeLoaded] = FakeLoaded,
) -> tuple[EngineChoice, list[tuple[int, int]]]:
    """The choice, and what was measured for it."""
    measured = Measured()
    loaded = kind("fake", *plan_load(asked, job))
    return choose_engine(asked, job, scanned, loaded, measured), measured.asked


# --- the load -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "parallel", "job", "mode", "width"),
    [
        (DEFAULT, None, None, "invariant", 16),
        (DEFAULT, 7, None, "invariant", 7),
        (DEFAULT, None, begun("fast", width=5), "fast", 5),
        (DEFAULT, 7, begun("fast", width=5), "fast", 7),
        (in_mode("canonical"), None, begun("fast", width=5), "canonical", 5),  # to be refused
    ],
)
def test_a_job_that_goes_on_keeps_its_mode_and_width(
    engine: EngineOptions, parallel: int | None, job: JobFile | None, mode: Mode, width: int
) -> None:
    load = plan_load(request(engine, parallel=parallel), job)
    assert (load.engine.mode, load.width) == (mode, width)
    assert (load.engine.fallback is None) == (job is not None or engine.fallback is None)


def test_a_job_that_goes_on_keeps_its_weights() -> None:
    expanded = dataclasses.replace(DEFAULT, expand=True)
    assert not plan_load(request(expanded), None).engine.expand  # they were not measured yet
    assert plan_load(request(), begun(weights="f16")).engine.expand
    assert not plan_load(request(), begun()).engine.expand


@pytest.mark.parametrize(
    ("shard", "job", "n_reply", "may"),
    [
        (Shard(), None, 1, True),
        (TWO, None, 1, False),
        (Shard(), begun(), 1, False),
        (Shard(), None, 9000, False),
    ],
)
def test_where_f16_weights_are_tried(shard: Shard, job: JobFile | None, n_reply: int, may: bool) -> None:
    scanned = Scan(n_window=300, n_distinct_tokens=9000, n_reply_tokens=n_reply)
    asked = request(in_mode("fast"), shard=shard)
    assert may_try_f16(asked, job, scanned, Expandable("fake", in_mode("fast"), 16)) == may
    assert not may_try_f16(asked, job, scanned, FakeLoaded("fake", in_mode("fast"), 16))


@pytest.mark.parametrize(
    ("parallel", "n_replies", "shard", "job", "may"),
    [
        (None, 100, Shard(), None, True),
        (16, 100, Shard(), None, True),
        (15, 100, Shard(), None, False),
        (None, 15, Shard(), None, False),  # none is beside more than 14 others
        (None, 100, TWO, None, False),
        (None, 100, Shard(), begun(), False),
    ],
)
def test_where_f16_weights_are_tried_for_long_replies(
    parallel: int | None, n_replies: int, shard: Shard, job: JobFile | None, may: bool
) -> None:
    scanned = Scan(n_window=300, n_distinct_tokens=900, n_reply_tokens=99_999, n_to_answer=n_replies)
    asked = request(in_mode("fast"), parallel=parallel, shard=shard)
    assert may_try_f16(asked, job, scanned, Expandable("fake", in_mode("fast"), 16)) == may
    assert not may_try_f16(asked, job, scanned, FakeLoaded("fake", in_mode("fast"), 16))


# --- the width ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "job", "scanned", "width", "is_measured"),
    [
        (request(in_mode("fast")), None, MANY, 8, True),
        (request(), None, MANY, 8, True),
        (request(in_mode("fast")), None, FEW, 16, False),
        (request(in_mode("fast"), parallel=5), None, MANY, 5, False),
        (request(in_mode("fast"), shard=TWO), None, MANY, 16, False),  # others could not be merged with it
        (request(shard=TWO), None, MANY, 8, True),  # any width keeps the promise
        (request(), begun(width=6), MANY, 6, False),
        (request(in_mode("canonical")), None, MANY, 16, False),
    ],
)
def test_a_width_is_measured_where_nothing_else_decides_it(
    asked: BatchRequest, job: JobFile | None, scanned: Scan, width: int, is_measured: bool
) -> None:
    choice, measured = planned(asked, job, scanned)
    assert choice.width == width
    assert measured == ([(300, 40)] if is_measured else [])
    note = "8 replies side by side: tokens a second are 10 with 1, 99 with 8, 100 with 16"
    assert choice.notes == ((note,) if is_measured else ())


def test_canonical_says_which_width_it_takes() -> None:
    choice, _ = planned(request(in_mode("canonical"), parallel=5), None, MANY)
    assert (choice.width, choice.policy.width) == (8, 8)
    assert choice.notes == ("8 replies side by side: canonical has no width of 5",)
    assert planned(request(in_mode("canonical"), parallel=8), None, MANY)[0].notes == ()


@pytest.mark.parametrize(
    ("mode", "n_to_answer", "n_slots"), [("invariant", 3, 3), ("invariant", 0, 1), ("fast", 3, 16)]
)
def test_no_more_slots_than_replies_where_that_changes_no_promise(
    mode: Mode, n_to_answer: int, n_slots: int
) -> None:
    scanned = dataclasses.replace(MANY, n_to_answer=n_to_answer)
    choice, _ = planned(request(in_mode(mode)), None, scanned)
    assert (choice.width, choice.policy.width) == (16, n_slots)


def test_a_slot_has_room_where_no_row_is_left() -> None:
    assert planned(request(), None, Scan())[0].window == 256
    assert planned(request(), None, MANY)[0].window == 300


# --- the memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "job", "scanned", "kind", "shares"),
    [
        (request(in_mode("fast")), None, JOINED, FakeLoaded, True),
        (request(in_mode("fast")), None, MANY, FakeLoaded, False),
        (request(), None, JOINED, FakeLoaded, False),  # the mode does not let it
        (request(in_mode("fast"), shard=TWO), None, JOINED, FakeLoaded, False),
        (request(in_mode("fast")), None, JOINED, Full, False),
        (request(), begun("fast", kv_unified=True), MANY, FakeLoaded, True),
        (request(), begun("fast"), JOINED, FakeLoaded, False),
    ],
)
def test_one_memory_for_prompts_that_begin_alike(
    asked: BatchRequest, job: JobFile | None, scanned: Scan, kind: type[FakeLoaded], shares: bool
) -> None:
    assert planned(asked, job, scanned, kind)[0].policy.kv_unified == shares


# --- what is told ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "job", "n", "quicker"),
    [
        ("canonical", None, 3, QuickerEngine(3, invariant=True)),
        ("canonical", None, 5, QuickerEngine(8, invariant=True)),
        ("canonical", None, 13, None),  # it would have all 16
        ("canonical", None, 0, None),
        ("canonical", begun("canonical"), 3, None),
        ("fast", None, 3, None),
    ],
)
def test_what_would_be_quicker(
    mode: Mode, job: JobFile | None, n: int, quicker: QuickerEngine | None
) -> None:
    loaded = FakeLoaded("fake", in_mode(mode), 16)
    assert quicker_than_canonical(job, dataclasses.replace(MANY, n_to_answer=n), loaded) == quicker


# --- seeds and the job ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "job", "sampled", "words"),
    [
        ({"seed": 3, "seed_is_for_this": True}, None, False, "no meaning"),
        ({"seed": 3, "seed_is_for_this": True}, None, True, ""),
        ({"seed": 3, "seed_is_for_this": True}, begun(run_seed=3), False, ""),  # rows before sampled
        ({"seed": 3, "seed_is_for_this": True, "shard": TWO}, None, False, ""),  # another shard may sample
        ({"seed": 3}, None, False, ""),
        ({"shard": TWO}, None, True, "one seed"),
        ({"shard": TWO}, begun(), True, "one seed"),
        ({"shard": TWO}, begun(run_seed=3), True, ""),
        ({"shard": TWO}, None, False, ""),
    ],
)
def test_which_seeds_are_refused(
    more: dict[str, Any], job: JobFile | None, sampled: bool, words: str
) -> None:
    scanned = dataclasses.replace(MANY, sampled=sampled)
    if not words:
        check_seed(request(**more), job, scanned)
        return
    with pytest.raises(UsageError, match=words):
        check_seed(request(**more), job, scanned)


def test_whose_seed_it_is() -> None:
    assert request(seed=9).choose_seed(begun(run_seed=3)) == 9
    assert request().choose_seed(begun(run_seed=3)) == 3
    assert request().choose_seed(begun()) != request().choose_seed(None)  # drawn


def test_a_job_keeps_what_it_was_begun_with() -> None:
    asked = request(in_mode("fast"), deadline_s=2.0, sampling={"top_k": Given("3", "INFER_TOP_K")})
    session = Session(fake_model("fake"), asked.engine, 16, 2)
    preparer = asked.make_preparer(session, 7)
    facts = {"mode": "fast", "width": 16}
    came_from = Provenance(
        ModelIdentity("fake", None), EngineIdentity("1", "fake", "ab", facts), probed=False
    )
    scanned = Scan(n_rows=9, rows_sha256="c")
    choice = EngineChoice(session.loaded.policy, 16, 256)
    new = job_of(asked, BatchPlan(None, session, preparer, scanned, choice), came_from)
    assert (new.engine.mode, new.fingerprint, new.n_rows, new.run_seed) == ("fast", "ab", 9, None)
    assert (new.given, new.deadline_s) == ({"top_k": "3"}, 2.0)
    again = job_of(asked, BatchPlan(begun(run_seed=7), session, preparer, scanned, choice), came_from)
    assert (again.id, again.run_seed, again.deadline_s) == ("begun", 7, 4.0)
    assert new.id != again.id
