"""Replies as Markdown on a terminal, rendered while they stream. Knows Rich, cursor movement and terminal sizes.

Finished blocks are printed once and never touched again, so the scrollback stays whole and a reply may be
taller than the screen. Only the open block is painted anew, by moving the cursor up over its rows. Between
two paints the cursor stands at the start of the line below; it is never hidden.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, NamedTuple, TextIO

from markdown_it import MarkdownIt
from markdown_it.token import Token as MarkdownToken
from rich import markdown as rich_markdown
from rich.cells import cell_len, get_character_cell_size
from rich.console import COLOR_SYSTEMS, Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from infer_cli.sinks.blocks import Block, BlockSplitter
from infer_cli.sinks.order import ReasoningView, SampleOrder
from infer_cli.sinks.sanitize import Sanitizer, sanitize
from infer_cli.types import Delta, Reply

Size = Callable[[], tuple[int, int]]  # columns, rows

_INTERVAL_S = 0.05  # between two paints of the open block, at least
_IDLE_PER_BUSY = 12  # and this many times what the last paint cost, so that rendering stays below 8 % of the time
_MIN_WIDTH = 10  # columns that are laid out for, however narrow the terminal
_MAX_LIVE_ROWS = 40  # rows of the open block that are painted anew, however tall the terminal
_MAX_SOURCE = 8192  # characters of the open block; a longer one is cut, so that no paint costs more
_MAX_CONTEXT = 1500  # characters of code before a line that its colours may depend on
_MAX_NESTING = 20  # markdown-it leaves out what is nested deeper than this

_CODE_THEME = "ansi_dark"  # the terminal's own colours and background
_DIM = Style(dim=True)
_THEME = Theme(
    {
        "markdown.code": "bold cyan",
        "markdown.code_block": "none",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold magenta",
        "markdown.h3": "bold",
        "markdown.item.number": "bold",
    }
)


class Row(NamedTuple):
    """A row of output: its text, and the same with styles."""

    plain: str
    ansi: str


# --- one block -> rows ----------------------------------------------------------------------------


class _Heading(rich_markdown.Heading):
    """Left aligned at every level, with no box."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _CodeBlock(rich_markdown.CodeBlock):
    """Code inside a list or a quote, or indented code: without background and padding."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        yield Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True)


class _Rule(rich_markdown.HorizontalRule):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("─" * min(options.max_width, 40), style="markdown.hr")


class _Quote(rich_markdown.BlockQuote):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _prefixed(self.elements, console, options, Segment("▌ ", self.style), "▌ ")


class _ListItem(rich_markdown.ListItem):
    """Markers of one width, so that items rendered one by one line up."""

    def render_bullet(self, console: Console, options: ConsoleOptions) -> RenderResult:
        style = console.get_style("markdown.item.bullet")
        yield from _prefixed(self.elements, console, options, Segment(" • ", style), "   ")

    def render_number(
        self, console: Console, options: ConsoleOptions, number: int, last_number: int
    ) -> RenderResult:
        marker = f"{number}. ".rjust(4)
        style = console.get_style("markdown.item.number")
        yield from _prefixed(self.elements, console, options, Segment(marker, style), " " * len(marker))


def _prefixed(
    content: RenderableType, console: Console, options: ConsoleOptions, first: Segment, rest: str
) -> RenderResult:
    width = max(options.max_width - len(rest), _MIN_WIDTH)
    prefix = first
    for line in console.render_lines(content, options.update(width=width), pad=False) or [[]]:
        yield prefix
        yield from line
        yield Segment.line()
        prefix = Segment(rest, first.style)


class _Table(rich_markdown.TableElement):
    """Cells wrap; none is shortened. Where columns would be too narrow to read, a line per row."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [self.header.row] if self.header is not None and self.header.row is not None else []
        rows += self.body.rows if self.body is not None else []
        cells = [[cell.content for cell in row.cells] for row in rows]
        n_columns = max((len(row) for row in cells), default=0)
        if options.max_width < 8 * n_columns:
            yield from (Text(" | ").join(row) for row in cells)
            return
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=True, header_style="markdown.table.header")
        for heading in cells[0]:
            table.add_column(heading, overflow="fold", justify=heading.justify or "default")
        table.add_section()
        for row in cells[1:]:
            table.add_row(*row)
        yield table


