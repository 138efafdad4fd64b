"""What `infer chat` does in its worker process: the loop that reads lines."""

from __future__ import annotations

import base64
import contextlib
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.cli.chat import slash_commands
from infer_cli.cli.chat.completing import completions
from infer_cli.cli.chat.line import (
    HOW_TO_LEAVE,
    PLACEHOLDER,
    EditorLine,
    LineSource,
    PlainLines,
    has_editor_line,
    is_smart_terminal,
)
from infer_cli.cli.chat.options import ChatOptions, check
from infer_cli.cli.chat.view import ChatView
from infer_cli.cli.flags.shared import PRIVATE_HINT, Reasoning
from infer_cli.cli.foreign_words import LEAVING
from infer_cli.cli.screen.editor import edit_text
from infer_cli.cli.screen.keyboard import keys_for_another, keys_wait
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.table import SHORT_ID
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import loading, wait_for, warn_of_unused
from infer_cli.conversation.continuing import find_conversation
from infer_cli.conversation.dialogue import Dialogue, DialogueOptions
from infer_cli.conversation.model import ConversationModel, open_for_conversation
from infer_cli.errors import ExitStatus, InferError, UsageError
from infer_cli.process.explain import explained
from infer_cli.process.report import report
from infer_cli.process.stream_filter import write_sequence
from infer_cli.process.worker import SAME_PRESS_S, on_interrupt
from infer_cli.prompt.attachments import Attachment, are_several, message_text
from infer_cli.prompt.named_texts import listed, read_named
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.prompt.template import template_variables
from infer_cli.prompt.trusted_templates import begin_for
from infer_cli.runtime.session import Session
from infer_cli.settings.origins import Given, Setting
from infer_cli.system.files import is_url
from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from infer_cli.process.worker import Worker

N_SHOWN_TURNS = 2  # of a conversation that goes on


def talk(values: Mapping[str, tuple[object, str]], worker: Worker) -> int:
    """Talk until the input ends, by a command line given as (value, origin) by name; returns the exit code.

    Raises InferError.
    """
    options = check({name: Given(*value) for name, value in values.items()})
    notices = Notices(quiet=options.quiet, stats=options.stats)
    try:
        keys = keys_wait() if has_editor_line() else contextlib.nullcontext()
        with explained(worker), closed_at_end(), keys:
            return Chat(options, worker, notices).run()
    finally:
        notices.clear()


