"""One job, whatever its sink takes: tokens one by one, text in parcels, or the finished reply."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infer_cli.answering.job import Job
from infer_cli.answering.oneshot import OneShot
from infer_cli.answering.sink import Grain
from infer_cli.models.installed import fake_model
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.runtime.session import Session
from infer_cli.text.reasoning import TagPair
from infer_cli.types import Delta, Reply, SamplingParams
from tests.engine_helpers import chat_prompt

ANSWER = "<think>häh? ä</think>\n\nJa: 日本 and <think> again"


class Recorder:
    """A sink that keeps what it was handed."""

    def __init__(self, takes: Grain) -> None:
        self.takes = takes
        self.deltas: list[Delta] = []
        self.replies: list[Reply] = []

    def start(self, info: dict[str, object]) -> None:
        pass

    def prefill(self, sample: int, done: int, total: int) -> None:
        pass

    def delta(self, delta: Delta) -> None:
        self.deltas.append(delta)

    def end(self, reply: Reply) -> None:
        self.replies.append(reply)

    def close(self) -> None:
        pass

    def text(self, sample: int, *, reasoning: bool) -> str:
        of = [d for d in self.deltas if (d.sample, d.reasoning) == (sample, reasoning)]
        return "".join(delta.text for delta in of)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"default_reply": ANSWER}), "utf-8")
    return Session(fake_model(f"fake:{script}"), EngineOptions(1, mode="fast"), 3, 2)


@pytest.fixture
def running(session: Session) -> Iterator[RunningEngine]:
    running = session.start(512)
    yield running
    running.service.close()


def answered(session: Session, running: RunningEngine, takes: Grain, **more: object) -> Recorder:
    job = Job(
        "job",
        chat_prompt("hello"),
        SamplingParams(),
        {},
        max_tokens=200,
        run_seed=None,
        reasoning_pairs=(TagPair("<think>", "</think>"),),
        **more,  # type: ignore[arg-type]
    )
    sink = Recorder(takes)
    OneShot(job, running, session.loaded.vocab, sink).run()
    return sink


@pytest.mark.parametrize("n_samples", [1, 3])
def test_every_sink_is_told_the_same_reply(session: Session, running: RunningEngine, n_samples: int) -> None:
    grains: tuple[Grain, ...] = ("token", "text", "reply")
    token, text, reply = (answered(session, running, grain, n_samples=n_samples) for grain in grains)
    for sink in (token, text, reply):
        assert [r.digest for r in sorted(sink.replies, key=lambda r: r.sample)] == [
            r.digest for r in sorted(token.replies, key=lambda r: r.sample)
        ]
        for sample in range(n_samples):
            assert sink.text(sample, reasoning=True) == "häh? ä"
            assert sink.text(sample, reasoning=False) == "Ja: 日本 and <think> again"
    for sample in range(n_samples):
        ids = token.replies[0].tokens
        for sink in (token, text):
            assert sum((d.tokens for d in sink.deltas if d.sample == sample), ()) == ids
        # reasoning and answer are told apart to the token, in parcels too
        thought, known = (
            sum(len(d.tokens) for d in sink.deltas if d.sample == sample and d.reasoning)
            for sink in (token, text)
        )
        assert thought == known > 0
    assert max(len(delta.tokens) for delta in token.deltas) == 1
    assert len(text.deltas) < len(token.deltas)  # quick tokens come together
    assert all(delta.tokens == () for delta in reply.deltas)


def test_a_stop_string_ends_what_does_not_stream_too(session: Session, running: RunningEngine) -> None:
    grains: tuple[Grain, ...] = ("token", "text", "reply")
    for sink in (answered(session, running, grain, stop=("本 and",)) for grain in grains):
        assert sink.text(0, reasoning=False) == "Ja: 日"
        assert sink.replies[0].text == "Ja: 日"
        assert sink.replies[0].finish_reason == "stop_string"


def test_a_reply_is_cancelled_before_it_begins(session: Session, running: RunningEngine) -> None:
    job = Job("job", chat_prompt("hello"), SamplingParams(), {}, max_tokens=200, run_seed=None)
    shot = OneShot(job, running, session.loaded.vocab, Recorder("text"))
    shot.cancel()
    assert [reply.finish_reason for reply in shot.run()] == ["cancelled"]
