"""The scheduler's invariants, under random arrivals, lengths and cancellations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.engine.history import chunk_end
from infer_cli.engine.scheduler import MAX_PREFILL_RUN, Scheduler, Sequence, Span, prompt_span


def begin(scheduler: Scheduler[Any]) -> None:
    """Begin what is next, with nothing reused, as the engine would."""
    for seq in scheduler.prompts():
        if seq.begun:
            break
        seq.begun = True
        if not (seq.decodes or scheduler.joins_prompts):
            break


def _run_step(scheduler: Scheduler[int], finished: set[int], lengths: dict[int, int]) -> None:
    """Carry out one plan as the engine would, checking it on the way."""
    scheduler.admit()
    begin(scheduler)
    plan = scheduler.plan()
    assert sum(part.end - part.start for part in plan.prefill) <= scheduler.chunk + (
        not scheduler.joins_prompts
    )
    assert len(plan.prefill) <= (scheduler.width if scheduler.joins_prompts else 1)
    slots = [part.seq.slot for part in plan.prefill]
    assert slots == sorted(set(slots))
    for part in plan.prefill:
        assert part.start == part.seq.n_past
        span = part.seq.span
        assert not span.decoded
        assert span.start <= part.start < part.end <= span.end
        if not scheduler.joins_prompts:
            assert part.end == span.end or (part.end - span.start) % scheduler.chunk == 0
        part.seq.n_past = part.end
    if plan.decode is not None:
        slots = [slot for slot, _ in plan.decode.rows]
        assert slots == (list(range(len(slots))) if scheduler.fill_holes else sorted(set(slots)))
        assert plan.decode.live
        if scheduler.fixed_width and scheduler.fill_holes:
            assert len(slots) == max(scheduler.width, scheduler.min_rows)
        assert len(slots) >= (scheduler.min_rows if scheduler.fill_holes else 1)
        for slot, seq in plan.decode.rows:
            if seq is not None:
                assert seq.slot == slot
                assert seq.prefilled or seq.span.decoded
                seq.n_past += 1
                if seq.n_past - seq.n_prompt >= lengths[seq.owner]:
                    scheduler.release(seq, keep=True)
                    finished.add(seq.owner)
    assert all(scheduler.slots[slot] is None for slot in scheduler.kept.values())
    assert len(set(scheduler.kept.values())) == len(scheduler.kept)


def _spans(parts: list[tuple[int, bool]]) -> tuple[Span, ...]:
    spans: list[Span] = []
    for size, decoded in parts:
        start = spans[-1].end if spans else 0
        spans.append(Span(start, start + size, decoded))
    return tuple(spans)


@given(
    width=st.integers(1, 8),
    chunk=st.integers(2, 16),
    fixed_width=st.booleans(),
    min_rows=st.integers(1, 2),
    requests=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=4),
            st.integers(1, 10),
            st.integers(0, 20),
            st.booleans(),
        ),
        max_size=20,
    ),
    with_sessions=st.booleans(),
    kv_unified=st.booleans(),
)
def test_every_request_ends_and_no_plan_breaks_the_rules(
    width: int,
    chunk: int,
    fixed_width: bool,
    min_rows: int,
    requests: list[tuple[list[tuple[int, bool]], int, int, bool]],
    with_sessions: bool,
    kv_unified: bool,
) -> None:
    scheduler: Scheduler[int] = Scheduler(
        width, chunk, fixed_width, min_rows, fill_holes=not kv_unified, joins_prompts=kv_unified
    )
    lengths = {i: n_reply for i, (_, n_reply, _, _) in enumerate(requests)}
    sequences = [
        Sequence(i, _spans(parts), str(i) if with_sessions and i % 2 else None)
        for i, (parts, _, _, _) in enumerate(requests)
    ]
    finished: set[int] = set()
    step = 0
    while True:
        for i, (_, _, arrival, _) in enumerate(requests):
            if arrival == step:
                scheduler.submit(sequences[i])
        for i, (_, n_reply, arrival, cancelled) in enumerate(requests):
            if cancelled and step == arrival + n_reply and i not in finished:
                scheduler.release(sequences[i])
                finished.add(i)
        if step > 20 and scheduler.idle:
            break
        _run_step(scheduler, finished, lengths)
        step += 1
        assert step < 2000
    assert finished == set(range(len(requests)))
    assert all(slot is None for slot in scheduler.slots)


@given(n_prompt=st.integers(1, 1000), chunk=st.integers(2, 100))
def test_chunks_cover_the_prompt_at_fixed_boundaries(n_prompt: int, chunk: int) -> None:
    start, sizes = 0, []
    while start < n_prompt:
        end = chunk_end(start, n_prompt, chunk)
        sizes.append(end - start)
        assert start % chunk == 0
        start = end
    assert sum(sizes) == n_prompt
    assert sizes[-1] > 1 or n_prompt == 1


def test_first_come_first_served() -> None:
    scheduler: Scheduler[str] = Scheduler(width=2, chunk=4)
    for name in "abc":
        scheduler.submit(Sequence(name, prompt_span(3)))
    assert [seq.owner for seq in scheduler.admit()] == ["a", "b"]
    begin(scheduler)
    (part,) = scheduler.plan().prefill
    assert part.seq.owner == "a"
    scheduler.release(part.seq)
    assert [(seq.owner, seq.slot) for seq in scheduler.admit()] == [("c", 0)]
    begin(scheduler)
    (after,) = scheduler.plan().prefill
    assert after.seq.owner == "b", "the one that waited longest is prefilled first"


@pytest.mark.parametrize("chunk", [64, 512])
def test_long_prompts_let_live_replies_have_their_row(chunk: int) -> None:
    scheduler: Scheduler[str] = Scheduler(width=3, chunk=chunk)
    live = Sequence("live", prompt_span(4))
    for seq in (live, *(Sequence(name, prompt_span(1900)) for name in "ab")):
        scheduler.submit(seq)
    scheduler.admit()
    runs: list[int] = []
    run = 0
    while True:
        begin(scheduler)
        plan = scheduler.plan()
        if not plan.prefill:
            break
        (part,) = plan.prefill
        part.seq.n_past = part.end
        run += part.end - part.start
        if plan.decode is not None:
            live.n_past += 1
            runs, run = [*runs, run], 0
    assert max(runs) < MAX_PREFILL_RUN + chunk
    assert min(runs) >= min(MAX_PREFILL_RUN, 1900 % chunk)
    assert sum(runs) + run == 4 + 2 * 1900


def test_no_dummy_rows_where_a_state_cannot_forget_them() -> None:
    scheduler: Scheduler[str] = Scheduler(width=3, chunk=4, fill_holes=False)
    sequences = [Sequence(name, prompt_span(2)) for name in "abc"]
    for seq in sequences:
        scheduler.submit(seq)
    scheduler.admit()
    for seq in sequences:
        seq.begun, seq.n_past = True, 2
    scheduler.release(sequences[1])
    call = scheduler.plan().decode
    assert call is not None
    assert [(slot, seq.owner) for slot, seq in call.rows if seq is not None] == [(0, "a"), (2, "c")]
    assert len(call.rows) == 2


def test_a_session_finds_its_slot_again_and_the_longest_idle_one_gives_way() -> None:
    scheduler: Scheduler[str] = Scheduler(width=2, chunk=4)

    def visit(session: str | None) -> int:
        seq = Sequence("x", prompt_span(3), session)
        scheduler.submit(seq)
        assert scheduler.admit() == [seq]
        slot = seq.slot
        scheduler.release(seq, keep=True)
        return slot

    assert [visit("a"), visit("b"), visit("a"), visit("b")] == [0, 1, 0, 1]
    assert visit(None) == 0, "a was idle for longer"
    assert visit("c") == 0
    assert visit("b") == 1
    assert scheduler.kept == {"c": 0, "b": 1}


def test_prompts_in_one_memory_are_evaluated_together_as_far_as_a_call_has_room() -> None:
    scheduler: Scheduler[str] = Scheduler(width=4, chunk=10, fill_holes=False, joins_prompts=True)
    for name, n_prompt in [("a", 4), ("b", 3), ("c", 9), ("d", 2)]:
        scheduler.submit(Sequence(name, prompt_span(n_prompt)))
    scheduler.admit()
    begin(scheduler)
    calls = []
    while parts := scheduler.plan().prefill:
        calls.append([(part.seq.owner, part.start, part.end) for part in parts])
        for part in parts:
            part.seq.n_past = part.end
    assert calls == [[("a", 0, 4), ("b", 0, 3), ("c", 0, 3)], [("c", 3, 9), ("d", 0, 2)]]