class Chat:
    """Reads messages and commands, a line each. Public names are what the commands use."""

    def __init__(self, options: ChatOptions, worker: Worker, notices: Notices) -> None:
        kept = None
        if options.continues or options.resume is not None:
            from infer_cli.cli.chat.resumed import as_before

            kept = find_conversation(options.resume, notices.warn)
            options = as_before(options, kept)
        self._options, self._worker, self._notices = options, worker, notices
        self._typed = sys.stdin is not None and sys.stdin.isatty()
        self._leaving = False  # SIGTERM or SIGHUP came
        self._must_carry_on = False  # Ctrl-C is dealt with, and the supervisor doesn't know it
        self._view = ChatView(options, notices, is_typed=self._typed)
        self.say, self.say_table = self._view.say, self._view.say_table
        self.attached = [item for name in options.files for item in self.files(name)]
        self.dialogue = Dialogue(_dialogue_options(options), self._open_model, self._view, kept)
        if options.private and not options.no_record:
            notices.note("private: the records hold hashes only, so they can't be replayed or continued")
        self._lines = self._line_source()
        if self._typed:
            self.say(self._opening())
        if self._typed and kept is not None:
            self._show_last()
        if self._typed and self.attached:
            self.say_attached()

    def _open_model(self, name: str | None) -> ConversationModel:
        options = self._options
        model = find_model(name, offline=options.offline, quiet=options.quiet)
        loading(model.name, self._notices)
        session = Session(model, options.engine, 1, self._worker.native_fd)
        begin_for(None if options.chat_template else session.own_template)
        wait_for(session, self._notices)
        self._notices.clear()
        opened = open_for_conversation(session, options.engine.ctx, options.chat_template)
        warn_of_unused(opened.template, options.variables, self._notices)
        return opened

    # --- the loop ------------------------------------------------------------------------------

    def run(self) -> int:
        """Until the input ends; returns the exit code."""
        on_interrupt(self._interrupted)
        while not self._leaving:
            try:
                self._carry_on()
                if (text := self._read()) is not None:
                    self._take(text)
            except EOFError:
                break
            except KeyboardInterrupt:
                self._must_carry_on = True
            except InferError as e:
                if not self._typed:
                    raise
                self._notices.clear()
                report(e, sys.stderr, self._worker.log_tail() if e.native else ())
        if self._leaving:
            return ExitStatus.INTERRUPTED
        if self._typed and self.dialogue.ledger.can_go_on:
            thread = self.dialogue.ledger.thread_id
            self.say(f"`infer chat --resume {thread[:SHORT_ID]}` goes on with this conversation")
        if self.attached and not self._typed:
            self._notices.warn(f"no message came after {self._attached_names}: not sent")
        self.dialogue.keep_state()
        return ExitStatus.DEADLINE if self.dialogue.totals.n_late and not self._typed else ExitStatus.OK

    def _read(self) -> str | None:
        """The next message or command; None where the line is empty or given up."""
        try:
            text = self._lines.read()
        except KeyboardInterrupt:
            self._must_carry_on = True
            if self._typed and not self._leaving:
                self.say(HOW_TO_LEAVE)
            return None
        return text if text.strip() else None

    def _opening(self) -> str:
        about = f"{self.dialogue.model_name} · window of {self.dialogue.conversation.window} tokens"
        return about if has_editor_line() else f"{about} · {PLACEHOLDER}"

    def _line_source(self) -> LineSource:
        if not has_editor_line():
            return PlainLines("> " if self._typed else "")
        return EditorLine(
            vi=self._options.keys == "vi",
            private=self._options.private,
            toolbar=self._toolbar,
            complete=partial(completions, self),
            say=self.say,
        )

    def _take(self, line: str) -> None:
        command = slash_commands.parse(line)
        if command is not None:
            name, argument = command
            slash_commands.find(name).run(self, argument)
        elif self._typed and line.strip().lower() in LEAVING:
            self.say("/exit or Ctrl-D leaves")
        else:
            self.send(line[1:] if line.startswith("//") else line)

    def _interrupted(self, signal_name: str) -> None:
        # From a pipe the next line would be answered at once: Ctrl-C means all of them.
        self._leaving = self._leaving or signal_name != "SIGINT" or not self._typed
        if not self.dialogue.stop():
            raise KeyboardInterrupt(signal_name)
        self._must_carry_on = True

    def _carry_on(self) -> None:
        """Tell the supervisor that an interrupt is over, if one was, once it has surely seen it itself."""
        if self._must_carry_on:
            self._must_carry_on = False
            timer = threading.Timer(2 * SAME_PRESS_S, self._worker.carry_on)
            timer.daemon = True
            timer.start()

    # --- what commands ask for -----------------------------------------------------------------

    def send(self, text: str, *files: Attachment) -> None:
        """A message of the attached files, these files and a text, and its reply."""
        attachments = [*self.attached, *files]
        message = message_text(attachments, text, tagged=are_several(attachments, text))
        try:
            is_taken = self.dialogue.ask(message)
        except KeyboardInterrupt:
            self._give_back()
            raise
        if is_taken:
            self.attached.clear()
        else:
            self._give_back()

    def _give_back(self) -> None:
        """A message that was not taken can be changed and sent again."""
        if self._lines.put_back():
            self.say("it is in the line again")

    def load_conversation(self, name: str) -> None:
        """Go on with another conversation, and with the model that it had."""
        if self._options.private:
            raise UsageError("this conversation is private", PRIVATE_HINT)
        self.dialogue.load(find_conversation(name, self._notices.warn))
        self._show_last()

    def _show_last(self) -> None:
        ledger, turns = self.dialogue.ledger, self.dialogue.conversation.turns
        name = f" {ledger.name}" if ledger.name is not None else ""
        self.say(f"conversation {ledger.thread_id}{name}: {slash_commands.turns_of(len(turns))}")
        for turn in turns[-N_SHOWN_TURNS:]:
            self.say(f"> {turn.user}\n{turn.text}")

    @property
    def reasoning(self) -> Reasoning:
        return self._view.reasoning

    @reasoning.setter
    def reasoning(self, shown: Reasoning) -> None:
        self._view.reasoning = shown

    @property
    def settings(self) -> list[Setting]:
        replies = self.dialogue.reply_settings
        seed = "drawn for each reply" if replies.seed is None else replies.seed.value
        return [
            *replies.without_seed,
            Setting("window", self.dialogue.conversation.window, "in use"),
            Setting("reasoning", self.reasoning, "in use"),
            Setting("seed", "none: greedy" if replies.sampling.greedy else seed, "in use"),
        ]

    def _toolbar(self) -> str:
        conversation, replies = self.dialogue.conversation, self.dialogue.reply_settings
        # A narrow terminal cuts the end off.
        parts = [f"{conversation.n_tokens}/{conversation.window}", self.dialogue.model_name]
        if self.attached:
            parts.append(f"{len(self.attached)} attached")
        if replies.sampling.greedy:
            parts.append("greedy")
        else:
            parts.append(f"t {replies.sampling.temperature:g}")
            if replies.seed is not None:
                parts.append(f"seed {replies.seed.value}")
        if len(conversation.branches.sizes) > 1:
            parts.append(conversation.branches.current)
        return single_line(" · ".join(parts))

    def edited(self, text: str) -> str:
        """What the user's editor makes of a text. Raises UsageError where there is none."""
        if not self._typed:
            raise UsageError(
                "there is no terminal for an editor", "/edit TEXT changes the message without one"
            )
        with keys_for_another() if has_editor_line() else contextlib.nullcontext():
            return edit_text(text)

    def copy(self, text: str) -> None:
        """Text to the clipboard of the terminal's own machine (OSC 52)."""
        if not is_smart_terminal():
            raise UsageError("there is no terminal to copy to")
        code = base64.b64encode(text.encode("utf-8", "replace")).decode()
        write_sequence(sys.stdout, f"\x1b]52;c;{code}\x07")
        sys.stdout.flush()
        self.say(f"copied {len(text)} characters")

    @property
    def _attached_names(self) -> str:
        return listed(item.name for item in self.attached)

    def say_attached(self) -> None:
        names = self._attached_names
        self.say(f"goes before the next message: {names}" if self.attached else "nothing is attached")

    def files(self, name: str) -> list[Attachment]:
        """A text file, those of a folder, or a page. Raises UsageError and SourceUnreachable."""
        if not name:
            raise UsageError("which file?", "give its name after the command")
        try:
            return read_named(
                name if is_url(name) else str(Path(name).expanduser()),
                self._notices,
                offline=self._options.offline,
            )
        finally:
            self._notices.clear()


def _dialogue_options(options: ChatOptions) -> DialogueOptions:
    return DialogueOptions(
        model=options.model,
        system=options.system,
        variables=template_variables(options.variables),
        overflow=options.overflow,
        sampling=options.sampling,
        seed=options.seed,
        max_tokens=options.max_tokens,
        thinking=options.thinking,
        stop=options.stop,
        deadline_s=options.deadline_s,
        settings=options.settings,
        records=not options.no_record,
        private=options.private,
        caches=not (options.no_cache or options.no_record or options.private),
        cache_bytes=options.cache_bytes,
    )
