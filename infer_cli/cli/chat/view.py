"""Shows a dialogue: replies on stdout, all else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infer_cli.answering.reply import reasoning_cut_in_words
from infer_cli.cli.chat.line import is_smart_terminal
from infer_cli.cli.chat.options import ChatOptions
from infer_cli.cli.flags.shared import Reasoning
from infer_cli.cli.screen.suggesting import suggest_once
from infer_cli.cli.screen.table import Column, table_lines
from infer_cli.cli.screen.terminal import Notices, columns_of, fitted
from infer_cli.cli.screen.waiting import StatusSink
from infer_cli.process.stream_filter import styled
from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from infer_cli.answering.sink import Sink
    from infer_cli.conversation.dialogue import NotTaken, TakenReply


class ChatView:
    """`DialogueView` on a terminal or in a pipe. `is_typed`: the messages are typed by somebody."""

    def __init__(self, options: ChatOptions, notices: Notices, *, is_typed: bool) -> None:
        self._options, self._notices, self._is_typed = options, notices, is_typed
        self._on_terminal = sys.stdout.isatty()
        self._is_smart = is_smart_terminal()
        self.reasoning: Reasoning = options.reasoning or ("show" if self._on_terminal else "hide")
        self.warn, self.note, self.detail = notices.warn, notices.note, notices.detail
        self.status, self.clear_status = notices.status, notices.clear

    def say(self, text: str) -> None:
        """What a command answers: beside the replies, on stderr."""
        self._notices.clear()
        for line in text.splitlines():
            print(fitted(single_line(line), sys.stderr), file=sys.stderr)

    def say_table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """As `say`: a table that fits the terminal, or a line for each row in a pipe."""
        if sys.stderr.isatty():
            self.say("\n".join(table_lines(columns, rows, columns_of(sys.stderr))))
        else:
            self.say("\n".join("  ".join(row) for row in rows))

    def sink(self) -> Sink:
        return StatusSink(self._reply_sink(), self._notices)

    def _reply_sink(self) -> Sink:
        if (self._options.markdown or self._is_smart) and not self._options.plain:
            from infer_cli.sinks.markdown import MarkdownSink

            return MarkdownSink(styled(sys.stdout), reasoning=self.reasoning, n_samples=1)
        from infer_cli.sinks.plain import PlainSink

        return PlainSink(
            sys.stdout.buffer, raw=False, sanitize=self._on_terminal, reasoning=self.reasoning, n_samples=1
        )

    def reply_taken(self, taken: TakenReply) -> None:
        reply, timings = taken.reply, taken.reply.timings
        parts = [taken.model, f"{taken.n_tokens}/{taken.window} tokens"]
        if timings.ttft_s is not None:
            parts.append(f"TTFT {timings.ttft_s:.2f} s")
        if timings.decode_tps is not None:
            parts.append(f"{timings.decode_tps:.1f} tok/s")
        if reply.seed is not None:
            parts.append(f"seed {reply.seed}")
        if reply.finish_reason != "stop":
            parts.append("stopped" if taken.is_stopped else reply.finish_reason)
        self._notices.statistics(single_line(" · ".join(parts)))
        if reply.reasoning_cut and not taken.is_stopped:
            self.warn(f"{reasoning_cut_in_words(reply)}; /continue lets it go on")
        elif reply.finish_reason == "length":
            self._notices.note("the token limit ended the reply: /continue lets it go on", dim=True)
        elif reply.finish_reason == "deadline":
            more = ": /continue lets it go on" if self._is_typed else ""
            self.warn(f"the deadline ended the reply after {len(reply.tokens)} tokens{more}")
        suggest_once(taken.model, timings.decode_tps, self._notices, quiet=self._options.quiet)

    def message_not_taken(self, why: NotTaken) -> None:
        if why == "deadline":
            self.warn("the deadline came while the prompt was read: the message was not taken")
        elif why == "stopped in prefill":
            self.say("stopped while reading the prompt: the message was not taken")
        else:
            self.say("stopped: the message was not taken")
