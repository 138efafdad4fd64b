"""A long prompt in `fast`: F16 weights read it, the engine with the stored ones goes on, and that is said."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infer_cli.conversation.dialogue import Dialogue
from infer_cli.conversation.model import ConversationModel, open_for_conversation
from infer_cli.errors import UnexpectedFailure
from infer_cli.models.installed import fake_model
from infer_cli.prefix_cache.store import GRID
from infer_cli.prefix_cache.warming import open_cache, warm
from infer_cli.runtime import fake_loading
from infer_cli.runtime.f16_weights import LEAST_READ
from infer_cli.runtime.fake_loading import FakeLoaded
from infer_cli.runtime.long_prompt import PromptReader, Reading
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.runtime.session import Session
from infer_cli.types import EngineRequest, Finished, Mode, SamplingParams, Timings, Usage
from tests.cli_helpers import INFER, REPO, Outcome, infer, lines_of, script
from tests.conversation.test_dialogue import View, options
from tests.tiny_gguf import write_tiny_gguf

IDS = tuple(65 + n % 26 for n in range(2000))
NOTE = "the prompt is long: F16 weights in memory read it"


class Hearing:
    """A `ReadingView` that notes what it is told."""

    def __init__(self) -> None:
        self.statuses: list[str] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.status, self.note, self.warn = self.statuses.append, self.notes.append, self.warnings.append


# --- from one engine to the other, with the fake model ----------------------------------------------


class Fakes:
    """Opens fake models which are said to gain by F16 weights, and notes how their loads were asked for."""

    def __init__(self) -> None:
        self.loads: list[EngineOptions] = []
        self._opened: list[tuple[Session, RunningEngine]] = []

    def open(self, mode: Mode = "fast", model: str = "fake", **more: Any) -> tuple[Session, RunningEngine]:
        session = Session(fake_model(model), EngineOptions(threads=1, mode=mode, **more), 1, 2)
        self._opened.append((session, session.start(4096)))
        return self._opened[-1]

    def open_model(self, name: str | None) -> ConversationModel:
        session = Session(fake_model(name or "fake"), EngineOptions(threads=1, mode="fast"), 1, 2)
        model = open_for_conversation(session, None, None)
        self._opened.append((session, model.running))
        return model

    @property
    def n_expanded(self) -> int:
        return sum(load.expand for load in self.loads)

    def close(self) -> None:
        for session, running in self._opened:
            running.close()
            session.close()


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fakes]:
    fakes = Fakes()
    loader = fake_loading.FakeLoader

    def load(model: str, options: EngineOptions, width: int) -> fake_loading.FakeLoader:
        fakes.loads.append(options)
        return loader(model, options, width)

    monkeypatch.setattr(fake_loading, "FakeLoader", load)
    monkeypatch.setattr(FakeLoaded, "may_expand", lambda _self, _n: True)
    yield fakes
    fakes.close()


def read(
    opened: tuple[Session, RunningEngine],
    ids: tuple[int, ...] = IDS,
    hearing: Hearing | None = None,
    deadline_s: float | None = None,
    on_prefill: Callable[[int], None] = lambda n_read: None,
) -> Reading:
    return PromptReader(*opened, hearing or Hearing()).read(ids, deadline_s, on_prefill)


def ask(running: RunningEngine, ids: tuple[int, ...]) -> Finished:
    request = EngineRequest("r", ids, SamplingParams(), max_tokens=4, session="talk")
    (end,) = [event for event in running.service.submit([request]) if isinstance(event, Finished)]
    return end


def test_all_but_the_last_token_is_handed_over(fakes: Fakes) -> None:
    session, running = fakes.open()
    hearing = Hearing()
    progress: list[int] = []
    reading = read((session, running), hearing=hearing, on_prefill=progress.append)
    assert (reading.n_before, hearing.notes, hearing.warnings) == (0, [NOTE], [])
    assert progress[-1] == len(IDS) - 1 and progress == sorted(progress)
    assert [load.expand for load in fakes.loads] == [False, True]
    assert running.service.n_held(IDS) == len(IDS) - 1
    assert ask(running, IDS).usage.cached_tokens == len(IDS) - 1


def test_what_a_session_has_evaluated_is_gone_on_from(fakes: Fakes) -> None:
    """In the only slot there is, which is kept for the session."""
    session, running = fakes.open()
    ask(running, IDS[:100])
    reading = read((session, running))
    assert reading.n_before == 100
    assert ask(running, IDS).usage.cached_tokens == len(IDS) - 1


@pytest.mark.parametrize("n", [LEAST_READ - 1, LEAST_READ])
def test_only_what_is_not_in_memory_counts(fakes: Fakes, n: int) -> None:
    session, running = fakes.open()
    ask(running, IDS[:300])
    reading = read((session, running), IDS[: 300 + n])
    assert reading.n_before == (300 if n == LEAST_READ else None)
    assert fakes.n_expanded == (n == LEAST_READ)


@pytest.mark.parametrize("mode", ["canonical", "invariant"])
def test_a_promise_has_the_prompt_read_with_the_stored_weights(fakes: Fakes, mode: Mode) -> None:
    assert read(fakes.open(mode)) == Reading()
    assert fakes.n_expanded == 0


def test_not_where_the_weights_are_f16_already_or_have_no_room(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(fakes.open(expand=True)) == Reading()
    rooms: list[int] = []
    monkeypatch.setattr(FakeLoaded, "may_expand", lambda _self, n: rooms.append(n))
    assert read(fakes.open()) == Reading()
    assert rooms == [2 * len(IDS)] and fakes.n_expanded == 1


def test_where_they_can_not_be_had_the_engine_reads(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_session: Session) -> Session:
        raise UnexpectedFailure("no room for the copy")

    monkeypatch.setattr(Session, "with_f16_weights", fail)
    session, running = fakes.open()
    hearing = Hearing()
    assert read((session, running), hearing=hearing).n_before is None
    assert hearing.warnings == ["weights are as they are stored: no room for the copy"]
    assert ask(running, IDS).usage.cached_tokens == 0


def test_a_deadline_ends_the_reading(fakes: Fakes, tmp_path: Path) -> None:
    opened = fakes.open(model=script(tmp_path, token_s=0.001))
    reading = read(opened, deadline_s=0.3)
    assert reading.n_before is None and 0.3 <= reading.seconds < 1.5
    assert opened[1].service.n_held(IDS) == 0


def test_the_time_that_it_took_is_part_of_the_replys() -> None:
    usage, timings = Usage(1001, 1000, 5), Timings(2.0, 0.5, 0.75, 1.75, 4.0, 5.0)
    end = Finished("r", "length", b"", (1,) * 5, b"", None, usage, timings)
    counted = Reading(3.25, 201).counted_in(end, 0)
    assert counted.usage == Usage(1001, 201, 5)
    assert counted.timings == Timings(2.0, 0.5, 4.0, 5.0, 800 / 3.5, 5.0)
    assert Reading(3.25, 201).counted_in(end, 1).usage == usage  # it was in memory then
    assert Reading().counted_in(end, 0) == end


def test_a_prompt_that_is_warmed_is_read_with_them(fakes: Fakes) -> None:
    session, running = fakes.open()
    prefixes = open_cache(session, running, None, None, lambda message: None)
    hearing = Hearing()
    progress: list[float] = []
    kept = warm(
        prefixes, running, PromptReader(session, running, hearing), IDS, 1900, "fake", progress.append
    )  # fmt: skip
    assert (kept.n_tokens, kept.written, hearing.notes) == (1900 // GRID * GRID, True, [NOTE])
    assert progress[-1] == 1.0 and progress == sorted(progress)
    again, other = fakes.open()
    assert read((again, other)).n_before == 0
    prefixes = open_cache(again, other, None, None, lambda message: None)
    prefixes.restore(IDS)
    assert prefixes.n_restored == kept.n_tokens and read((again, other)).n_before is None


# --- a conversation with the fake model --------------------------------------------------------------


def test_a_turn_with_a_long_message(fakes: Fakes) -> None:
    view = View()
    dialogue = Dialogue(options(caches=False), fakes.open_model, view)
    dialogue.ask("a")
    (short,) = view.taken
    assert dialogue.ask("word " * 400)
    assert view.notes == [NOTE]
    assert dialogue.ask("b")
    _, long, last = [taken.reply for taken in view.taken]
    assert long.usage.cached_tokens == short.n_tokens
    assert dialogue.totals.n_evaluated == view.taken[-1].n_tokens  # each token once
    assert view.text == "You said: b" and fakes.n_expanded == 1
    weights = [reply.engine.facts.get("prompt_weights") for reply in (short.reply, long, last)]
    assert weights == [None, "f16", None]
    assert long.engine.fingerprint != last.engine.fingerprint == short.reply.engine.fingerprint


@pytest.mark.parametrize("moment", ["load", "prefill"])
def test_what_is_stopped_meanwhile_is_not_taken(fakes: Fakes, tmp_path: Path, moment: str) -> None:
    view = View()
    dialogue = Dialogue(options(model=script(tmp_path, token_s=0.0005)), fakes.open_model, view)
    dialogue.ask("a")
    if moment == "load":
        view.at_status = lambda _text: dialogue.stop()
    else:
        view.at_prefill = dialogue.stop
    assert not dialogue.ask("word " * 400)
    assert view.not_taken == ["stopped in prefill"] and len(dialogue.conversation.turns) == 1
    view.at_status, view.at_prefill = (lambda _text: None), (lambda: None)
    assert dialogue.ask("b")
    assert view.text == "You said: b" and fakes.n_expanded == 1


def test_the_deadline_of_a_turn_holds_for_the_reading_too(fakes: Fakes, tmp_path: Path) -> None:
    view = View()
    slow = script(tmp_path, token_s=0.001)
    dialogue = Dialogue(options(model=slow, deadline_s=0.3), fakes.open_model, view)
    assert not dialogue.ask("word " * 400)
    assert view.not_taken == ["deadline"] and fakes.n_expanded == 1


# --- commands, with a model of random weights ---------------------------------------------------------


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "wide.gguf", weight_type="Q4_1", n_ctx_train=4096)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("the word and the world " * 400)  # 2,400 tokens of the tiny model's
    return path


def asked(model: Path, *arguments: object) -> dict[str, Any]:
    done = infer("run", "-m", model, "-n", 3, "--json", *arguments)
    assert done.code == 0, done.err
    return done.json


def weights_of(reply: dict[str, Any]) -> object:
    facts = reply["engine"]["facts"]
    assert "weights" not in facts  # those of the engine that replies
    return facts.get("prompt_weights")


def test_one_prompt_in_fast_alone(wide: Path, book: Path) -> None:
    done = infer("run", "-m", wide, "--fast", "-f", book, "q", "-n", 3, "--json", "--stats", "--no-cache")
    assert weights_of(done.json) == "f16"
    assert done.json["usage"]["cached_tokens"] == 0  # type: ignore[index]
    assert done.err.count(NOTE) == 1
    assert infer("replay", "last").text == "identical\n"
    for mode in ("--canonical", "--invariant"):
        assert weights_of(asked(wide, mode, "-f", book, "q")) is None
    assert weights_of(asked(wide, "--fast", "a short one")) is None


def test_several_samples_share_what_was_read(wide: Path, book: Path) -> None:
    flags = ("--fast", "-t", 1, "--samples", 2, "-n", 3, "--jsonl", "--no-record")
    done = infer("run", "-m", wide, *flags, "-f", book, "q")
    assert done.code == 0, done.err
    ends = [line for line in map(json.loads, done.text.splitlines()) if line["event"] == "end"]
    assert [weights_of(end) for end in ends] == ["f16", "f16"]
    n_prompt = ends[0]["usage"]["prompt_tokens"]
    assert sorted(end["usage"]["cached_tokens"] for end in ends) == [0, n_prompt - 1]


def test_what_they_have_read_is_kept_and_not_read_again(wide: Path, book: Path) -> None:
    first = asked(wide, "--fast", "-f", book, "q")
    assert weights_of(first) == "f16" and first["usage"]["cached_tokens"] == 0
    second = asked(wide, "--fast", "-f", book, "other")
    assert second["usage"]["cached_tokens"] > 2000 and weights_of(second) is None
    assert infer("replay", "last").code == 0


def test_a_file_that_is_warmed_is_not_read_again(wide: Path, book: Path) -> None:
    warmed = infer("cache", "warm", "-m", wide, "--fast", "-f", book)
    assert warmed.code == 0, warmed.err
    reply = asked(wide, "--fast", "-f", book, "q")
    assert reply["usage"]["cached_tokens"] > 2000 and weights_of(reply) is None


def talk(model: Path, lines: str, *flags: object) -> Outcome:
    done = infer("chat", "-m", model, "-t", 0, "-n", 3, "--fast", "--stats", *flags, stdin=lines.encode())
    assert done.code == 0, done.err
    return done


def test_a_chat_about_a_file_is_read_once_and_goes_on_later(wide: Path, book: Path) -> None:
    done = talk(wide, "what is it\nand then\n", "-f", book, "--no-cache")
    assert done.err.count(NOTE) == 1 and "warning" not in done.err
    replies = [record["engine"]["facts"] for record in exported()]
    assert [facts.get("prompt_weights") for facts in replies] == ["f16", None]
    assert infer("replay", "last").text.count("identical") == 1
    # Another process has to read all of it again.
    later = talk(wide, "more\n", "--continue", "--no-cache")
    assert later.err.count(NOTE) == 1
    # `infer run` adds a turn the same way.
    turn = infer("run", "--continue", "--stats", "--no-cache", "last", "-n", 3)
    assert turn.code == 0 and turn.err.count(NOTE) == 1, turn.err


def exported() -> list[dict[str, Any]]:
    return sorted(lines_of(infer("records", "export").out), key=lambda record: str(record["created_at"]))


def test_a_private_chat_leaves_nothing_of_it(wide: Path, book: Path, own_home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    done = infer(
        "chat", "-m", wide, "-t", 0, "-n", 3, "--fast", "--stats", "--private", "-f", book,
        stdin=b"what is it\n", env={"TMPDIR": str(folder)},
    )  # fmt: skip
    assert done.code == 0 and NOTE in done.err
    assert not list(folder.iterdir()) and not list(own_home.rglob("prefixes/*"))
    left = [path.read_bytes() for path in own_home.rglob("*") if path.is_file()]
    assert left and not any(b"the word and the world" in data for data in left)


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
def test_a_chat_goes_on_where_they_can_not_be_had(wide: Path, book: Path) -> None:
    flags = ("-t", "0", "-n", "3", "--fast", "--no-record", "-f")
    limited = ["bash", "-c", 'ulimit -f 256; exec "$@"', "-"]  # KiB
    done = subprocess.run(
        [*limited, *INFER, "chat", "-m", wide, *flags, book],
        input=b"what is it\n",
        capture_output=True,
        cwd=REPO,
    )
    assert done.returncode == 0 and done.stdout, done.stderr
    (warning,) = done.stderr.decode().splitlines()
    assert warning.startswith("warning: weights are as they are stored: llama.cpp could not write")


# --- the real model -----------------------------------------------------------------------------------


@pytest.mark.weights
def test_a_chat_with_the_default_model(smollm2: Path, tmp_path: Path, own_home: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("".join(f"Room {n} is empty.\n" for n in range(210)) + "The key is in room 301.\n")
    done = infer(
        "chat", "-m", smollm2, "-t", 0, "-n", 12, "--fast", "--stats", "--private", "-f", path,
        stdin=b"Where is the key?\nWhat is the capital of France?\n", timeout=300,
    )  # fmt: skip
    assert done.code == 0 and done.err.count(NOTE) == 1, done.err
    assert "301" in done.text.splitlines()[0] and "Paris" in done.text
    assert not list(own_home.rglob("prefixes/*"))
