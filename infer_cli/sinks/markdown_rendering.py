"""One block of Markdown as rows of a terminal. Knows Rich, and nothing of cursors or streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, TextIO

from markdown_it import MarkdownIt
from markdown_it.token import Token as MarkdownToken
from rich import markdown as rich_markdown
from rich.console import COLOR_SYSTEMS, Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from infer_cli.sinks.markdown_blocks import Block
from infer_cli.sinks.terminal_painter import MIN_WIDTH, Row
from infer_cli.text.sanitize import sanitize

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
        "markdown.table.header": "bold",
        "markdown.item.number": "bold",
    }
)


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
    width = max(options.max_width - len(rest), MIN_WIDTH)
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
    """Rich's Markdown with the elements above, of tokens that are parsed."""

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

    def __init__(self, file: TextIO) -> None:
        console = Console(file=file, force_terminal=True, theme=_THEME, highlight=False)
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
