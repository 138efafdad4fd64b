"""Sessions of the engine: what is reused, what is evaluated anew, and that neither changes how.

`ShapeBackend` notes for every token held in which call it was evaluated: two evaluations that agree in that
agree in their KV bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.backend.base import DecodeStatus
from infer_cli.backend.fake import FakeBackend, FakeScript
from infer_cli.backend.spec import ContextSpec
from infer_cli.engine import history
from infer_cli.engine.engine import Engine
from infer_cli.engine.mode_policy import ModelTraits, choose
from infer_cli.types import EngineRequest, Finished, Mode, SamplingParams, Segment
from tests.engine_helpers import Clock, chat_prompt, fake_engine, run_all

SAMPLED = SamplingParams(temperature=1.5, top_k=50)


class ShapeBackend(FakeBackend):
    """Notes (first position, positions, rows) of the call in which each token was evaluated."""

    def __init__(self, script: FakeScript, spec: ContextSpec) -> None:
        super().__init__(script, spec)
        self.shapes: list[list[tuple[int, int, int]]] = [[] for _ in range(spec.n_seq_max)]

    def decode(self, tokens, positions, seqs, outputs):  # type: ignore[no-untyped-def]
        status = super().decode(tokens, positions, seqs, outputs)
        if status is DecodeStatus.OK:
            for position, seq in zip(positions, seqs, strict=True):
                own = [p for p, s in zip(positions, seqs, strict=True) if s == seq]
                del self.shapes[seq][position:]
                self.shapes[seq].append((own[0], len(own), len(tokens)))
        return status

    def seq_rm(self, seq: int, p0: int) -> bool:
        del self.shapes[seq][p0:]
        return super().seq_rm(seq, p0)


def shape_engine(mode: Mode, width: int = 1) -> tuple[Engine, ShapeBackend]:
    policy = choose(mode, width, ModelTraits())
    spec = ContextSpec(4096, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 1)
    backend = ShapeBackend(FakeScript(), spec)
    return Engine(backend, policy, Clock(), 4096), backend


def ask(
    engine: Engine,
    prompt: Sequence[int],
    past: tuple[Segment, ...] = (),
    *,
    session: str | None = "talk",
    max_tokens: int = 8,
    seed: int | None = None,
) -> tuple[Finished, tuple[Segment, ...]]:
    """One reply, and the history that the next request of the talk has."""
    request = EngineRequest(
        "r", tuple(prompt), SAMPLED if seed is not None else SamplingParams(), max_tokens, seed,
        history=past, session=session,
    )  # fmt: skip
    end = run_all(engine, [request])[0]["r"]
    decoded = Segment("decoded", end.tokens[:-1])
    return end, history.normalized((*past, Segment("prompt", tuple(prompt)), decoded))


def n_evaluated(end: Finished) -> int:
    return end.usage.prompt_tokens - end.usage.cached_tokens


@pytest.mark.parametrize("mode", ["fast", "canonical", "invariant"])
def test_a_turn_evaluates_its_own_prompt_and_nothing_else(mode: Mode) -> None:
    engine, backend, _, _ = fake_engine(mode=mode, n_ctx_seq=4096)
    past: tuple[Segment, ...] = ()
    carried: tuple[int, ...] = ()
    for turn in range(10):
        prompt = (*carried, *chat_prompt(f"turn {turn} " + "word " * turn * 10))
        before = sum(backend.row_counts)
        end, past = ask(engine, prompt, past, max_tokens=30)
        assert sum(backend.row_counts) - before == len(prompt) + len(end.tokens) - 1
        assert n_evaluated(end) == len(prompt)
        carried = end.tokens[-1:]


def test_a_fresh_engine_repeats_the_history_as_it_was() -> None:
    engine, backend = shape_engine("canonical")
    before: tuple[Segment, ...] = ()
    for turn in range(3):
        _, before = ask(engine, chat_prompt(f"{turn}" * 70), before, seed=turn)
    end, _ = ask(engine, chat_prompt("3" * 70), before, seed=3)
    again, fresh = shape_engine("canonical")
    repeated, _ = ask(again, chat_prompt("3" * 70), before, seed=3)
    assert repeated.tokens == end.tokens
    assert repeated.usage.cached_tokens == 0
    assert fresh.shapes == backend.shapes
    assert fresh.held(0) == backend.held(0)


def test_a_reply_goes_on_after_its_last_token() -> None:
    whole = ask(fake_engine()[0], chat_prompt("hello"), max_tokens=30)[0]
    engine, backend, _, _ = fake_engine()
    first, past = ask(engine, chat_prompt("hello"), max_tokens=5)
    before = sum(backend.row_counts)
    rest, _ = ask(engine, (), (*past, Segment("decoded", first.tokens[-1:])), max_tokens=30)
    assert first.tokens + rest.tokens == whole.tokens
    assert sum(backend.row_counts) - before == len(rest.tokens), "only the last token was not evaluated yet"


def test_another_reply_to_the_same_prompt_evaluates_its_last_chunk_again() -> None:
    engine, _ = shape_engine("canonical")
    prompt = chat_prompt("x" * 150)
    ask(engine, prompt, seed=1)
    end, _ = ask(engine, prompt, seed=2)
    assert end.usage.cached_tokens == len(prompt) // 64 * 64


def test_an_interrupted_prefill_is_taken_up_where_it_was() -> None:
    engine, backend, _, _ = fake_engine(n_ctx_seq=4096)
    prompt = chat_prompt("x" * 500)
    engine.submit(EngineRequest("r", prompt, SamplingParams(), 5, session="talk"), 0.0)
    engine.step()
    engine.step()
    engine.cancel("r")
    (end,) = (e for e in engine.step() if isinstance(e, Finished))
    assert (end.reason, end.tokens) == ("cancelled", ())
    assert len(backend.held(0)) == 128
    end, _ = ask(engine, prompt)
    assert end.usage.cached_tokens == 128


def test_a_memory_that_cannot_be_cut_is_filled_again() -> None:
    engine, backend, _, _ = fake_engine()
    _, past = ask(engine, chat_prompt("hello"))
    original = backend.seq_rm
    backend.seq_rm = lambda seq, p0: p0 == 0 and original(seq, p0)  # type: ignore[method-assign]
    end, _ = ask(engine, (258, *chat_prompt("more")), past)
    assert end.usage.cached_tokens == 0
    assert end.tokens == ask(fake_engine()[0], (258, *chat_prompt("more")), past)[0].tokens


def test_a_request_that_needs_the_slot_gets_it() -> None:
    engine, backend, _, _ = fake_engine()
    _, past = ask(engine, chat_prompt("hello"))
    assert backend.held(0)
    other, _ = ask(engine, chat_prompt("other"), session=None)
    assert backend.held(0) == chat_prompt("other") + other.tokens[:-1]
    assert ask(engine, (258, *chat_prompt("more")), past)[0].usage.cached_tokens == 0


def test_one_request_a_session_at_a_time() -> None:
    engine, _, _, _ = fake_engine(width=2)
    engine.submit(EngineRequest("a", (65,), SamplingParams(), 5, session="talk"), 0.0)
    engine.submit(EngineRequest("b", (65,), SamplingParams(), 5, session="talk"), 0.0)
    engine.submit(EngineRequest("c", (), SamplingParams(), 5, history=(Segment("prompt", (65,)),)), 0.0)
    ends = [event for event in engine.step() if isinstance(event, Finished)]
    assert [(end.request_id, end.error) for end in ends] == [
        ("b", "session 'talk' is in use"),
        ("c", "the prompt is empty"),
    ]


_segments = st.lists(
    st.tuples(st.sampled_from(["prompt", "decoded"]), st.integers(1, 150)), min_size=1, max_size=5
)


def _history(parts: list[tuple[str, int]], salt: int = 0) -> tuple[Segment, ...]:
    ids = itertools.count(salt)
    return tuple(
        Segment(kind, tuple(next(ids) % 256 for _ in range(n)))  # type: ignore[arg-type]
        for kind, n in parts
    )


@settings(max_examples=60, deadline=None)
@given(one=_segments, n_kept=st.integers(0, 400), other=_segments, width=st.integers(1, 3))
def test_what_is_reused_was_evaluated_in_the_same_calls(
    one: list[tuple[str, int]], n_kept: int, other: list[tuple[str, int]], width: int
) -> None:
    """Two requests of a session with any common beginning: the second leaves the same as if it came alone."""
    first = _history(one)
    second = (*history.first(first, n_kept), *_history(other, 7))
    engine, backend = shape_engine("canonical", width)
    ask(engine, (1, 2, 3), first)
    together, _ = ask(engine, (4, 5), second)
    lone, fresh = shape_engine("canonical", width)
    alone, _ = ask(lone, (4, 5), second)
    assert together.tokens == alone.tokens
    assert backend.shapes == fresh.shapes
    assert backend.held(0) == fresh.held(0)


@pytest.mark.parametrize("mode", ["fast", "canonical", "invariant"])
@settings(max_examples=20, deadline=None)
@given(talks=st.lists(_segments, min_size=1, max_size=5), width=st.integers(1, 4))
def test_batched_equals_alone_with_histories(
    mode: Mode, talks: list[list[tuple[str, int]]], width: int
) -> None:
    requests = [
        EngineRequest(
            str(i), chat_prompt(f"{i}"), SAMPLED, 12, i, history=_history(parts, i), session=f"s{i % 3}{i}"
        )
        for i, parts in enumerate(talks)
    ]
    alone = {}
    for request in requests:
        alone.update(run_all(fake_engine(1, mode, n_ctx_seq=2048)[0], [request])[0])
    together, _ = run_all(fake_engine(width, mode, n_ctx_seq=2048)[0], requests)
    assert {i: end.tokens for i, end in together.items()} == {i: end.tokens for i, end in alone.items()}


@given(
    n_common=st.integers(0, 300),
    n_more=st.integers(1, 300),
    parts=_segments,
    chunk=st.sampled_from([1, 8, 64]),
)
def test_a_rendered_prompt_is_split_at_what_was_evaluated(
    n_common: int, n_more: int, parts: list[tuple[str, int]], chunk: int
) -> None:
    evaluated = history.normalized(_history(parts))
    common = history.flat(history.first(evaluated, n_common))
    ids = common + (999,) * n_more
    past, prompt = history.split(ids, evaluated, chunk)
    assert history.flat(past) + prompt == ids
    assert prompt
    assert history.first(evaluated, history.length(past)) == past
    assert len(common) - history.length(past) <= chunk
    reached = history.first(evaluated, len(common))
    if reached and reached[-1].kind == "decoded":
        assert past == reached, "sampled tokens can be cut anywhere"
