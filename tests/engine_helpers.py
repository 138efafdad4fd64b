"""Shared by engine tests: a fake engine driven step by step with a clock of its own."""

from __future__ import annotations

from infer_cli.backend.fake import FakeBackend, FakeScript
from infer_cli.backend.spec import ContextSpec
from infer_cli.engine.engine import Engine
from infer_cli.engine.mode_policy import ModelTraits, ModePolicy, choose
from infer_cli.types import EngineRequest, Event, Finished, Mode, SamplingParams

GREEDY = SamplingParams()


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def chat_prompt(text: str) -> tuple[int, ...]:
    """A fake model's prompt for one user message."""
    im_start, im_end = 257, 258
    return (
        im_start, *b"user\n", *text.encode(), im_end, *b"\n", im_start, *b"assistant\n",
    )  # fmt: skip


def fake_engine(
    width: int = 1,
    mode: Mode = "canonical",
    script: FakeScript | None = None,
    n_ctx_seq: int = 512,
    pairs_rows: bool = False,
    speculate: bool = False,
    kv_unified: bool = False,
) -> tuple[Engine, FakeBackend, Clock, ModePolicy]:
    policy = choose(
        mode, width, ModelTraits(pairs_rows=pairs_rows), speculate=speculate, kv_unified=kv_unified
    )
    spec = ContextSpec(
        n_ctx_seq,
        policy.n_seq_max,
        policy.n_batch,
        policy.n_outputs_max,
        1,
        kv_unified=policy.kv_unified,
    )
    backend = FakeBackend(script or FakeScript(), spec)
    clock = Clock()
    return Engine(backend, policy, clock, n_ctx_seq), backend, clock, policy


def request(request_id: str, text: str = "hello", *, max_tokens: int = 100, **more: object) -> EngineRequest:
    sampling = more.pop("sampling", GREEDY)
    assert isinstance(sampling, SamplingParams)
    return EngineRequest(request_id, chat_prompt(text), sampling, max_tokens, **more)  # type: ignore[arg-type]


def run_all(engine: Engine, requests: list[EngineRequest]) -> tuple[dict[str, Finished], list[Event]]:
    for r in requests:
        engine.submit(r, 0.0)
    events: list[Event] = []
    for _ in range(10_000):
        if engine.idle:
            break
        events += engine.step()
    assert engine.idle
    finished = [e for e in events if isinstance(e, Finished)]
    assert sorted(f.request_id for f in finished) == sorted(r.id for r in requests)
    return {f.request_id: f for f in finished}, events
