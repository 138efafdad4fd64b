"""Where the next line of a chat comes from: an editor line at a terminal, or plain lines.

A message that begins with three double quotes goes on to the next three. Knows no model and no
conversation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from infer_cli.cli.chat.pastes import Pastes
from infer_cli.cli.screen.editor import edit_text
from infer_cli.cli.screen.keyboard import BRACKETED_PASTE, write_now
from infer_cli.process.stream_filter import styled
from infer_cli.prompt.messages import decode_input
from infer_cli.system.paths import data_dir
from infer_cli.system.private_files import make_private_dir, open_private

if TYPE_CHECKING:
    from prompt_toolkit.document import Document
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from infer_cli.cli.chat.completing import Completion

QUOTES = '"""'
PROMPT = "> "
PLACEHOLDER = "/help for commands, Ctrl-D to leave"
HOW_TO_LEAVE = "Ctrl-D or /exit leaves the chat"
# What the user says stands out from the replies.
_STYLE = {
    "prompt": "bold fg:ansicyan",
    "": "bold",
    "placeholder": "nobold fg:ansibrightblack",
    "bottom-toolbar": "nobold noreverse fg:ansibrightblack",
}


def is_smart_terminal() -> bool:
    """Whether stdout can show more than lines of text."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def has_editor_line() -> bool:
    """Whether messages are typed where an `EditorLine` can be drawn."""
    return sys.stdin is not None and sys.stdin.isatty() and is_smart_terminal()


class LineSource(Protocol):
    def read(self) -> str:
        """The next message. Raises EOFError at the end, KeyboardInterrupt where the line is given up."""
        ...

    def put_back(self) -> bool:
        """Let the next line begin as the last one was typed; whether it can be edited there."""
        ...


def is_open(text: str) -> bool:
    """Whether a quoted message still waits for its end."""
    return text.startswith(QUOTES) and (len(text) < 2 * len(QUOTES) or not text.rstrip().endswith(QUOTES))


def unquoted(text: str) -> str:
    """A message without the quotes around it."""
    if text.startswith(QUOTES):
        return text.removeprefix(QUOTES).rstrip().removesuffix(QUOTES).strip("\n")
    return text


class PlainLines:
    """Lines of stdin; `prompt` is written to stderr, for a terminal that can do no more."""

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt

    def read(self) -> str:
        text = self._line(self._prompt)
        while is_open(text):
            try:
                text += "\n" + self._line("... " if self._prompt else "")
            except EOFError:
                break
        return unquoted(text)

    def put_back(self) -> bool:
        return False

    def _line(self, prompt: str) -> str:
        if prompt:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        line = b""
        try:
            line = sys.stdin.buffer.readline() if sys.stdin is not None else b""
        finally:
            if prompt and not line:  # Ctrl-D or Ctrl-C: the prompt's line is not ended
                sys.stderr.write("\n")
        if not line:
            raise EOFError
        return decode_input(line, "stdin").rstrip("\r\n")


class EditorLine:
    """prompt_toolkit's line: history, several lines, completion, an external editor, a toolbar.

    Enter sends, Alt-Enter begins a new line, pasted line ends are text, a long paste is one mark; Ctrl-X
    Ctrl-E (vi: v) opens the editor.
    """

    def __init__(
        self,
        *,
        vi: bool,
        private: bool,
        toolbar: Callable[[], str],
        complete: Callable[[str], Iterable[Completion]],
        say: Callable[[str], None],
    ) -> None:
        """`complete` gives what the end of a line can become; `say` shows a line above this one."""
        from prompt_toolkit import PromptSession
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.history import FileHistory, History, InMemoryHistory
        from prompt_toolkit.input import create_input
        from prompt_toolkit.output import create_output
        from prompt_toolkit.styles import Style

        self._pastes = pastes = Pastes()
        self._say = say
        self._typed = self._begun = ""
        self._has_sent = False

        class WholeHistory(FileHistory):
            """Its file has texts where the line has marks: the next chat does not know these."""

            def store_string(self, string: str) -> None:
                super().store_string(pastes.whole(string))

        history: History = InMemoryHistory()
        if not private and (path := _history_path()) is not None:
            history = WholeHistory(str(path))
        self._session: PromptSession[str] = PromptSession(
            [("class:prompt", PROMPT)],
            multiline=True,
            prompt_continuation="  ",
            vi_mode=vi,
            history=history,
            enable_history_search=False,
            completer=_completer(complete),
            complete_while_typing=Condition(lambda: self._session.default_buffer.text.startswith("/")),
            bottom_toolbar=toolbar,
            key_bindings=self._bindings(),
            placeholder=lambda: [] if self._has_sent else [("class:placeholder", PLACEHOLDER)],
            style=Style.from_dict(_STYLE),
            input=create_input(sys.stdin),
            output=create_output(styled(sys.stdout)),
        )

    def read(self) -> str:
        begun, self._begun = self._begun, ""
        self._typed = self._session.prompt(default=begun)
        self._has_sent = True
        write_now(BRACKETED_PASTE)  # which a prompt leaves off behind it
        return unquoted(self._pastes.whole(self._typed))

    def put_back(self) -> bool:
        self._begun = self._typed
        return True

    def _bindings(self) -> KeyBindings:
        from prompt_toolkit.application import run_in_terminal
        from prompt_toolkit.filters import emacs_insert_mode, vi_insert_mode, vi_navigation_mode
        from prompt_toolkit.key_binding import KeyBindings
        from prompt_toolkit.keys import Keys

        bindings = KeyBindings()

        @bindings.add("enter")
        def _send(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
                buffer.complete_state = None
            elif is_open(buffer.text):
                buffer.insert_text("\n")
            else:
                buffer.validate_and_handle()

        @bindings.add("escape", "enter")
        def _new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @bindings.add("c-c")
        def _give_up(event: KeyPressEvent) -> None:
            if not event.current_buffer.text:
                run_in_terminal(lambda: self._say(HOW_TO_LEAVE))
            event.current_buffer.reset()

        @bindings.add(Keys.BracketedPaste)
        def _paste(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text(self._pastes.shown(event.data))

        @bindings.add("backspace", filter=emacs_insert_mode | vi_insert_mode)
        def _delete(event: KeyPressEvent) -> None:
            mark = self._pastes.mark_at_end(event.current_buffer.document.text_before_cursor)
            event.current_buffer.delete_before_cursor(max(len(mark), event.arg))

        @bindings.add("c-x", "c-e")
        @bindings.add("v", filter=vi_navigation_mode)
        def _edit(event: KeyPressEvent) -> None:
            buffer = event.current_buffer

            def edit() -> None:
                buffer.text = edit_text(self._pastes.whole(buffer.text))
                buffer.cursor_position = len(buffer.text)

            run_in_terminal(edit)

        return bindings


def _history_path() -> Path | None:
    """The file of earlier lines, the user's own to read; None where it can't be kept."""
    path = data_dir() / "chat_history"
    try:
        make_private_dir(path.parent)
        os.close(open_private(path, os.O_RDWR | os.O_CREAT))
    except OSError:
        return None
    return path


def _completer(complete: Callable[[str], Iterable[Completion]]):  # type: ignore[no-untyped-def]
    from prompt_toolkit import completion

    class Words(completion.Completer):
        def get_completions(
            self, document: Document, complete_event: object
        ) -> Iterator[completion.Completion]:
            for text, replaces, shown, about in complete(document.text_before_cursor):
                yield completion.Completion(text, -replaces, display=shown, display_meta=about)

    return Words()