class _Markdown(rich_markdown.Markdown):
    """Rich's Markdown for text that nobody vouches for: HTML is text, and a link shows where it leads (`_inline`)."""

    elements: ClassVar[dict[str, type[rich_markdown.MarkdownElement]]] = {
        **rich_markdown.Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "hr": _Rule,
        "blockquote_open": _Quote,
        "list_item_open": _ListItem,
        "table_open": _Table,
    }

    def __init__(self, tokens: list[MarkdownToken]) -> None:
        super().__init__("", code_theme=_CODE_THEME, hyperlinks=False)
        self.parsed = tokens


def _inline(tokens: list[MarkdownToken]) -> Iterator[MarkdownToken]:
    """Inline tokens with links and images as text: `text (address)`, or the address alone.

    Line breaks stay: models break lines where they mean it.
    """
    opened: list[tuple[str, list[str]]] = []  # address, and the text since
    for token in tokens:
        if token.type == "link_open":
            opened.append((str(token.attrs.get("href", "")), []))
        elif token.type == "link_close" and opened:
            href, texts = opened.pop()
            if href.removeprefix("mailto:") != "".join(texts):
                yield MarkdownToken("text", "", 0, content=f" ({href})")
        elif token.type == "image":
            label = f"{token.content} ({token.attrs.get('src', '')})"
            yield MarkdownToken("text", "", 0, content=label.lstrip())
        else:
            for _, texts in opened:
                texts.append(token.content)
            yield MarkdownToken("hardbreak", "br", 0) if token.type == "softbreak" else token


