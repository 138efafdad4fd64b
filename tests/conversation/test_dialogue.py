"""A dialogue with the fake model: what it answers, tells and keeps, without a command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infer_cli.answering.silent import SilentSink
from infer_cli.answering.sink import Grain
from infer_cli.conversation.continuing import find_conversation
from infer_cli.conversation.dialogue import Dialogue, DialogueOptions, NotTaken, TakenReply
from infer_cli.conversation.earlier_settings import EarlierSettings
from infer_cli.conversation.ledger import Ledger
from infer_cli.conversation.model import ConversationModel, open_for_conversation
from infer_cli.errors import ContextOverflow, ModelNotFound, UsageError
from infer_cli.models.installed import fake_model
from infer_cli.records.record import making_sense
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.session import Session
from infer_cli.settings.origins import Given, RunSeed, Setting
from infer_cli.types import TEMPLATE_DECIDES, Delta
from tests.cli_helpers import script


class View:
    """Notes what a dialogue tells. `at_text` and `at_status` are called when there is some."""

    def __init__(self) -> None:
        self.text = ""
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.details: list[str] = []
        self.taken: list[TakenReply] = []
        self.not_taken: list[NotTaken] = []
        self.at_text: Callable[[], object] = lambda: None
        self.at_prefill: Callable[[], object] = lambda: None
        self.at_status: Callable[[str], object] = lambda text: None
        self.warn, self.note, self.detail = self.warnings.append, self.notes.append, self.details.append
        self.reply_taken, self.message_not_taken = self.taken.append, self.not_taken.append

    def status(self, text: str) -> None:
        self.at_status(text)

    def clear_status(self) -> None:
        pass

    def sink(self) -> TextSink:
        self.text = ""
        return TextSink(self)


class TextSink(SilentSink):
    takes: Grain = "text"

    def __init__(self, view: View) -> None:
        self._view = view

    def prefill(self, sample: int, done: int, total: int) -> None:
        self._view.at_prefill()

    def delta(self, delta: Delta) -> None:
        self._view.text += delta.text
        self._view.at_text()


class Models:
    """Opens fake models, and closes them in the end."""

    def __init__(self, ctx: int | None = None) -> None:
        self._ctx = ctx
        self._opened: list[ConversationModel] = []

    def open(self, name: str | None) -> ConversationModel:
        if name == "nonsense":
            raise ModelNotFound("no such model")
        session = Session(fake_model(name or "fake"), EngineOptions(threads=1, ctx=self._ctx), 1, 2)
        self._opened.append(open_for_conversation(session, self._ctx, None))
        return self._opened[-1]

    def close(self) -> None:
        for model in self._opened:
            model.close()


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def models() -> Iterator[Models]:
    models = Models()
    yield models
    models.close()


def options(**changed: Any) -> DialogueOptions:
    values: dict[str, Any] = {
        "model": None,
        "system": None,
        "variables": {},
        "overflow": "drop-oldest",
        "sampling": {"temperature": Given(0, "-t")},
        "seed": None,
        "max_tokens": 40,
        "thinking": TEMPLATE_DECIDES,
        "stop": (),
        "deadline_s": None,
        "settings": (Setting("max_tokens", 40, "default"),),
        "records": True,
        "private": False,
        "caches": True,
        "cache_bytes": None,
    }
    return DialogueOptions(**{**values, **changed})


def said(dialogue: Dialogue) -> list[str]:
    return [message.text for message in dialogue.conversation.messages()]


HOT = {"temperature": Given(8, "-t"), "top_k": Given(0, "--top-k")}  # no two replies alike


def test_a_turn_evaluates_only_what_is_new(view: View, models: Models) -> None:
    dialogue = Dialogue(options(), models.open, view)
    assert dialogue.ask("one")
    assert view.text == "You said: one"
    before = dialogue.totals.n_evaluated
    assert dialogue.ask("two")
    assert said(dialogue) == ["one", "You said: one", "two", "You said: two"]
    first, second = view.taken
    assert second.reply.usage.cached_tokens == first.n_tokens == before
    assert (second.model, second.window, second.is_stopped) == ("fake", 4096, False)
    assert second.n_tokens == dialogue.conversation.n_tokens
    assert dialogue.totals.n_evaluated == second.n_tokens
    assert (dialogue.totals.n_replies, dialogue.totals.n_reused) == (2, before)


def test_undo_another_reply_and_another_message(view: View, models: Models) -> None:
    dialogue = Dialogue(options(sampling=HOT), models.open, view)
    for message in ("a", "b", "c"):
        dialogue.ask(message)
    assert dialogue.undo() == "c"
    reply = dialogue.conversation.turns[-1].reply
    dialogue.ask_again(same=True)
    assert dialogue.conversation.turns[-1].reply.digest == reply.digest
    dialogue.ask_again()
    assert dialogue.conversation.turns[-1].reply.digest != reply.digest
    assert reply.seed is not None
    dialogue.ask_again(seed=reply.seed)
    assert dialogue.conversation.turns[-1].reply.digest == reply.digest
    dialogue.replace_last("d")
    assert said(dialogue)[::2] == ["a", "d"]


def test_a_message_that_fails_leaves_the_last_one(view: View) -> None:
    models = Models(ctx=300)
    dialogue = Dialogue(options(overflow="error", max_tokens=20), models.open, view)
    dialogue.ask("a")
    before = said(dialogue)
    with pytest.raises(ContextOverflow):
        dialogue.replace_last("x" * 400)
    assert said(dialogue) == before
    models.close()


def test_nothing_can_be_done_without_a_turn(view: View, models: Models) -> None:
    dialogue = Dialogue(options(), models.open, view)
    for act in (dialogue.undo, dialogue.ask_again, dialogue.go_on):
        with pytest.raises(UsageError):
            act()
    assert not dialogue.stop()


def test_a_reply_that_is_stopped_is_kept_and_goes_on(view: View, models: Models, tmp_path: Path) -> None:
    slow = script(tmp_path, step_s=0.01, default_reply="word " * 20)
    dialogue = Dialogue(options(model=slow, max_tokens=200), models.open, view)
    view.at_text = dialogue.stop
    assert dialogue.ask("go")
    (taken,) = view.taken
    assert taken.is_stopped and taken.reply.finish_reason == "cancelled"
    assert 0 < len(dialogue.conversation.turns[0].text) < 99
    view.at_text = lambda: None
    dialogue.go_on()
    assert dialogue.conversation.turns[0].text == "word " * 20
    assert len(dialogue.conversation.turns) == 1
    assert not view.taken[1].is_stopped
    first, second = find_conversation(None, view.warn).branches["main"]
    assert (first.finish_reason, second.finish_reason) == ("cancelled", "stop")


def test_what_is_stopped_inside_a_prefill_is_not_taken(view: View, models: Models, tmp_path: Path) -> None:
    slow = script(tmp_path, token_s=0.001)
    dialogue = Dialogue(options(model=slow), models.open, view)
    view.at_prefill = dialogue.stop
    assert not dialogue.ask("x" * 2000)
    assert (view.not_taken, view.taken, said(dialogue)) == (["stopped in prefill"], [], [])
    with pytest.raises(UsageError, match="no conversation yet"):
        find_conversation(None, view.warn)


def test_a_late_reply_is_counted(view: View, models: Models, tmp_path: Path) -> None:
    slow = script(tmp_path, step_s=0.05, default_reply="word " * 20)
    dialogue = Dialogue(options(model=slow, deadline_s=0.4, max_tokens=200), models.open, view)
    dialogue.ask("go")
    assert dialogue.totals.n_late == 1
    assert len(view.taken) + len(view.not_taken) == 1


def test_a_summary_is_asked_for_once(view: View) -> None:
    models = Models(ctx=800)
    dialogue = Dialogue(options(overflow="summarize", max_tokens=30), models.open, view)
    statuses: list[str] = []
    view.at_status = statuses.append
    while not statuses:
        dialogue.ask("x" * 60)
    assert statuses == ["summarizing the oldest turns"]
    assert "summarized" in view.warnings[-1]
    assert dialogue.conversation.visible.summary is not None
    n_replies = len(view.taken)
    assert dialogue.totals.n_replies == n_replies, "a summary is no reply"
    dialogue.ask_again()
    assert len(statuses) == 1, "the same request has the same summary"
    models.close()


def test_a_summary_that_is_stopped_gives_the_message_up(view: View) -> None:
    models = Models(ctx=800)
    dialogue = Dialogue(options(overflow="summarize", max_tokens=30), models.open, view)

    def press(text: str) -> None:
        raise KeyboardInterrupt

    view.at_status = press
    with pytest.raises(KeyboardInterrupt):
        while True:
            before = said(dialogue)
            dialogue.ask("x" * 60)
    assert view.not_taken == ["stopped"]
    assert said(dialogue) == before
    models.close()


def test_another_model_reads_text(view: View, models: Models, tmp_path: Path) -> None:
    other = script(tmp_path, default_reply="I am another")
    dialogue = Dialogue(options(), models.open, view)
    dialogue.ask("a")
    with pytest.raises(ModelNotFound):
        dialogue.change_model("nonsense")
    assert dialogue.model_name == "fake"
    assert dialogue.conversation.turns[0].ids is not None
    dialogue.change_model(other)
    assert dialogue.model_name == "script.json"
    assert dialogue.conversation.turns[0].ids is None
    dialogue.ask("b")
    assert said(dialogue) == ["a", "You said: a", "b", "I am another"]


def test_branches(view: View, models: Models) -> None:
    dialogue = Dialogue(options(), models.open, view)
    dialogue.ask("a")
    assert dialogue.switch_branch("x")
    dialogue.ask("b")
    assert not dialogue.switch_branch("main")
    branches = dialogue.conversation.branches
    assert (branches.current, branches.sizes) == ("main", {"main": 1, "x": 2})
    kept = find_conversation(None, view.warn)
    assert kept.thread.branch == "main"
    assert {name: len(records) for name, records in kept.branches.items()} == branches.sizes
    thread = dialogue.ledger.thread_id
    dialogue.clear()
    assert (branches.current, branches.sizes) == ("main", {"main": 0})
    assert dialogue.ledger.thread_id != thread


def test_going_on_in_another_process(view: View, models: Models) -> None:
    one = Dialogue(options(sampling=HOT, system="Be brief."), models.open, view)
    for message in ("a " * 200, "b"):
        one.ask(message)
    one.ledger.rename("mine")
    one.keep_state()
    kept = find_conversation("mine", view.warn)
    two = Dialogue(options(sampling=HOT, system=kept.system), models.open, view, kept)
    assert said(two) == said(one)
    assert (two.ledger.thread_id, two.ledger.name) == (one.ledger.thread_id, "mine")
    assert any("tokens of the conversation read" in detail for detail in view.details)
    seed = RunSeed(5, "--seed")
    one.ask("c", seed)
    two.ask("c", seed)
    together, apart = (dialogue.conversation.turns[-1].reply for dialogue in (one, two))
    assert together.digest == apart.digest
    assert together.usage == apart.usage


def test_another_conversation_comes_with_its_model(view: View, models: Models, tmp_path: Path) -> None:
    other = script(tmp_path, default_reply="I am another")
    Dialogue(options(model=other, system="Be odd."), models.open, view).ask("a")
    dialogue = Dialogue(options(), models.open, view)
    dialogue.load(find_conversation(None, view.warn))
    dialogue.ask("b")
    assert said(dialogue) == ["Be odd.", "a", "I am another", "b", "I am another"]
    assert view.warnings == []


def test_settings_hold_from_the_next_reply_on(view: View, models: Models) -> None:
    dialogue = Dialogue(options(sampling=HOT), models.open, view)
    dialogue.ask("a")
    dialogue.set_sampling({"top_k": Given("5", "--set top_k")})
    dialogue.set_max_tokens(7)
    dialogue.set_seed(RunSeed(3, "/seed"))
    dialogue.set_system("Be brief.")
    with pytest.raises(UsageError):
        dialogue.set_sampling({"temperature": Given("-1", "--set temperature")})
    told = find_conversation(None, view.warn)
    assert told.system == "Be brief."
    assert Setting("max_tokens", 7, "/set") in told.last.settings
    assert Setting("seed", 3, "/seed") in told.last.settings
    dialogue.ask("b")
    reply = dialogue.conversation.turns[-1].reply
    assert (reply.run_seed, reply.params["top_k"], reply.params["max_tokens"]) == (3, 5, 7)
    assert dialogue.reply_settings.sampling.temperature == 8


def test_a_seed_by_flag_wants_sampling(view: View, models: Models) -> None:
    with pytest.raises(UsageError, match="--seed has no meaning"):
        Dialogue(options(seed=RunSeed(1, "--seed")), models.open, view)
    greedy = Dialogue(options(seed=RunSeed(1, "INFER_SEED")), models.open, view)
    greedy.ask("a")
    assert view.taken[0].reply.seed is None


@pytest.mark.parametrize(
    ("name", "value"), [("max_tokens", "many"), ("stop", "END"), ("deadline", 5), ("overflow", "nonsense")]
)
def test_a_setting_that_makes_no_sense_is_refused(
    view: View, models: Models, name: str, value: object
) -> None:
    Dialogue(options(), models.open, view).ask("a")
    record = find_conversation(None, view.warn).last
    record = replace(record, settings=(*record.settings[1:], Setting(name, value, "--flag")))
    earlier = EarlierSettings(record, frozenset())
    read = {"max_tokens": earlier.number, "stop": earlier.texts, "deadline": earlier.text}
    with pytest.raises(UsageError, match=f"can't be used again.*{value}"), making_sense(record):
        earlier.overflow() if name == "overflow" else read[name](name)
    by_flag = EarlierSettings(record, frozenset({name}))
    assert by_flag.overflow() is None
    assert by_flag.number("max_tokens") is None


def test_a_ledger_that_is_off_keeps_nothing(view: View, models: Models, own_home: Path) -> None:
    dialogue = Dialogue(options(records=False, caches=False), models.open, view)
    dialogue.ask("a")
    dialogue.set_system("x")
    dialogue.keep_state()
    assert not (own_home / "data" / "records.sqlite").exists()
    with pytest.raises(UsageError, match="nothing is recorded"):
        dialogue.ledger.rename("x")


def test_a_ledger_begins_anew() -> None:
    ledger = Ledger(print)
    first = ledger.thread_id
    ledger.begin()
    assert ledger.thread_id != first
    assert ledger.name is None
