"""States that outlive their engine: what an engine gives and takes, what of a prompt is kept and found."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.backend.fake import FakeBackend, FakeScript
from infer_cli.backend.spec import ContextSpec
from infer_cli.engine.engine import Engine
from infer_cli.engine.mode_policy import ModelTraits, choose
from infer_cli.engine.service import Service
from infer_cli.errors import UnexpectedFailure
from infer_cli.models.installed import fake_model
from infer_cli.prefix_cache.cache import PrefixCache
from infer_cli.prefix_cache.store import GRID, PrefixStore
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.session import Session
from infer_cli.settings.defaults import MIN_PREFIX
from infer_cli.text.common_prefix import n_same
from infer_cli.types import EngineRequest, Finished, Mode, SamplingParams, Segment
from tests.engine_helpers import fake_engine, request, run_all

BOOK = tuple(i % 251 for i in range(5 * GRID))


def prompt(*segments: tuple[int, ...]) -> tuple[Segment, ...]:
    return tuple(Segment("prompt", ids) for ids in segments)


def asked(request_id: str, ids: tuple[int, ...]) -> EngineRequest:
    return EngineRequest(request_id, ids, SamplingParams(temperature=1.0), 20, seed=7)


# --- the engine -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "canonical", "invariant"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_reply_after_an_adopted_state_is_the_same(mode: Mode, data: st.DataObject) -> None:
    n_book = data.draw(st.integers(1, 4)) * GRID
    questions = data.draw(st.lists(st.binary(min_size=2, max_size=150), min_size=2, max_size=2))
    width = data.draw(st.integers(1, 3))
    first, second = (asked(str(i), BOOK[:n_book] + tuple(q)) for i, q in enumerate(questions))
    engine, _, _, _ = fake_engine(width, mode, n_ctx_seq=1024)
    run_all(engine, [first])
    state = engine.snapshot(prompt(BOOK[:n_book]))
    assert state is not None

    fresh, _, _, _ = fake_engine(width, mode, n_ctx_seq=1024)
    alone, _ = run_all(fresh, [second])
    other, backend, _, _ = fake_engine(width, mode, n_ctx_seq=1024)
    assert other.adopt(prompt(BOOK[:n_book]), state)
    ends, _ = run_all(other, [second])
    assert ends["1"].tokens == alone["1"].tokens
    assert ends["1"].usage.cached_tokens == n_book > alone["1"].usage.cached_tokens == 0
    assert sum(backend.row_counts) < n_book + len(questions[1]) + width * 20


def test_only_what_was_evaluated_in_the_same_chunks_is_given() -> None:
    engine, _, _, _ = fake_engine(n_ctx_seq=1024)
    run_all(engine, [asked("a", BOOK[: 2 * GRID + 1])])
    # The last chunk had 65 rows: the end of the second one is no place between chunks.
    assert engine.snapshot(prompt(BOOK[: 2 * GRID])) is None
    assert engine.snapshot(prompt(BOOK[: GRID + 5])) is None
    assert engine.snapshot(prompt(BOOK[1 : GRID + 1])) is None
    assert engine.snapshot(()) is None
    assert engine.snapshot((Segment("decoded", BOOK[:GRID]),)) is None
    assert engine.snapshot(prompt(BOOK[:GRID])) is not None
    # It was cut down to that.
    assert engine.snapshot(prompt(BOOK[: 2 * GRID + 1])) is None


def test_a_state_of_another_length_or_shape_is_refused_and_leaves_the_slot_empty() -> None:
    engine, _, _, _ = fake_engine(n_ctx_seq=512)
    run_all(engine, [asked("a", BOOK)])
    state = engine.snapshot(prompt(BOOK[:GRID]))
    assert state is not None
    for segments, data in (
        (prompt(BOOK[: 2 * GRID]), bytes(state)),
        (prompt(BOOK[:GRID]), bytes(state[:-1])),
        (prompt(BOOK[:GRID]), b""),
        ((), b""),
    ):
        other, backend, _, _ = fake_engine(n_ctx_seq=512)
        assert not other.adopt(segments, data)
        assert backend.held(0) == ()
        ends, _ = run_all(other, [request("b", "hello")])
        assert ends["b"].text == b"You said: hello"


def test_a_state_takes_a_slot_that_a_session_keeps_only_where_there_is_no_other() -> None:
    engine, backend, _, _ = fake_engine(2, n_ctx_seq=512)
    run_all(engine, [request("a", "hello", session="talk")])
    state = bytearray(b"".join(token.to_bytes(4, "little") for token in BOOK[:GRID]))
    kept = backend.held(0)
    assert engine.adopt(prompt(BOOK[:GRID]), state)
    assert (backend.held(0), backend.held(1)) == (kept, BOOK[:GRID])
    engine, backend, _, _ = fake_engine(1, n_ctx_seq=512)
    run_all(engine, [request("a", "hello", session="talk")])
    assert engine.adopt(prompt(BOOK[:GRID]), state)
    assert (backend.held(0), engine.n_held(BOOK[: 2 * GRID])) == (BOOK[:GRID], GRID)
    engine.submit(request("b", "hello"), 0.0)
    engine.step()
    assert not engine.adopt(prompt(BOOK[:GRID]), state)  # no slot is idle


def test_a_model_whose_state_cannot_be_cut_neither_gives_nor_takes() -> None:
    policy = choose("fast", 1, ModelTraits(recurrent=True))
    spec = ContextSpec(512, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 1)
    engine = Engine(FakeBackend(FakeScript(), spec), policy, lambda: 0.0, 512)
    run_all(engine, [asked("a", BOOK)])
    assert engine.snapshot(prompt(BOOK[:GRID])) is None
    assert not engine.adopt(prompt(BOOK[:1]), b"\0\0\0\0")


def test_a_state_that_is_only_saved_alone_costs_the_other_slots_theirs() -> None:
    engine, backend, _, _ = fake_engine(3, n_ctx_seq=512)
    backend.saves_alone = True
    run_all(engine, [asked(name, BOOK) for name in "abc"])
    state = engine.snapshot(prompt(BOOK[:GRID]))
    assert state is not None
    assert backend.state_save(1) == b"" and backend.state_save(0) == state
    ends, _ = run_all(engine, [asked("a", BOOK)])
    assert ends["a"].usage.cached_tokens == GRID


def test_no_state_is_saved_alone_while_others_run() -> None:
    engine, backend, _, _ = fake_engine(2, n_ctx_seq=512)
    backend.saves_alone = True
    run_all(engine, [asked("a", BOOK)])
    engine.submit(asked("b", (65,) * 40), 0.0)
    engine.step()
    assert engine.snapshot(prompt(BOOK[:GRID])) is None


# --- the service ----------------------------------------------------------------------------------


def service_of(script: FakeScript | None = None) -> tuple[Service, FakeBackend]:
    policy = choose("canonical", 1, ModelTraits())
    spec = ContextSpec(512, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 1)
    backend = FakeBackend(script or FakeScript(), spec)
    return Service(Engine(backend, policy, lambda: 0.0, 512), lambda: 0.0), backend


def test_a_service_gives_and_takes_states_between_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    service, backend = service_of()
    try:
        (end,) = (event for event in service.submit([asked("a", BOOK)]) if isinstance(event, Finished))
        state = service.snapshot(prompt(BOOK[:GRID]))
        assert state is not None
        assert service.adopt(prompt(BOOK[:GRID]), state)
        (again,) = (event for event in service.submit([asked("b", BOOK)]) if isinstance(event, Finished))
        assert again.tokens == end.tokens and again.usage.cached_tokens == GRID

        def fail(_seq: int) -> bytearray:
            raise MemoryError

        monkeypatch.setattr(backend, "state_save", fail)
        with pytest.raises(MemoryError):  # the caller's: the engine goes on
            service.snapshot(prompt(BOOK[:GRID]))
        assert list(service.submit([asked("c", BOOK)]))
    finally:
        service.close()


def test_a_service_that_has_ended_says_so() -> None:
    service, _ = service_of()
    service.close()
    with pytest.raises(UnexpectedFailure, match="stopped"):
        service.snapshot(prompt(BOOK))


# --- the policy -----------------------------------------------------------------------------------


class Caching:
    """A fake engine with a cache on a store; each one stands for a process."""

    def __init__(self, directory: Path, *, sha256: str | None = "a" * 64, mode: Mode = "canonical") -> None:
        session = Session(fake_model("fake"), EngineOptions(threads=1, mode=mode), 1, 2)
        self.running = session.start(4096)
        self.notes: list[str] = []
        store = PrefixStore(directory, 1 << 20)
        self.cache = PrefixCache(self.running, store, "fake", sha256, self.notes.append)

    def ask(self, ids: tuple[int, ...]) -> Finished:
        self.cache.restore(ids)
        events = self.running.service.submit([asked("a", ids)])
        (end,) = (event for event in events if isinstance(event, Finished))
        return end

    def kept(self, ids: tuple[int, ...], n_shared: int) -> int:
        kept = self.cache.keep(ids, n_shared)
        return 0 if kept is None or not kept.written else kept.n_tokens


def test_another_question_begins_where_the_files_end(tmp_path: Path) -> None:
    one, other = (*BOOK, 10, 11, 12), (*BOOK, 20, 21, 22)
    process = Caching(tmp_path)
    process.ask(one)
    assert process.kept(one, len(BOOK) + 1) == len(BOOK)
    again = Caching(tmp_path)
    end = again.ask(other)
    assert end.usage.cached_tokens == len(BOOK)
    assert end.tokens == Caching(tmp_path / "none").ask(other).tokens
    assert again.kept(other, len(BOOK)) == 0
    assert any("320 tokens read" in note for note in again.notes)
    # Another engine or another model has none of it.
    assert Caching(tmp_path, mode="fast").ask(other).usage.cached_tokens == 0
    assert Caching(tmp_path, sha256="b" * 64).ask(other).usage.cached_tokens == 0
    assert Caching(tmp_path, sha256=None).ask(other).usage.cached_tokens == 0


@pytest.mark.parametrize("n_prompt", [5 * GRID, 5 * GRID + 1, 5 * GRID + 2, 5 * GRID + 63])
@pytest.mark.parametrize("mode", ["canonical", "invariant"])
def test_what_is_kept_is_used_whole_whatever_the_length(tmp_path: Path, n_prompt: int, mode: Mode) -> None:
    ids = (*BOOK, *range(100))[:n_prompt]
    process = Caching(tmp_path, mode=mode)
    first = process.ask(ids)
    n = process.kept(ids, n_prompt)
    assert n in (4 * GRID, 5 * GRID)
    again = Caching(tmp_path, mode=mode).ask(ids)
    assert again.usage.cached_tokens == n
    assert again.tokens == first.tokens


def test_too_little_is_not_kept(tmp_path: Path) -> None:
    process = Caching(tmp_path)
    process.ask(BOOK)
    assert process.kept(BOOK, MIN_PREFIX - 1) == 0
    assert process.kept(BOOK, MIN_PREFIX) == MIN_PREFIX


def test_a_file_that_has_grown_is_kept_anew_once_it_pays(tmp_path: Path) -> None:
    process = Caching(tmp_path)
    process.ask((*BOOK, 1, 2))
    assert process.kept((*BOOK, 1, 2), len(BOOK)) == len(BOOK)
    for n_more, wanted in ((GRID, 0), (MIN_PREFIX + GRID, len(BOOK) + MIN_PREFIX + GRID)):
        grown = (*BOOK, *(i % 7 for i in range(n_more)), 1, 2)
        process = Caching(tmp_path)
        assert process.ask(grown).usage.cached_tokens == len(BOOK)
        assert process.kept(grown, len(grown)) == wanted


def test_a_damaged_file_is_evaluated_again_and_a_shorter_one_used(tmp_path: Path) -> None:
    ids = (*BOOK, 1, 2)
    for n in (MIN_PREFIX, len(BOOK)):
        process = Caching(tmp_path)
        process.ask(ids)
        process.cache.n_restored = 0
        process.kept(ids, n)
    newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_size)
    newest.write_bytes(newest.read_bytes()[:-1])
    process = Caching(tmp_path)
    end = process.ask(ids)
    assert end.usage.cached_tokens == MIN_PREFIX
    assert any("could not be used" in note for note in process.notes)
    assert end.tokens == Caching(tmp_path / "none").ask(ids).tokens


def test_no_memory_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Caching(tmp_path)
    process.ask((*BOOK, 1, 2))
    process.kept((*BOOK, 1, 2), len(BOOK))
    monkeypatch.setattr("infer_cli.system.memory.available_memory", lambda: 100)
    process = Caching(tmp_path)
    assert process.ask((*BOOK, 1, 2)).usage.cached_tokens == 0
    assert any("no memory" in note for note in process.notes)


def test_the_common_beginning() -> None:
    assert n_same((), (1,)) == 0
    assert n_same((1, 2, 3), (1, 2)) == n_same((1, 2), (1, 2, 3)) == 2
    assert n_same((1, 2, 3), (1, 5, 3)) == 1
