"""Replies as Markdown on a terminal, rendered while they stream. Knows when to paint what.

Finished blocks are printed once and never touched again, so the scrollback stays whole and a reply may be
taller than the screen. Only the open block is painted anew, by moving the cursor up over its rows. Between
two paints the cursor stands at the start of the line below; it is never hidden.
"""

from __future__ import annotations

import threading
import time
from typing import TextIO

from infer_cli.answering.sink import Grain
from infer_cli.sinks.markdown_blocks import Block, BlockSplitter
from infer_cli.sinks.markdown_rendering import Renderer
from infer_cli.sinks.sample_order import ReasoningView, SampleOrder
from infer_cli.sinks.terminal_painter import Painter, Row, Size, terminal_reflows, terminal_size
from infer_cli.text.sanitize import Sanitizer
from infer_cli.types import Delta, Reply

_INTERVAL_S = 0.05  # between two paints of the open block, at least
_IDLE_PER_BUSY = 12  # and this many times what the last paint cost: rendering takes less than 8 % of the time
_MAX_SOURCE = 8192  # characters of the open block; a longer one is cut, so that no paint costs more


class MarkdownSink:
    """Markdown to a terminal, painted as it streams.

    `reasoning`: "show" puts it before the answer, dim, under a dim marker; "hide" folds it into one dim line.
    Several samples follow each other with a line `---` between. `live` False shows finished blocks only and
    never moves the cursor: for a pager. Nothing else may write to the terminal
    between the first delta and `close` but at the end of a reply. `file` is left open by `close`.
    """

    takes: Grain = "text"

    def __init__(
        self,
        file: TextIO,
        *,
        reasoning: ReasoningView,
        n_samples: int,
        live: bool = True,
        size: Size | None = None,
        reflows: bool | None = None,
    ) -> None:
        self._renderer = Renderer(file)
        self._painter = Painter(
            file,
            size or terminal_size(file),
            reflows=terminal_reflows() if reflows is None else reflows,
            moves=live,
        )
        self._view = reasoning
        self._is_live = live
        self._order = SampleOrder() if n_samples > 1 else None
        self._sample = 0
        self._running = False  # a delta came, its reply is not finished
        self._ready: list[tuple[Block | Row, bool]] = []  # finished, with: dim
        self._shown = False  # something stands above the next block
        self._reasoning = False
        self._n_thought = 0  # tokens of reasoning that is not shown
        self._thinking = False  # whether there is a line that counts them
        self._sanitizer = Sanitizer()
        self._splitter = BlockSplitter(gap=False)
        self._lock = threading.Lock()  # held by whoever paints: a caller, or the timer
        self._timer: threading.Timer | None = None
        self._not_before = 0.0  # monotonic time of the next paint
        self._failed: OSError | None = None  # in the timer

    def start(self, info: dict[str, object]) -> None:
        pass

    def prefill(self, sample: int, done: int, total: int) -> None:
        pass

    def delta(self, delta: Delta) -> None:
        self._take(delta)

    def end(self, reply: Reply) -> None:
        self._take(reply)

    def close(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            for item in self._order.drain() if self._order is not None else ():
                self._show(item)
            if self._running:
                self._painter.clear_line()
                self._finish()
            self._paint()

    def _take(self, item: Delta | Reply) -> None:
        with self._lock:
            if self._failed is not None:
                raise self._failed
            for due in self._order.push(item) if self._order is not None else (item,):
                self._show(due)
            wait = self._not_before - time.monotonic()
            if wait <= 0 or not self._running:
                self._paint()
            elif self._timer is None:
                self._timer = threading.Timer(wait, self._tick)
                self._timer.daemon = True
                self._timer.start()

    def _tick(self) -> None:
        """Paint what came since the last paint, where no further token does it."""
        with self._lock:
            if self._timer is None:
                return
            self._timer = None
            try:
                self._paint()
            except OSError as error:
                self._failed = error

    def _show(self, item: Delta | Reply) -> None:
        if item.sample != self._sample:
            self._separate(item.sample)
        if isinstance(item, Reply):
            self._finish()
            return
        self._running = True
        if item.reasoning != self._reasoning:
            self._switch(item.reasoning)
        text = self._sanitizer.feed(item.text)
        if self._view == "hide" and item.reasoning:
            self._n_thought += len(item.tokens)
            self._thinking = self._thinking or bool(text.strip())
        elif self._view != "only" or item.reasoning:
            self._put(self._splitter.feed(text))

    def _separate(self, sample: int) -> None:
        self._finish()
        if self._shown:
            self._ready.append((Row("", ""), False))
        self._ready.append((self._renderer.text_row("---"), False))
        self._shown = True
        self._sample = sample
        self._switch(False)

    def _finish(self) -> None:
        """The sample's reply ends."""
        self._switch(False)
        self._running = False

    def _switch(self, reasoning: bool) -> None:
        """From the answer to reasoning, or back."""
        self._put(self._splitter.finish())
        if self._thinking:
            self._ready.append((self._renderer.text_row(f"thought for {self._n_thought} tokens"), False))
            self._shown = True
        self._thinking, self._n_thought = False, 0
        self._reasoning = reasoning
        self._sanitizer = Sanitizer()
        marked = reasoning and self._view == "show"
        if marked:
            if self._shown:
                self._ready.append((Row("", ""), False))
            self._ready.append((self._renderer.text_row("thinking"), False))
        self._splitter = BlockSplitter(gap=self._shown and not marked)
        self._shown = self._shown or marked

    def _put(self, blocks: list[Block]) -> None:
        dim = self._reasoning and self._view == "show"
        for block in blocks:
            last = self._ready[-1][0] if self._ready else None
            if block.kind == "code" and isinstance(last, Block) and last.kind == "code":  # coloured at once
                self._ready[-1] = (last._replace(source=f"{last.source}\n{block.source}"), dim)
            else:
                self._ready.append((block, dim))
        self._shown = self._shown or bool(blocks)

    def _paint(self) -> None:
        began = time.monotonic()
        width = self._painter.width()
        final: list[Row] = []
        for item, dim in self._ready:
            final += [item] if isinstance(item, Row) else self._rows(item, width, dim, final=True)
        self._ready = []
        self._painter.paint(final, self._live(final, width), width)
        ended = time.monotonic()
        self._not_before = ended + max(_INTERVAL_S, _IDLE_PER_BUSY * (ended - began))

    def _live(self, final: list[Row], width: int) -> list[Row]:
        """Rows of the open block; what it has too much of goes to `final`."""
        if not self._is_live:
            return []
        if self._thinking:
            return [self._renderer.text_row(f"thinking… {self._n_thought} tokens")]
        dim = self._reasoning and self._view == "show"
        while block := self._splitter.open():
            rows = self._rows(block, width, dim, final=False)
            cut = None
            if block.kind == "paragraph" and not self._painter.fits(rows):
                n_rows = max(len(rows) - block.gap - self._painter.capacity() // 2, 1)
                cut = self._renderer.paragraph_cut(block.source, width, n_rows)
            if cut is None and len(block.source) > _MAX_SOURCE and block.kind != "code":
                cut = _line_cut(block)
            if cut is None:
                return rows
            final += self._rows(self._splitter.cut(cut), width, dim, final=True)
        return []

    def _rows(self, block: Block, width: int, dim: bool, *, final: bool) -> list[Row]:
        rows = self._renderer.rows(block, width, final=final, dim=dim)
        return [Row("", ""), *rows] if block.gap else rows


def _line_cut(block: Block) -> int | None:
    """Where an overlong block is cut: at its last line, or else at its last word."""
    source = block.source
    if block.kind == "table":
        rows = source.find("\n", source.find("\n") + 1)
        cut = source.rfind("\n", 0, -1)
        return cut if cut > rows else None
    return max(source.rfind("\n", 1, -1), source.rfind(" ", 1, -1), len(source) // 2)
