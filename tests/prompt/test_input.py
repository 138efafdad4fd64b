"""Reading the parts of a prompt, and planning it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer_cli.backend.base import Vocab
from infer_cli.backend.fake import FakeVocab
from infer_cli.errors import UsageError
from infer_cli.prompt.input import PromptInput, PromptSources, read_input
from infer_cli.prompt.plan import PromptEncoder, PromptPlan, plan_prompt


class Silent:
    """Is told what was read, and keeps it to itself."""

    def status(self, text: str) -> None: ...

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...


def nothing_piped() -> bytes | None:
    return None


@pytest.fixture
def notes(tmp_path: Path) -> str:
    path = tmp_path / "notes.txt"
    path.write_text("full", "utf-8")
    return str(path)


def plan(given: PromptInput, window: int = 4096) -> PromptPlan:
    vocab: Vocab = FakeVocab()
    encoder = PromptEncoder(vocab, None, {})
    return plan_prompt(given, encoder, window=window, max_tokens=8, policy="error")


def test_what_is_piped_comes_after_the_files(notes: str) -> None:
    given = read_input(PromptSources(words=("why?",), files=(notes,)), lambda: b"piped", Silent())
    assert [item.text for item in given.attachments] == ["full", "piped"]
    assert given.tagged


def test_line_ends_alone_are_nothing_piped(notes: str) -> None:
    assert len(read_input(PromptSources(files=(notes,)), lambda: b"\r\n", Silent()).attachments) == 1
    raw = read_input(PromptSources(files=(notes,), raw=True), lambda: b"\n", Silent())
    assert len(raw.attachments) == 2


def test_the_pipe_is_not_asked_where_a_part_is_stdin_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> bytes | None:
        raise AssertionError

    monkeypatch.setattr("infer_cli.prompt.input.read_bytes", lambda name: b"[]" if name == "-" else b"")
    given = read_input(PromptSources(words=("hi",), tools="-"), asked, Silent())
    assert given.tools == []


def test_a_file_that_awaits_a_question_has_its_name(notes: str) -> None:
    alone = read_input(PromptSources(files=(notes,)), nothing_piped, Silent())
    awaiting = read_input(PromptSources(files=(notes,), awaits_question=True), nothing_piped, Silent())
    assert (alone.tagged, awaiting.tagged) == (False, True)
    assert not read_input(
        PromptSources(files=(notes,), raw=True, awaits_question=True), nothing_piped, Silent()
    ).tagged


def test_no_message_at_all_is_an_error() -> None:
    with pytest.raises(UsageError, match="the prompt is empty"):
        read_input(PromptSources(), nothing_piped, Silent())


def test_a_text_without_tokens_is_an_error_where_its_window_is_asked_for() -> None:
    with pytest.raises(UsageError, match="the prompt is empty"):
        plan(read_input(PromptSources(raw=True), nothing_piped, Silent())).needed_window(8, 4096)


def test_another_question_changes_the_end_alone(notes: str) -> None:
    prompt = plan(
        read_input(PromptSources(words=("who",), files=(notes,), raw=True), nothing_piped, Silent())
    )
    assert prompt.messages is None
    assert prompt.encoded.text == "full\n\nwho"
    other = prompt.ids_of_another_question()
    assert other == prompt.ids[: len(other)]
