"""Replies as plain text: to a pipe or a file, or to a terminal with --plain. Knows no markup."""

from __future__ import annotations

from typing import BinaryIO

from infer_cli.answering.sink import Grain
from infer_cli.sinks.sample_order import ReasoningView, SampleOrder
from infer_cli.text.sanitize import Sanitizer
from infer_cli.types import Delta, Reply


class _WrittenSample:
    """What of one sample has been written so far."""

    def __init__(self) -> None:
        self.sanitizer = Sanitizer()
        self.tail = ""  # its last characters, enough to see a blank line
        self.in_reasoning = False
        self.gap_due = False  # the answer's first character is still to come after shown reasoning


class PlainSink:
    """The bytes of the text (UTF-8), flushed as they come.

    `raw`: nothing is added, not even a last newline. `sanitize`: for a terminal, control sequences are
    removed. `reasoning`: "show" puts it before the answer with a blank line between. Several samples
    follow each other with a line `---` between. `out` is left open by `close`.
    """

    takes: Grain = "text"

    def __init__(
        self, out: BinaryIO, *, raw: bool, sanitize: bool, reasoning: ReasoningView, n_samples: int
    ) -> None:
        self._out = out
        self._raw = raw
        self._sanitize = sanitize
        self._reasoning = reasoning
        self._order = SampleOrder() if n_samples > 1 else None
        self._sample = 0
        self._written = _WrittenSample()

    def start(self, info: dict[str, object]) -> None:
        pass

    def prefill(self, sample: int, done: int, total: int) -> None:
        pass

    def delta(self, delta: Delta) -> None:
        self._take(delta)

    def end(self, reply: Reply) -> None:
        self._take(reply)

    def close(self) -> None:
        if self._order is not None:
            for item in self._order.drain():
                self._show(item)
        if self._written.tail:
            self._end_line()

    def _take(self, item: Delta | Reply) -> None:
        for due in self._order.push(item) if self._order is not None else (item,):
            self._show(due)

    def _show(self, item: Delta | Reply) -> None:
        if item.sample != self._sample:
            self._separate(item.sample)
        if isinstance(item, Delta):
            self._show_delta(item)
        elif item.text is not None or self._written.tail:
            self._end_line()

    def _separate(self, sample: int) -> None:
        if self._written.tail and not self._written.tail.endswith("\n"):
            self._write("\n")
        self._write("---\n")
        self._sample = sample
        self._written = _WrittenSample()

    def _show_delta(self, delta: Delta) -> None:
        written = self._written
        if delta.reasoning != written.in_reasoning:
            written.in_reasoning = delta.reasoning
            written.sanitizer = Sanitizer()
            written.gap_due = bool(written.tail) and self._reasoning == "show"
        if self._reasoning == ("hide" if delta.reasoning else "only"):
            return
        text = written.sanitizer.feed(delta.text) if self._sanitize else delta.text
        if written.gap_due:
            text = text.lstrip("\n")
            if not text:
                return
            written.gap_due = False
            text = "\n" * (2 - len(written.tail) + len(written.tail.rstrip("\n"))) + text
        if text:
            self._write(text)

    def _end_line(self) -> None:
        if not self._raw and not self._written.tail.endswith("\n"):
            self._write("\n")

    def _write(self, text: str) -> None:
        self._out.write(text.encode("utf-8"))
        self._out.flush()
        self._written.tail = (self._written.tail + text)[-2:]
