"""What the line of a chat offers for the word that is being typed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infer_cli.cli.chat.completing import completions
from infer_cli.cli.chat.slash_commands import COMMANDS, SETTINGS
from infer_cli.conversation.shortening import OVERFLOW_POLICIES
from infer_cli.conversation.turns import Branches
from infer_cli.settings.origins import Setting
from infer_cli.settings.sampling import SAMPLING_NAMES
from tests.cli_helpers import infer
from tests.terminal import Terminal


def chat() -> Any:
    """A chat as far as completion looks at it, with two branches."""
    branches = Branches()
    branches.switch("other idea")
    conversation = SimpleNamespace(branches=branches)
    return SimpleNamespace(
        dialogue=SimpleNamespace(conversation=conversation), settings=[Setting("top_k", 40, "default")]
    )


def lines(line: str) -> list[str]:
    """What the line can become."""
    return [line[: len(line) - each.replaces] + each.text for each in completions(chat(), line)]


def about(line: str) -> dict[str, str]:
    return {each.shown: each.about for each in completions(chat(), line)}


def test_commands_with_what_they_do() -> None:
    assert lines("/") == [f"/{name}" for name in COMMANDS]
    assert about("/bra") == {"/branch [NAME]": COMMANDS["branch"].help}
    assert lines("hello") == lines("//he") == lines("/nothing ") == lines("/set\n") == []


def test_set_names_then_values() -> None:
    assert lines("/set ") == [f"/set {name}" for name in SETTINGS]
    assert set(SETTINGS) == {*SAMPLING_NAMES, "max_tokens", "overflow", "reasoning"}
    assert about("/set top_k") == {"top_k": "40 (default)"}
    assert lines("/set over") == ["/set overflow"]
    assert lines("/set overflow ") == [f"/set overflow {word}" for word in OVERFLOW_POLICIES]
    assert lines("/set reasoning=h") == ["/set reasoning=hide"]
    assert lines("/set temperature ") == ["/set temperature model"]
    assert lines("/set top_k 4") == []


def test_branches_models_conversations() -> None:
    assert about("/branch ") == {"main": "0 turns", "other idea": "0 turns, this one"}
    assert lines("/branch OTHER I") == ["/branch other idea"]
    assert "/model smollm2-135m-instruct" in lines("/model smollm2")
    assert lines("/seed n") == ["/seed new"]
    assert lines("/load ") == []
    assert infer("chat", "-m", "fake", stdin=b"Why is the sky blue?\n/rename the sky\n").code == 0
    assert lines("/load the") == ["/load the sky"]
    assert "Why is the sky blue?" in about("/load ")["the sky"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two words").mkdir()
    for name in ("plain.md", "other.md", ".hidden", "two words/a b.txt"):
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("files")
def test_names_of_files() -> None:
    assert lines("/read p") == ["/read plain.md"]
    assert lines("/read two w") == ["/read two words/"]
    assert lines("/read two words/") == ["/read two words/a b.txt"]
    assert ".hidden" not in " ".join(lines("/attach "))
    assert lines("/attach .h") == ["/attach .hidden"]
    assert lines("/read nowhere/") == []


@pytest.mark.usefixtures("files")
def test_several_names_of_files_are_quoted() -> None:
    assert lines("/attach plain.md o") == ["/attach plain.md other.md"]
    assert lines("/attach two") == ["/attach 'two words/"]
    assert lines("/attach plain.md 'two words/a") == ["/attach plain.md 'two words/a b.txt'"]
    assert lines("/attach 'two words/a b.txt' p") == ["/attach 'two words/a b.txt' plain.md"]


def test_at_a_terminal() -> None:
    with Terminal("chat", "-m", "fake") as t:
        t.wait_for("/help for commands")
        t.send("/bra")
        t.wait_for("List branches, go to one or begin one here.")
        t.send("\x03")
        t.send("/set overf")
        t.wait_for("drop-oldest (default)")
        t.send("\t")
        t.wait_for("> /set overflow")
        t.send("\x03\x04")
        assert t.end() == 0