class Renderer:
    """Blocks as rows. Lines of code take their colours from those before, so they must come in order."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._colors = COLOR_SYSTEMS.get(console.color_system or "")
        self._parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _MAX_NESTING})
        self._parser.enable(["strikethrough", "table"])
        self._parser.disable("reference")  # a definition would vanish from the text
        self._syntax = Syntax("", "text", theme=_CODE_THEME)
        self._context: list[str] = []

    def rows(self, block: Block, width: int, *, final: bool, dim: bool = False) -> list[Row]:
        """Rows of a block laid out for `width` columns; a line of code is one row however long."""
        if block.kind == "code":
            lines = self._code(block.source, final=final)
        elif block.kind in ("fence_open", "fence_close"):
            if final and block.kind == "fence_open":
                self._open_fence(block.source)
            text = f"```{block.source}" if block.kind == "fence_open" else "```"
            lines = [[Segment(text, _DIM)]]
        else:
            options = self._console.options.update(width=width)
            lines = self._console.render_lines(self._markdown(block), options, pad=False)
        rows = [self._row(line, dim) for line in lines]
        return rows if block.kind == "code" else _trimmed(rows)

    def text_row(self, text: str) -> Row:
        return self._row([Segment(text)], dim=True)

    def _markdown(self, block: Block) -> RenderableType:
        tokens = self._parser.parse(block.source)
        if any(token.level >= _MAX_NESTING - 1 for token in tokens):
            return Text(block.source)
        for token in tokens:
            if token.children:
                token.children = list(_inline(token.children))
        if block.number is not None and tokens and tokens[0].type == "ordered_list_open":
            tokens[0].attrs["start"] = block.number
        return _Markdown(tokens)

    def _open_fence(self, info: str) -> None:
        named = Syntax("", info.partition(" ")[0] or "text", theme=_CODE_THEME)
        self._syntax = Syntax("", named.lexer or "text", theme=_CODE_THEME)
        self._context = []

    def _code(self, source: str, *, final: bool) -> list[list[Segment]]:
        lines = source.expandtabs(4).split("\n")
        if max(map(len, lines)) > _MAX_CONTEXT:
            return [[Segment(line)] for line in lines]
        code = "\n".join([*self._context, *lines, ""])
        texts = self._syntax.highlight(code).split("\n")[len(self._context) :]
        if final:
            self._context += lines
            while sum(map(len, self._context)) > _MAX_CONTEXT:
                del self._context[: len(self._context) // 2 or 1]
        return [
            [Segment(part, style) for part, style, _ in text.render(self._console)]
            for text, _ in zip(texts, lines, strict=False)
        ]

    def _row(self, segments: list[Segment], dim: bool) -> Row:
        """Without white space at its end, so that a terminal that wraps rows anew wraps what is seen.

        Controls are removed once more: an entity such as `&#x202e;` is one only after parsing.
        """
        while segments and not segments[-1].text.strip():
            segments = segments[:-1]
        if segments:
            segments = [*segments[:-1], Segment(segments[-1].text.rstrip(), segments[-1].style)]
        segments = [Segment(sanitize(text).replace("\n", " "), style) for text, style, _ in segments]
        if dim:
            segments = list(Segment.apply_style(segments, post_style=_DIM))
        if self._console.no_color:
            segments = list(Segment.remove_color(segments))
        plain = "".join(text for text, _, _ in segments)
        ansi = "".join(
            style.render(text, color_system=self._colors) if style else text for text, style, _ in segments
        )
        return Row(plain, ansi)

    def paragraph_cut(self, source: str, width: int, n_rows: int) -> int | None:
        """Where to cut a paragraph so that its first `n_rows` rows stand by themselves.

        None where the rest would not look the same alone: inside emphasis, or before what reads as a list.
        """

        def rows(part: str) -> list[str]:
            return [row.plain for row in self.rows(Block("paragraph", part, False), width, final=False)]

        low, high = 0, len(source)  # the longest prefix of n_rows rows
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if len(rows(source[:middle])) <= n_rows else (low, middle - 1)
        whole = rows(source)
        for cut in (low, max(source.rfind(" ", 0, low), source.rfind("\n", 0, low))):
            if 0 < cut < len(source) and rows(source[:cut]) + rows(source[cut:].lstrip(" \n")) == whole:
                return cut
        return None


def _trimmed(rows: list[Row]) -> list[Row]:
    """Without the empty rows that Rich puts around lists and tables."""
    filled = [index for index, row in enumerate(rows) if row.plain]
    return rows[filled[0] : filled[-1] + 1] if filled else []


# --- rows -> terminal -----------------------------------------------------------------------------


def height(rows: Iterable[Row], columns: int) -> int:
    """Rows of the screen that printed rows take up where `columns` make them wrap."""
    return sum(_height(row.plain, columns) for row in rows)


def _height(text: str, columns: int) -> int:
    if cell_len(text) <= columns:
        return 1
    n_rows, column = 1, 0
    for char in text:
        cells = get_character_cell_size(char)
        column += cells
        if column > columns:  # a wide character does not straddle the edge
            n_rows, column = n_rows + 1, cells
    return n_rows


class Painter:
    """Prints rows for good, and rows that the next call replaces.

    A resize moves what is on the screen. Most terminals wrap printed rows anew (`reflows`), so the rows to
    go up are counted for the new width; the others cut rows off, one row stays one. Rows that the resize
    pushed off the screen can't be painted over: `width` then stays what it was, so that they stay right.
    """

    def __init__(self, file: TextIO, size: Size, *, reflows: bool) -> None:
        self._file = file
        self._size = size
        self._reflows = reflows
        self._live: list[Row] = []  # painted last, to be replaced
        self._columns = 0  # of the terminal at the last paint
        self._width = 0  # that the last paint's rows were laid out for

    def width(self) -> int:
        """Columns to lay out the next rows for. The last column stays free: it is where terminals differ."""
        columns, lines = self._size()
        if self._live and height(self._live, self._wrap(columns)) > lines - 1:
            return self._width
        return max(columns - 1, _MIN_WIDTH)

    def fits(self, rows: list[Row]) -> bool:
        columns, _ = self._size()
        return height(rows, columns) <= self.capacity()

    def capacity(self) -> int:
        """Rows that can be replaced."""
        _, lines = self._size()
        return max(min(lines - 2, _MAX_LIVE_ROWS), 1)

    def paint(self, final: list[Row], live: list[Row], width: int) -> None:
        """Replace the live rows by `final` and new live rows, of which the last that fit are shown."""
        columns, lines = self._size()
        shown = self._last(live, columns)
        rows = final + shown
        same = 0
        if self._reflows or columns == self._columns:
            while same < min(len(rows), len(self._live)) and rows[same].ansi == self._live[same].ansi:
                same += 1
        if same < max(len(rows), len(self._live)):
            up = min(height(self._live[same:], self._wrap(columns)), lines - 1)
            move = f"\x1b[{up}A" if up else ""
            self._file.write(f"{move}\r\x1b[J" + "".join(f"{row.ansi}\n" for row in rows[same:]))
            self._file.flush()
        self._live, self._columns, self._width = shown, columns, width

    def clear_line(self) -> None:
        """Remove what the terminal echoed at the cursor (^C)."""
        self._file.write("\r\x1b[J")
        self._file.flush()

    def _wrap(self, columns: int) -> int:
        return columns if self._reflows else self._columns

    def _last(self, rows: list[Row], columns: int) -> list[Row]:
        room = self.capacity()
        if rows and not self.fits(rows[-1:]):
            end = rows[-1].plain[-max(room * columns // 2, 1) :]
            return [Row(end, end)]
        first = len(rows)
        while first > 0 and (taken := height(rows[first - 1 : first], columns)) <= room:
            room -= taken
            first -= 1
        return rows[first:]


def _terminal_size(file: TextIO) -> Size:
    def size() -> tuple[int, int]:
        try:
            columns, lines = os.get_terminal_size(file.fileno())
        except (OSError, ValueError):  # not a terminal's descriptor
            columns, lines = 0, 0
        return columns or 80, lines or 24

    return size


def _terminal_reflows() -> bool:
    """False for the few terminals known to cut rows off at a resize: xterm, GNU screen, the Linux console."""
    return not (os.environ.get("XTERM_VERSION") or os.environ.get("STY") or os.environ.get("TERM") == "linux")


# --- replies -> rows ------------------------------------------------------------------------------


class MarkdownSink:
    """Markdown to a terminal, painted as it streams.

    `reasoning`: "show" puts it before the answer, dim, under a dim marker; "hide" folds it into one dim line.
    Several samples follow each other with a line `---` between. Nothing else may write to the terminal
    between the first delta and `close` but at the end of a reply. `file` is left open by `close`.
    """

    def __init__(
        self,
        file: TextIO,
        *,
        reasoning: ReasoningView,
        n_samples: int,
        size: Size | None = None,
        reflows: bool | None = None,
        interval_s: float = _INTERVAL_S,
    ) -> None:
        console = Console(file=file, force_terminal=True, theme=_THEME, highlight=False)
        self._renderer = Renderer(console)
        self._painter = Painter(
            file,
            size or _terminal_size(file),
            reflows=_terminal_reflows() if reflows is None else reflows,
        )
        self._view = reasoning
        self._interval_s = interval_s
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
            self._n_thought += item.token is not None
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
        self._not_before = ended + max(self._interval_s, _IDLE_PER_BUSY * (ended - began))

    def _live(self, final: list[Row], width: int) -> list[Row]:
        """Rows of the open block; what it has too much of goes to `final`."""
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
