"""Likelihoods: what the engine says of a text does not depend on what is scored beside it."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.backend.fake import FakeBackend, FakeScript
from infer_cli.backend.spec import ContextSpec
from infer_cli.engine.engine import Engine
from infer_cli.engine.likelihood import LogSoftmax, is_likeliest
from infer_cli.engine.mode_policy import ModelTraits, ModePolicy, choose
from infer_cli.engine.score_engine import ScoreEngine
from infer_cli.engine.service import Service
from infer_cli.errors import ExitStatus
from infer_cli.runtime.scoring_context import LOGITS_BYTES, scoring_context
from infer_cli.types import EngineRequest, Finished, Mode, Prefilled, SamplingParams, ScoreRequest

WINDOW = 300


class FewRows(FakeBackend):
    """Has room for few rows, logits and sequences, so that texts are cut."""

    def __init__(
        self, script: FakeScript, spec: ContextSpec, n_rows: int, n_outputs: int, n_seqs: int
    ) -> None:
        super().__init__(script, spec._replace(n_batch=n_rows, n_outputs_max=n_outputs, n_seq_max=n_seqs))


def spec_of(policy: ModePolicy, n_vocab: int = 259) -> ContextSpec:
    context = ContextSpec(WINDOW, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 1)
    return scoring_context(context, policy, WINDOW, n_vocab)


def score_engine(
    mode: Mode = "invariant",
    script: FakeScript | None = None,
    limits: tuple[int, int, int] | None = None,
    *,
    traits: ModelTraits | None = None,
    **more: Any,
) -> tuple[ScoreEngine, FakeBackend]:
    policy = choose(mode, 1, traits or ModelTraits())
    spec = spec_of(policy)
    script = script or FakeScript()
    backend = FewRows(script, spec, *limits) if limits else FakeBackend(script, spec)
    return ScoreEngine(backend, policy, lambda: 0.0, WINDOW, **more), backend


def ends_of(engine: ScoreEngine, requests: list[ScoreRequest]) -> dict[str, Finished]:
    for request in requests:
        engine.submit(request, 0.0)
    ends: dict[str, Finished] = {}
    for _ in range(10_000):
        if engine.idle:
            break
        for event in engine.step():
            if isinstance(event, Finished):
                assert event.request_id not in ends
                ends[event.request_id] = event
    assert engine.idle
    assert ends.keys() == {request.id for request in requests}
    return ends


def alone(request: ScoreRequest) -> tuple[tuple[float, ...], bool]:
    """What a plain loop says: a token after the other, logits of all of them."""
    backend = FakeBackend(FakeScript(), ContextSpec(WINDOW, 1, 1, 1, 1))
    logprobs, greedy = [], True
    for position, token in enumerate(request.ids[:-1]):
        backend.decode([token], [position], [0], [True])
        row = backend.logits(1)[0]
        if position + 1 >= request.first:
            peak = row.max()
            norm = math.log(float(np.exp(row - peak).sum(dtype=np.float64)))
            following = request.ids[position + 1]
            logprobs.append(float(row[following]) - float(peak) - norm)
            greedy = greedy and int(row.argmax()) == following
    return tuple(logprobs), greedy


def texts(requests: list[str], first: int = 1) -> list[ScoreRequest]:
    return [ScoreRequest(str(n), tuple(text.encode()), first) for n, text in enumerate(requests)]


ids = st.lists(st.integers(97, 99), min_size=2, max_size=40).map(tuple)


@st.composite
def score_requests(draw: st.DrawFn) -> list[ScoreRequest]:
    found = []
    for n, text in enumerate(draw(st.lists(ids, min_size=1, max_size=12))):
        found.append(ScoreRequest(str(n), text, draw(st.integers(1, len(text) - 1))))
    return sorted(found, key=lambda r: r.ids) if draw(st.booleans()) else found


@given(
    score_requests(),
    st.sampled_from(["invariant", "fast", "canonical"]),
    st.none() | st.tuples(st.integers(3, 60), st.integers(2, 20), st.integers(3, 8)),
    st.booleans(),
)
@settings(deadline=None)
def test_a_score_does_not_depend_on_the_others(
    requests: list[ScoreRequest], mode: Mode, limits: tuple[int, int, int] | None, pairs_rows: bool
) -> None:
    if mode == "canonical":
        limits = None
    engine, backend = score_engine(mode, limits=limits, traits=ModelTraits(pairs_rows=pairs_rows))
    ends = ends_of(engine, requests)
    for request in requests:
        end = ends[request.id]
        assert end.likelihood is not None
        assert end.likelihood == alone(request)
        assert (end.reason, end.tokens, end.text) == ("stop", (), b"")
        assert end.usage.prompt_tokens == len(request.ids) - 1
    n_rows = sum(end.usage.prompt_tokens - end.usage.cached_tokens for end in ends.values())
    if not (pairs_rows and mode == "invariant"):  # there are dummies
        assert n_rows <= sum(backend.row_counts)
    if pairs_rows and mode == "invariant":
        assert min(backend.row_counts) >= 2


@given(st.lists(ids, min_size=1, max_size=40))
@settings(deadline=None)
def test_what_fits_one_call_is_evaluated_once(found: list[tuple[int, ...]]) -> None:
    requests = [ScoreRequest(str(n), text, 1) for n, text in enumerate(sorted(found))]
    distinct = {text[:n] for text in found for n in range(1, len(text))}
    engine, backend = score_engine()
    ends = ends_of(engine, requests)
    if len(distinct) <= 500:
        assert backend.row_counts == [len(distinct)]
    assert sum(e.usage.prompt_tokens - e.usage.cached_tokens for e in ends.values()) == sum(
        backend.row_counts
    )


def test_a_shared_beginning_is_evaluated_once_over_many_calls() -> None:
    shots, questions = "s" * 120, [f"question {n} {'q' * (n % 7)}" for n in range(30)]
    requests = [
        ScoreRequest(f"{q}-{c}", tuple(f"{shots}{q}: {c}nswer".encode()), len(f"{shots}{q}: "))
        for q in sorted(questions)
        for c in "ABCD"
    ]
    distinct = {r.ids[:n] for r in requests for n in range(1, len(r.ids))}
    engine, backend = score_engine(limits=(64, 32, 16))
    ends_of(engine, requests)
    assert len(backend.row_counts) > 20
    assert sum(backend.row_counts) <= 1.05 * len(distinct)


def test_a_text_longer_than_a_call_goes_on_where_it_was() -> None:
    request = ScoreRequest("a", tuple(b"abc" * 60), 100)
    engine, backend = score_engine(limits=(40, 10, 4))
    ends = ends_of(engine, [request])
    assert ends["a"].likelihood == alone(request)
    assert sum(backend.row_counts) == len(request.ids) - 1


def test_canonical_chunks_have_all_rows_as_outputs_and_go_back_to_a_boundary() -> None:
    asked: list[list[bool]] = []
    engine, backend = score_engine("canonical")
    decode = backend.decode

    def spy(tokens: Any, positions: Any, seqs: Any, outputs: Any) -> Any:
        asked.append(list(outputs))
        return decode(tokens, positions, seqs, outputs)

    backend.decode = spy  # type: ignore[method-assign]
    context = tuple(b"c" * 150)
    requests = [ScoreRequest(c, context + tuple(f"{c} end".encode()), 150) for c in "AB"]
    ends = ends_of(engine, requests)
    # 64, 64, then the rest from 128: again for the second, because logits are wanted in it.
    assert [len(outputs) for outputs in asked] == [64, 64, 26, 26]
    assert [all(outputs) for outputs in asked] == [False, False, True, True]
    assert not any(any(outputs) for outputs in asked[:2])
    assert {i: end.likelihood for i, end in ends.items()} == {r.id: alone(r) for r in requests}
    assert ends["B"].usage.cached_tokens == 128


def test_a_state_that_cannot_be_cut_is_made_anew() -> None:
    engine, backend = score_engine("fast", limits=(17, 16, 1), traits=ModelTraits(recurrent=True))
    n_cut = 0

    def seq_rm(seq: int, p0: int) -> bool:
        nonlocal n_cut
        if 0 < p0 < len(backend.held(seq)):
            n_cut += 1
            return False
        return FakeBackend.seq_rm(backend, seq, p0)

    backend.seq_rm = seq_rm  # type: ignore[method-assign]
    requests = texts(["a" * 20 + "bcd", "a" * 20 + "xyz", "a" * 20 + "xyzabc"], first=20)
    ends = ends_of(engine, requests)
    assert n_cut
    assert {i: end.likelihood for i, end in ends.items()} == {r.id: alone(r) for r in requests}


def test_greedy_says_whether_each_token_would_have_been_chosen() -> None:
    text = b"hello"
    backend = FakeBackend(FakeScript(), ContextSpec(WINDOW, 1, 64, 64, 1))
    ids = list(text)
    for _ in range(6):
        backend.seq_rm(0, 0)
        backend.decode(ids, range(len(ids)), [0] * len(ids), [False] * (len(ids) - 1) + [True])
        ids.append(int(backend.logits(1)[0].argmax()))
    engine, _ = score_engine()
    chosen, other = ScoreRequest("a", tuple(ids), 5), ScoreRequest("b", (*ids[:-1], 1), 5)
    ends = ends_of(engine, [chosen, other])
    assert ends["a"].likelihood is not None
    assert ends["a"].likelihood.greedy
    assert ends["b"].likelihood is not None
    assert not ends["b"].likelihood.greedy


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (ScoreRequest("x", (1, 2, 3), 0), "one at least must stand before"),
        (ScoreRequest("x", (1, 2, 3), 3), "one at least must stand before"),
        (ScoreRequest("x", (), 1), "one at least must stand before"),
        (ScoreRequest("x", (1,) * (WINDOW + 2), 1), f"{WINDOW + 1} tokens do not fit the window of {WINDOW}"),
        (ScoreRequest("x", (1, 259), 1), "token 259 of the text is outside the vocabulary of 259"),
        (ScoreRequest("x", (1, -1), 1), "token -1 of the text is outside"),
        (ScoreRequest("x", (1, "a"), 1), "a token of the text is not a whole number"),  # type: ignore[arg-type]
        (ScoreRequest("x", (1, 2), 1, float("nan")), "a deadline of nan s is asked for"),
    ],
)
def test_what_cannot_be_scored_fails_alone(request_: ScoreRequest, error: str) -> None:
    engine, _ = score_engine()
    good = ScoreRequest("good", (1, 2, 3), 1)
    ends = ends_of(engine, [request_, good])
    assert error in str(ends["x"].error)
    assert ends["x"].likelihood is None
    assert ends["good"].likelihood == alone(good)


def test_nan_fails_the_request_that_it_is_of() -> None:
    engine, _ = score_engine(script=FakeScript(nan_after=0))
    ends = ends_of(engine, texts(["abc"]))
    assert (ends["0"].error, ends["0"].error_status) == ("the model computed NaN", ExitStatus.MODEL_INVALID)


def test_deadlines_and_cancels_end_requests() -> None:
    now = 0.0
    policy = choose("invariant", 1, ModelTraits())
    engine = ScoreEngine(FakeBackend(FakeScript(), spec_of(policy)), policy, lambda: now, WINDOW)
    engine.submit(ScoreRequest("late", tuple(b"abc"), 1, 5.0), 0.0)
    engine.submit(ScoreRequest("gone", tuple(b"abd"), 1), 0.0)
    engine.submit(ScoreRequest("good", tuple(b"abe"), 1), 0.0)
    engine.cancel("gone")
    engine.cancel("unknown")
    now = 6.0
    events = engine.step()
    ends = {e.request_id: e.reason for e in events if isinstance(e, Finished)}
    assert ends == {"late": "deadline", "gone": "cancelled", "good": "stop"}
    assert [e for e in events if isinstance(e, Prefilled)] == [Prefilled("good", 2, 2)]


def test_an_id_in_use_is_refused() -> None:
    engine, _ = score_engine()
    engine.submit(ScoreRequest("a", (1, 2), 1), 0.0)
    with pytest.raises(ValueError, match="in use"):
        engine.submit(ScoreRequest("a", (1, 2), 1), 0.0)


def test_rows_are_shown_with_the_position_that_they_predict() -> None:
    seen: list[tuple[str, int, float]] = []

    def on_row(request: ScoreRequest, position: int, row: Any) -> None:
        seen.append((request.id, position, float(row.sum())))

    engine, _ = score_engine(on_row=on_row)
    ends_of(engine, texts(["abcd", "abcx"], first=2))
    assert [item[:2] for item in seen] == [("0", 2), ("0", 3), ("1", 2), ("1", 3)]
    assert seen[0][2] == seen[2][2]


# --- both engines behind one service --------------------------------------------------------------


def test_a_service_answers_and_scores() -> None:
    policy = choose("invariant", 2, ModelTraits())
    spec = ContextSpec(WINDOW, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 1)
    clock = time.perf_counter
    engine = Engine(FakeBackend(FakeScript(), spec), policy, clock, WINDOW)
    scoring = ScoreEngine(FakeBackend(FakeScript(), spec_of(policy)), policy, clock, WINDOW)
    service = Service(engine, clock, scoring)
    try:
        score = ScoreRequest("s", tuple(b"hello"), 2)
        asked = EngineRequest("r", tuple(b"hello"), SamplingParams(), 5)
        ends = {e.request_id: e for e in service.submit([asked, score]) if isinstance(e, Finished)}
        assert ends["s"].likelihood == alone(score)
        assert len(ends["r"].tokens) == 5
    finally:
        service.close()


def test_a_service_without_the_engine_says_so() -> None:
    policy = choose("invariant", 1, ModelTraits())
    scoring = ScoreEngine(FakeBackend(FakeScript(), spec_of(policy)), policy, time.perf_counter, WINDOW)
    service = Service(None, time.perf_counter, scoring)
    try:
        with pytest.raises(ValueError, match="no engine for replies"):
            service.submit([EngineRequest("r", tuple(b"hello"), SamplingParams(), 5)])
        ends = [e for e in service.submit([ScoreRequest("r", (1, 2), 1)]) if isinstance(e, Finished)]
        assert ends[0].likelihood is not None
        assert service.decode_rows == (0, 0)
    finally:
        service.close()


# --- arithmetic and memory ------------------------------------------------------------------------


def test_log_softmax_is_right_to_a_millionth() -> None:
    rng = np.random.default_rng(1)
    softmax = LogSoftmax(262_144)
    for scale in (0.1, 1.0, 8.0, 40.0):
        row = (rng.standard_normal(262_144) * scale).astype(np.float32)
        norm = softmax.norm(row)
        assert norm is not None
        wide = row.astype(np.longdouble)
        exact = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
        for token in (0, int(row.argmax()), int(row.argmin()), 77_777):
            assert abs(norm.logprob(float(row[token])) - float(exact[token])) < 1e-6
        assert is_likeliest(row, int(row.argmax()), norm)
        assert not is_likeliest(row, int(row.argmin()), norm)


def test_the_lowest_id_of_equal_logits_is_the_likeliest() -> None:
    row = np.array([1.0, 3.0, 3.0], np.float32)
    norm = LogSoftmax(3).norm(row)
    assert norm is not None
    assert is_likeliest(row, 1, norm)
    assert not is_likeliest(row, 2, norm)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_rows_that_are_no_numbers_have_no_norm(wrong: float) -> None:
    assert LogSoftmax(3).norm(np.array([1.0, wrong, 0.0], np.float32)) is None


@pytest.mark.parametrize("n_vocab", [259, 49_152, 151_936, 262_144, 2_000_000])
@pytest.mark.parametrize("mode", ["fast", "invariant", "canonical"])
def test_logits_of_a_call_are_bounded(mode: Mode, n_vocab: int) -> None:
    policy = choose(mode, 1, ModelTraits())
    spec = spec_of(policy, n_vocab)
    if mode == "canonical":
        assert (spec.n_seq_max, spec.n_batch, spec.n_outputs_max) == (1, 65, 65)
        return
    assert spec.n_outputs_max * n_vocab * 4 <= LOGITS_BYTES or spec.n_outputs_max == 2
    assert spec.n_seq_max <= spec.n_outputs_max <= spec.n_batch
    assert spec.n_cells is not None
    assert spec.n_cells >= WINDOW + spec.n_batch
