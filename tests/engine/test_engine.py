"""The engine on the fake backend, which raises on whatever llama.cpp would refuse."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.backend.fake import FakeBackend, FakeScript
from infer_cli.backend.spec import ContextSpec
from infer_cli.engine.drafting import MAX_ROWS
from infer_cli.engine.engine import Engine
from infer_cli.engine.mode_policy import ModelTraits, choose
from infer_cli.engine.service import HAND_OVER_S, Service
from infer_cli.types import EngineRequest, Event, Finished, Mode, Prefilled, SamplingParams, Token
from tests.engine_helpers import chat_prompt, fake_engine, request, run_all

SAMPLED = SamplingParams(temperature=1.5, top_k=50)


def test_one_reply_from_submission_to_end_token() -> None:
    engine, _, _, _ = fake_engine()
    ends, events = run_all(engine, [request("a", "hello")])
    end = ends["a"]
    assert end.text == b"You said: hello"
    assert end.reason == "stop"
    assert end.tokens == (*b"You said: hello", 258)
    assert end.usage.prompt_tokens == len(chat_prompt("hello"))
    assert end.usage.completion_tokens == 16
    assert isinstance(events[0], Prefilled)
    assert b"".join(e.text for e in events if isinstance(e, Token)) + end.tail == end.text


@pytest.mark.parametrize(
    ("mode", "kv_unified"),
    [("fast", False), ("fast", True), ("canonical", False), ("invariant", False)],
)
@pytest.mark.parametrize("pairs_rows", [False, True])
@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(min_size=0, max_size=150), min_size=1, max_size=10),
    width=st.integers(1, 6),
    data=st.data(),
)
def test_batched_equals_alone(
    mode: Mode, kv_unified: bool, pairs_rows: bool, texts: list[str], width: int, data: st.DataObject
) -> None:
    """Whoever shares the batch, in whatever order: the same tokens, greedy and sampled."""
    requests = [
        request(
            str(i),
            text,
            max_tokens=data.draw(st.integers(1, 40)),
            sampling=SAMPLED if i % 2 else SamplingParams(),
            seed=i if i % 2 else None,
        )
        for i, text in enumerate(texts)
    ]
    alone = {}
    for r in requests:
        engine, _, _, _ = fake_engine(1, mode, n_ctx_seq=1024, pairs_rows=pairs_rows)
        alone.update(run_all(engine, [r])[0])
    engine, backend, _, _ = fake_engine(
        width, mode, n_ctx_seq=1024, pairs_rows=pairs_rows, kv_unified=kv_unified, speculate=kv_unified
    )
    together, _ = run_all(engine, data.draw(st.permutations(requests)))
    for request_id, end in alone.items():
        assert together[request_id].tokens == end.tokens
        assert together[request_id].text == end.text
        assert together[request_id].reason == end.reason
    assert backend.open_samplers == 0
    whole = {(), *(r.prompt_ids + together[r.id].tokens[:-1] for r in requests)}
    assert all(backend.held(seq) in whole for seq in range(backend.n_seq_max)), "no dummy is left"


@pytest.mark.parametrize("mode", ["fast", "invariant"])
@pytest.mark.parametrize("pairs_rows", [False, True])
@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text("ab \n", min_size=0, max_size=60), min_size=1, max_size=6),
    width=st.integers(1, 6),
    data=st.data(),
)
def test_guessing_changes_no_reply(
    mode: Mode, pairs_rows: bool, texts: list[str], width: int, data: st.DataObject
) -> None:
    """Texts that repeat themselves, so that guesses are made, and are right and wrong."""
    requests = [
        request(
            str(i),
            text,
            max_tokens=data.draw(st.integers(1, 80)),
            sampling=SAMPLED if i % 2 else SamplingParams(),
            seed=i if i % 2 else None,
            stop=(b"ab a",) if i % 3 == 0 else (),
            n_logprobs=2,
        )
        for i, text in enumerate(texts)
    ]
    plain = run_all(fake_engine(width, mode, n_ctx_seq=256, pairs_rows=pairs_rows)[0], requests)[0]
    engine, backend, _, _ = fake_engine(width, mode, n_ctx_seq=256, pairs_rows=pairs_rows, speculate=True)
    guessing = run_all(engine, requests)[0]
    for request_id, end in plain.items():
        assert guessing[request_id]._replace(timings=end.timings, usage=end.usage) == end
    whole = {(), *(r.prompt_ids + guessing[r.id].tokens[:-1] for r in requests)}
    assert all(backend.held(seq) in whole for seq in range(backend.n_seq_max)), "no guess is left"


@pytest.mark.parametrize("mode", ["fast", "invariant"])
def test_a_reply_that_repeats_its_prompt_takes_few_steps(mode: Mode) -> None:
    text = "the quick brown fox jumps over the lazy dog, again and again; " * 3
    steps = {}
    for speculate in (False, True):
        engine, backend, _, _ = fake_engine(1, mode, n_ctx_seq=1024, speculate=speculate)
        (end,) = run_all(engine, [request("a", text, max_tokens=300)])[0].values()
        assert end.text.decode() == f"You said: {text}"
        assert max(backend.row_counts[1:]) <= (MAX_ROWS if speculate else 2)
        steps[speculate] = backend.n_decodes
    assert steps[True] * 3 < steps[False]


def test_canonical_never_guesses() -> None:
    engine, backend, _, policy = fake_engine(1, "canonical", n_ctx_seq=1024, speculate=True)
    run_all(engine, [request("a", "la " * 100, max_tokens=300)])
    assert not policy.speculates
    assert set(backend.row_counts[6:]) == {1}


def test_canonical_decode_calls_have_exactly_w_rows() -> None:
    engine, backend, _, _ = fake_engine(width=8)
    run_all(engine, [request("a", "x" * 200), request("b", "y")])
    sizes = set(backend.row_counts)
    n_a, n_b = len(chat_prompt("x" * 200)), len(chat_prompt("y"))
    assert sizes <= {8, 64, n_a % 64, n_b % 64}


def test_rows_come_in_pairs_where_a_lone_row_takes_another_kernel() -> None:
    engine, backend, _, _ = fake_engine(width=1, mode="invariant", pairs_rows=True)
    run_all(engine, [request("a", "hello")])
    assert min(backend.row_counts) == 2


def test_a_one_token_prompt_is_paired_with_a_dummy() -> None:
    from infer_cli.types import EngineRequest

    for width in (1, 3):
        engine, backend, _, _ = fake_engine(width=width, mode="invariant", pairs_rows=True)
        requests = [EngineRequest(str(i), (65,), SamplingParams(), 3) for i in range(width)]
        ends, _ = run_all(engine, requests)
        assert {len(end.tokens) for end in ends.values()} == {3}
        assert min(backend.row_counts) >= 2


def test_finish_reasons_are_told_apart() -> None:
    engine, _, _, _ = fake_engine(width=4, n_ctx_seq=64)
    ends, _ = run_all(
        engine,
        [
            request("stop", "x"),
            request("length", "hello", max_tokens=3),
            request("stop_string", "hello", stop=(b"said",)),
            request("context", "z" * 30),
        ],
    )
    assert {name: end.reason for name, end in ends.items()} == {name: name for name in ends}
    assert ends["length"].text == b"You"
    assert ends["stop_string"].text == b"You "
    assert ends["context"].usage.prompt_tokens + ends["context"].usage.completion_tokens == 64


def test_a_deadline_keeps_what_came() -> None:
    engine, _, clock, _ = fake_engine()
    engine.submit(request("a", "hello", deadline_s=5.0), 0.0)
    for _ in range(4):
        engine.step()
    clock.now = 5.0
    (end,) = [e for e in engine.step() if isinstance(e, Finished)]
    assert end.reason == "deadline"
    assert b"You said: hello".startswith(end.text)
    assert end.text
    assert engine.idle


def test_a_deadline_ends_a_request_that_still_waits() -> None:
    engine, _, clock, _ = fake_engine(width=1)
    engine.submit(request("first"), 0.0)
    engine.submit(request("second", deadline_s=1.0), 0.0)
    engine.step()
    clock.now = 2.0
    ends = [e for e in engine.step() if isinstance(e, Finished)]
    assert [(e.request_id, e.reason, e.tokens) for e in ends] == [("second", "deadline", ())]


def test_cancel_and_the_slot_is_free_again() -> None:
    engine, _, _, _ = fake_engine(width=1)
    engine.submit(request("a"), 0.0)
    engine.step()
    engine.step()
    engine.cancel("a")
    engine.cancel("nobody")
    assert [e.reason for e in engine.step() if isinstance(e, Finished)] == ["cancelled"]
    ends, _ = run_all(engine, [request("b")])
    assert ends["b"].text == b"You said: hello"


def test_an_aborted_decode_call_is_done_again() -> None:
    engine, backend, _, _ = fake_engine(width=2)
    engine.submit(request("a", "hello"), 0.0)
    engine.submit(request("b", "x" * 80), 0.0)
    ends = {}
    for i in range(500):
        if engine.idle:
            break
        if i % 3 == 0:
            backend.abort()
        for event in engine.step():
            if isinstance(event, Finished):
                ends[event.request_id] = event
        backend.resume()
    assert ends["a"].text == b"You said: hello"
    assert ends["b"].text == b"You said: " + b"x" * 80


def test_nan_logits_are_an_error_not_a_token() -> None:
    engine, _, _, _ = fake_engine(script=FakeScript(nan_after=4))
    ends, _ = run_all(engine, [request("a")])
    assert ends["a"].reason == "error"
    assert ends["a"].error is not None
    assert "NaN" in ends["a"].error
    assert ends["a"].error_status == 4


def test_logprobs_are_of_the_raw_distribution() -> None:
    engine, _, _, _ = fake_engine()
    ends, _ = run_all(engine, [request("a", max_tokens=3, n_logprobs=5)])
    logprobs = ends["a"].logprobs
    assert logprobs is not None
    assert [lp.token for lp in logprobs] == list(ends["a"].tokens)
    for lp in logprobs:
        assert lp.top[0] == (lp.token, lp.logprob), "greedy takes the likeliest"
        assert [v for _, v in lp.top] == sorted((v for _, v in lp.top), reverse=True)
        assert sum(math.exp(v) for _, v in lp.top) < 1.0 + 1e-9
    assert run_all(engine, [request("b", max_tokens=3)])[0]["b"].logprobs is None


@pytest.mark.parametrize("speculate", [False, True])
def test_the_logits_of_each_token_are_observed(speculate: bool) -> None:
    """Neither those of dummies nor of guesses that were wrong."""
    policy = choose("invariant", 3, ModelTraits(pairs_rows=True), speculate=speculate)
    spec = ContextSpec(1024, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 1)
    seen: dict[str, list[int]] = {"a": [], "b": []}
    engine = Engine(
        FakeBackend(FakeScript(), spec), policy, lambda: 0.0, 1024,
        on_logits=lambda active, logits: seen[active.request.id].append(int(logits.argmax())),
    )  # fmt: skip
    ends, _ = run_all(engine, [request("a", "again and again; " * 5), request("b", max_tokens=3)])
    assert seen == {name: list(end.tokens) for name, end in ends.items()}


def test_a_seed_repeats_and_another_differs() -> None:
    def tokens(seed: int) -> tuple[int, ...]:
        engine, _, _, _ = fake_engine()
        hot = SamplingParams(temperature=5.0, top_k=0)
        return run_all(engine, [request("a", sampling=hot, seed=seed, max_tokens=30)])[0]["a"].tokens

    assert tokens(0) == tokens(0)
    assert len({tokens(seed) for seed in range(5)}) == 5


def test_penalties_see_the_prompt() -> None:
    engine, backend, _, _ = fake_engine()
    seen: list[list[int]] = []
    original = backend.new_sampler

    def spy(params: SamplingParams, seed: int):  # type: ignore[no-untyped-def]
        sampler = original(params, seed)
        seen.append(sampler.accepted)
        return sampler

    backend.new_sampler = spy  # type: ignore[method-assign]
    penalized = SamplingParams(repeat_penalty=1.1)
    r = request("a", sampling=penalized, max_tokens=1)
    run_all(engine, [r])
    assert seen[0][: len(r.prompt_ids)] == list(r.prompt_ids)


def test_a_character_split_over_tokens_arrives_whole() -> None:
    engine, _, _, _ = fake_engine()
    ends, _ = run_all(engine, [request("a", "🙂 مرحبا 你好")])
    assert ends["a"].text.decode() == "You said: 🙂 مرحبا 你好"


def parcels(seconds_a_look: float) -> list[list[Event]]:
    """What a service hands over, parcel by parcel, for one reply of 6 tokens."""
    policy = choose("fast", 1, ModelTraits())
    spec = ContextSpec(256, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 1)
    backend = FakeBackend(FakeScript(), spec)
    looks = itertools.count(1)

    def clock() -> float:
        return next(looks) * seconds_a_look

    service = Service(Engine(backend, policy, clock, 256), clock)
    try:
        stream = service.submit([EngineRequest("r", tuple(b"hello"), SamplingParams(), 6)])
        found: list[list[Event]] = []
        while not found or not isinstance(found[-1][-1], Finished):
            parcel = stream.mailbox.get(timeout=10)
            assert isinstance(parcel, list)
            found.append(parcel)
        return found
    finally:
        service.close()


def test_quick_tokens_are_handed_over_together_and_the_first_at_once() -> None:
    found = parcels(1e-6)
    assert [type(event).__name__ for event in found[0]] == ["Prefilled", "Token"]
    assert [type(event).__name__ for event in found[1]] == ["Token"] * 5 + ["Finished"]
    assert len(found) == 2


def test_slow_tokens_are_handed_over_one_by_one() -> None:
    found = parcels(HAND_OVER_S)
    assert [len(parcel) for parcel in found] == [2, 1, 1, 1, 1, 2]
    quick, slow = ([event for parcel in kind for event in parcel] for kind in (parcels(1e-6), found))
    assert quick[:-1] == slow[:-1]


def test_prompts_that_begin_alike_are_evaluated_together_once_their_beginning_is_in_memory() -> None:
    """In one memory: first the beginning, by one of them, then the ends of all in one call."""
    beginning, ends = "x" * 700, [c * 30 for c in "abcdef"]
    engine, backend, _, policy = fake_engine(6, "fast", n_ctx_seq=2048, kv_unified=True)
    requests = [request(end, beginning + end, max_tokens=1) for end in ends]
    found, _ = run_all(engine, requests)
    n_first = len(chat_prompt(beginning + ends[0]))
    n_end = n_first - len(chat_prompt(beginning)) + len(chat_prompt("")) - len(b"user\n") - 1
    n_whole, n_rest = divmod(n_first, policy.chunk)
    assert backend.row_counts == [*[policy.chunk] * n_whole, n_rest, 5 * n_end]
    assert {end.usage.cached_tokens for end in found.values()} == {0, n_first - n_end}
    assert all(end.text == b"Y" for end in found.values())


@pytest.mark.parametrize(("mode", "moves"), [("fast", True), ("invariant", True), ("canonical", False)])
def test_replies_that_are_left_move_together(mode: Mode, moves: bool) -> None:
    """Each hole below a live slot would cost a dummy row a step; canonical shapes keep theirs."""
    n_tokens = [2, 2, 60, 2, 2, 60]
    engine, backend, _, _ = fake_engine(6, mode, n_ctx_seq=512)
    requests = [request(str(i), "x" * 70, max_tokens=n) for i, n in enumerate(n_tokens)]
    ends, _ = run_all(engine, requests)
    assert [len(ends[str(i)].tokens) for i in range(6)] == n_tokens
    assert all(b"You said: ".startswith(end.text[:10]) for end in ends.values())
    n_steps = 60 - 2
    assert backend.row_counts[-n_steps:] == [2 if moves else 8] * n_steps
    assert engine.n_dummy_rows == (0 if moves else 2 + 6 * n_steps)


def test_a_reply_that_soon_ends_stays_where_it_is() -> None:
    engine, backend, _, _ = fake_engine(2, "fast", n_ctx_seq=512)
    run_all(engine, [request("a", max_tokens=2), request("b", max_tokens=10)])
    assert backend.row_counts[-1] == 2
