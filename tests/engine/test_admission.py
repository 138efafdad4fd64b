"""A request that can't run fails alone: those beside it never learn of it."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.answering.reply import digest
from infer_cli.backend.fake import FakeBackend, FakeScript
from infer_cli.backend.spec import ContextSpec
from infer_cli.engine.engine import Engine
from infer_cli.engine.mode_policy import ModelTraits, choose
from infer_cli.engine.service import Service
from infer_cli.errors import UnexpectedFailure
from infer_cli.types import EngineRequest, Finished, Mode, SamplingParams, Segment
from tests.engine_helpers import fake_engine, request

WINDOW = 256
SAMPLED = SamplingParams(temperature=1.5, top_k=50)
FINE = request("fine", sampling=SAMPLED, seed=1)


def bad(request_id: str, **changes: object) -> EngineRequest:
    values = {f.name: getattr(FINE, f.name) for f in fields(FINE)}
    return EngineRequest(**{**values, "id": request_id, **changes})


# What is wrong, and what of it is said.
BAD: dict[str, tuple[Callable[[str], EngineRequest], str]] = {
    "empty": (lambda i: bad(i, prompt_ids=()), "prompt is empty"),
    "history that a prompt ends": (
        lambda i: bad(i, prompt_ids=(), history=(Segment("prompt", (65,)),)),
        "prompt is empty",
    ),
    "too long": (lambda i: bad(i, prompt_ids=(65,) * 300), "300 prompt tokens do not fit the window of 256"),
    "just too long": (lambda i: bad(i, prompt_ids=(65,) * 256), "256 prompt tokens do not fit"),
    "history too long": (lambda i: bad(i, history=(Segment("decoded", (65,) * 250),)), "do not fit"),
    "no such token": (lambda i: bad(i, prompt_ids=(65, 259)), "token 259 of the prompt is outside"),
    "negative token": (lambda i: bad(i, prompt_ids=(65, -1)), "token -1 of the prompt is outside"),
    "token of a history": (
        lambda i: bad(i, history=(Segment("prompt", (10**9,)),)),
        "token 1000000000 of the prompt is outside",
    ),
    "no whole token": (lambda i: bad(i, prompt_ids=(65, 66.5)), "not a whole number"),
    "seed below": (lambda i: bad(i, seed=-1), "seed -1 is outside"),
    "seed above": (lambda i: bad(i, seed=2**32 - 1), "seed 4294967295 is outside"),
    "no reply": (lambda i: bad(i, max_tokens=0), "0 tokens"),
    "log-probabilities": (lambda i: bad(i, n_logprobs=-1), "-1 tokens"),
    "deadline": (lambda i: bad(i, deadline_s=math.nan), "deadline of nan"),
    "past deadline": (lambda i: bad(i, deadline_s=-1.0), "deadline of -1.0"),
    "stop": (lambda i: bad(i, stop=(b"x", b"")), "stop string is empty"),
    "temperature": (lambda i: bad(i, sampling=SamplingParams(temperature=math.inf)), "temperature must be"),
    "no temperature": (
        lambda i: bad(i, sampling=SamplingParams(temperature=math.nan)),
        "temperature must be",
    ),
    "top_p": (lambda i: bad(i, sampling=SamplingParams(temperature=1, top_p=2.0)), "top_p must be between"),
    "top_k": (lambda i: bad(i, sampling=SamplingParams(temperature=1, top_k=2**40)), "top_k must be between"),
    "mirostat": (lambda i: bad(i, sampling=SamplingParams(temperature=1, mirostat=3)), "mirostat must be"),
    "penalty": (lambda i: bad(i, sampling=SamplingParams(repeat_penalty=0.0)), "repeat_penalty must be"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_run_ends_with_its_reason(kind: str) -> None:
    engine, backend, _, _ = fake_engine(n_ctx_seq=WINDOW)
    make, said = BAD[kind]
    engine.submit(make("a"), 0.0)
    assert not engine.idle
    (end,) = engine.step()
    assert isinstance(end, Finished)
    assert (end.request_id, end.reason, end.tokens, end.text) == ("a", "error", (), b"")
    assert end.error is not None and said in end.error
    assert engine.idle
    assert backend.n_decodes == backend.open_samplers == 0


def test_a_sampler_that_the_backend_refuses_is_its_own_requests_error() -> None:
    engine, backend, _, _ = fake_engine(width=2)
    original = backend.new_sampler

    def picky(params: SamplingParams, seed: int):  # type: ignore[no-untyped-def]
        if seed == 13:
            raise UnexpectedFailure("llama.cpp refused a sampler's parameters")
        return original(params, seed)

    backend.new_sampler = picky  # type: ignore[method-assign]
    ends = {}
    for seed in (12, 13, 14):
        engine.submit(request(str(seed), sampling=SAMPLED, seed=seed, max_tokens=5), 0.0)
    while not engine.idle:
        ends.update({e.request_id: e for e in engine.step() if isinstance(e, Finished)})
    assert {name: end.reason for name, end in ends.items()} == {"12": "length", "13": "error", "14": "length"}
    assert ends["13"].error == "llama.cpp refused a sampler's parameters"
    assert backend.open_samplers == 0


@pytest.mark.parametrize("mode", ["canonical", "invariant", "fast"])
@settings(max_examples=40, deadline=None)
@given(data=st.data(), width=st.integers(1, 6))
def test_neighbours_never_learn_of_it(mode: Mode, data: st.DataObject, width: int) -> None:
    """Bad requests at any moment, duplicates and busy sessions too: each good reply keeps its digest."""
    texts = data.draw(st.lists(st.text("abc ", max_size=90), min_size=1, max_size=6))
    good = [
        request(
            f"good {i}",
            text,
            max_tokens=data.draw(st.integers(1, 30)),
            sampling=SAMPLED if i % 2 else SamplingParams(),
            seed=i if i % 2 else None,
            session=f"session {i}",
        )
        for i, text in enumerate(texts)
    ]

    def answered(kinds: Iterator[str | None]) -> dict[str, Finished]:
        engine, backend, _, _ = fake_engine(width, mode, n_ctx_seq=WINDOW)
        for one in good:
            engine.submit(one, 0.0)
        found: dict[str, Finished] = {}
        n_bad = 0
        while not engine.idle:
            running = [one for one in good if one.id not in found]
            kind = next(kinds, None)
            if kind == "duplicate" and running:
                with pytest.raises(ValueError, match=f"'{running[0].id}' is in use"):
                    engine.submit(running[0], 0.0)
            elif kind == "session" and running:
                n_bad += 1
                engine.submit(bad(f"bad {n_bad}", session=running[0].session), 0.0)
            elif kind in BAD:
                n_bad += 1
                engine.submit(BAD[kind][0](f"bad {n_bad}"), 0.0)
            for event in engine.step():
                if isinstance(event, Finished):
                    assert event.request_id not in found
                    found[event.request_id] = event
        assert backend.open_samplers == 0
        wrong = {name: end for name, end in found.items() if name.startswith("bad")}
        assert len(wrong) == n_bad and all(end.reason == "error" for end in wrong.values())
        return {name: end for name, end in found.items() if name not in wrong}

    kinds = st.sampled_from([None, "duplicate", "session", *BAD])
    beside_none = answered(iter([]))
    beside_bad = answered(iter(data.draw(st.lists(kinds, max_size=40))))
    assert _digests(beside_bad) == _digests(beside_none)


def _digests(ends: dict[str, Finished]) -> dict[str, str]:
    return {
        name: digest(end.tokens, end.text.decode("utf-8", "replace"), end.reason, None, {})
        for name, end in ends.items()
    }


@pytest.fixture
def service() -> Iterator[Service]:
    policy = choose("canonical", 2, ModelTraits())
    spec = ContextSpec(WINDOW, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 1)
    backend = FakeBackend(FakeScript(step_s=0.001), spec)
    service = Service(Engine(backend, policy, time.perf_counter, WINDOW), time.perf_counter)
    try:
        yield service
    finally:
        service.close()


def _ends(stream: object) -> dict[str, Finished]:
    return {e.request_id: e for e in stream if isinstance(e, Finished)}  # type: ignore[attr-defined]


def test_a_stream_outlives_the_bad_requests_of_others(service: Service) -> None:
    good = service.submit([request("good"), request("too", "x" * 60)])
    wrong = [service.submit([make(f"bad {i}")]) for i, (make, _) in enumerate(BAD.values())]
    for i, (stream, (_, said)) in enumerate(zip(wrong, BAD.values(), strict=True)):
        (end,) = stream
        assert isinstance(end, Finished)
        assert (end.request_id, end.reason) == (f"bad {i}", "error")
        assert end.error is not None and said in end.error
    assert {end.text for end in _ends(good).values()} == {b"You said: hello", b"You said: " + b"x" * 60}


def test_one_stream_holds_good_and_bad(service: Service) -> None:
    ends = _ends(service.submit([request("good"), BAD["empty"][0]("bad"), request("other")]))
    assert {name: end.reason for name, end in ends.items()} == {
        "good": "stop",
        "bad": "error",
        "other": "stop",
    }


def test_an_id_in_use_is_its_submitters_mistake(service: Service) -> None:
    first = service.submit([request("a", "x" * 60)])
    for again in ([request("a", "thief")], [request("b"), request("b")], [request("c"), request("a")]):
        with pytest.raises(ValueError, match="in use"):
            service.submit(again)
    with pytest.raises(ValueError, match="in use"):
        service.submit([request("a", "thief")], first)
    assert _ends(first)["a"].text == b"You said: " + b"x" * 60
    assert _ends(service.submit([request("a"), request("c")])).keys() == {"a", "c"}, "both are free again"


def test_a_deadline_beyond_what_a_timer_takes_is_none(service: Service) -> None:
    """No traceback of a timer's thread either: pytest would make it an error."""
    ends = _ends(service.submit([request(str(i), deadline_s=s) for i, s in enumerate((1e12, math.inf))]))
    assert {end.reason for end in ends.values()} == {"stop"}


def test_who_comes_after_the_engine_has_stopped_is_told() -> None:
    policy = choose("canonical", 1, ModelTraits())
    spec = ContextSpec(WINDOW, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 1)
    backend = FakeBackend(FakeScript(), spec)
    counter = itertools.count()

    def broken(*_: object) -> None:
        raise OSError(f"broken {next(counter)}")

    backend.decode = broken  # type: ignore[assignment]
    service = Service(Engine(backend, policy, time.perf_counter, WINDOW), time.perf_counter)
    for name in ("a", "b"):
        with pytest.raises(UnexpectedFailure, match="OSError: broken 0"):
            list(service.submit([request(name)]))
    service.close()
