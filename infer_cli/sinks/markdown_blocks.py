"""Cuts streamed Markdown into blocks as their lines come. Knows block structure, nothing of rendering.

Follows CommonMark 0.31 (and GFM's tables) as far as it decides where a block ends. Where it errs, text is
cut at another line than a full parser would cut it; none is lost. Each line is looked at once.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Kind = Literal["paragraph", "single", "list", "table", "quote", "fence_open", "code", "fence_close"]


class Block(NamedTuple):
    """A piece of Markdown that can be rendered by itself.

    A list is cut at its top items ("list", `number` being an ordered item's), fenced code at its lines:
    `source` is then the info string ("fence_open") or a line of code. "single" is a heading or a break.
    `gap` asks for a blank line before it.
    """

    kind: Kind
    source: str
    gap: bool
    number: int | None = None


_FENCE = re.compile(r"( {0,3})(?:(`{3,})([^`]*)|(~{3,})(.*))$")
_BREAK = re.compile(r" {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$")
_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]|$)")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[ \t]*$")
_QUOTE = re.compile(r" {0,3}>")
_ITEM = re.compile(r"( {0,3})(?:([-*+])|(\d{1,9})([.)]))( +|$)(.*)")
_DELIMITERS = re.compile(r" {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
# The start of a line that may still become markup: shown only when more of it is known.
_UNDECIDED = re.compile(r"[ \t]*(?:[-=+*_#>`~|: \t]*|\d{1,9}[.)]?)[ \t]*$")


class _Fence(NamedTuple):
    char: str
    length: int
    indent: int
    info: str

    def closes(self, line: str) -> bool:
        text = line.strip()
        return len(text) >= self.length and not text.strip(self.char)


class BlockSplitter:
    """Takes text in any chunks; gives blocks as they are finished, and the open one on request.

    `gap`: something was shown before the first block.
    """

    def __init__(self, *, gap: bool) -> None:
        self._kind: Kind | None = None  # of the open block
        self._lines: list[str] = []  # its complete lines; none inside a fence
        self._partial = ""  # the line that has no end yet
        self._gap = gap
        self._done: list[Block] = []
        self._fence = _Fence("`", 3, 0, "")  # the open fence, or the one inside a list's item
        self._fenced_item = False
        self._marker = ""  # the list's bullet, or the character after its numbers
        self._content = 0  # where the item's content starts, columns
        self._number: int | None = None
        self._blank = False  # the item's last line is blank

    def feed(self, text: str) -> list[Block]:
        """Blocks finished by the next chunk."""
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            self._line(line)
        return self._take()

    def finish(self) -> list[Block]:
        """The rest, when no more text comes."""
        if self._partial:
            self._line(self._partial)
            self._partial = ""
        if self._lines:
            self._emit()
        return self._take()

    def open(self) -> Block | None:
        """The unfinished block as far as it can be shown; None where nothing can be."""
        if self._kind == "code":
            if not self._partial:
                return None
            return Block("fence_close" if self._fence.closes(self._partial) else "code", self._code(), False)
        fence = _FENCE.match(self._partial)
        if self._kind is None and fence:
            return Block("fence_open", _fence(fence).info, self._gap)
        held = _UNDECIDED.match(self._partial) and not self._fenced_item
        source = "\n".join([*self._lines, "" if held else self._partial]).rstrip("\n")
        if not source.strip():
            return None
        return Block(self._kind or "paragraph", source, self._gap, self._number)

    def cut(self, length: int) -> Block:
        """Finish the open block early, after `length` characters; the rest goes on without a gap.

        A table's rest keeps its header. Must not be called where `open` is None or fenced code.
        """
        source = "\n".join([*self._lines, self._partial])
        block = Block(self._kind or "paragraph", source[:length].rstrip(), self._gap, self._number)
        *rest, self._partial = source[length:].lstrip(" \n").split("\n")
        self._lines = self._lines[:2] + rest if self._kind == "table" else rest
        self._gap = False
        self._number = None
        if not self._lines:
            self._kind = None
        return block

    def _take(self) -> list[Block]:
        done, self._done = self._done, []
        return done

    def _emit(self) -> None:
        """The open block is finished."""
        if self._kind is not None:
            source = "\n".join(self._lines).rstrip("\n")
            self._done.append(Block(self._kind, source, self._gap, self._number))
        self._kind = self._number = None
        self._lines = []
        self._gap = True
        self._fenced_item = self._blank = False

    def _line(self, line: str) -> None:
        if self._kind == "code":
            self._code_line(line)
        elif self._kind == "list":
            self._list_line(line)
        elif not line.strip():
            if self._kind is not None:
                self._emit()
        elif self._kind is None:
            self._begin(line)
        elif self._kind == "paragraph":
            self._paragraph_line(line)
        elif (self._kind == "quote" and _QUOTE.match(line)) or not _interrupts(line):
            self._lines.append(line)
        else:
            self._emit()
            self._begin(line)

    def _begin(self, line: str) -> None:
        """A line that starts a block."""
        if fence := _FENCE.match(line):
            self._fence = _fence(fence)
            self._done.append(Block("fence_open", self._fence.info, self._gap))
            self._kind = "code"
            return
        self._lines = [line]
        if _BREAK.match(line) or _HEADING.match(line):
            self._kind = "single"
            self._emit()
        elif _QUOTE.match(line):
            self._kind = "quote"
        elif item := _ITEM.match(line.expandtabs(4)):
            self._kind = "list"
            self._number = int(item[3]) if item[3] else None
            self._item(item)
        else:
            self._kind = "paragraph"

    def _paragraph_line(self, line: str) -> None:
        if _UNDERLINE.match(line):
            self._lines.append(line)
            self._emit()
        elif "|" in self._lines[-1] and _DELIMITERS.match(line) and _cells(self._lines[-1]) == _cells(line):
            header = self._lines.pop()
            if self._lines:
                self._emit()
            self._kind = "table"
            self._lines = [header, line]
        elif _interrupts(line):
            self._emit()
            self._begin(line)
        else:
            self._lines.append(line)

    def _code_line(self, line: str) -> None:
        if self._fence.closes(line):
            self._done.append(Block("fence_close", line.strip(), False))
            self._kind = None
            self._gap = True
        else:
            self._done.append(Block("code", _dedent(line, self._fence.indent), False))

    def _code(self) -> str:
        return _dedent(self._partial, self._fence.indent)

    def _list_line(self, line: str) -> None:
        wide = line.expandtabs(4)
        indent = len(wide) - len(wide.lstrip())
        if not wide.strip():
            self._lines.append("")
            self._blank = True
            return
        if indent >= self._content:
            self._lines.append(line)
            self._blank = False
            self._inner_fence(wide)
            return
        item = _ITEM.match(wide)
        if item and not _BREAK.match(line) and (item[2] or item[4]) == self._marker:
            number = None if self._number is None else self._number + 1
            self._emit()
            self._kind, self._lines, self._number, self._gap = "list", [line], number, False
            self._item(item)
        elif self._blank or self._fenced_item or _interrupts(line):
            self._emit()
            self._begin(line)
        else:
            self._lines.append(line)  # a lazy continuation

    def _item(self, item: re.Match[str]) -> None:
        self._marker = item[2] or item[4]
        spaces = len(item[5])
        self._content = item.start(5) + (spaces if item[6] and spaces <= 4 else 1)
        self._inner_fence(item[6])

    def _inner_fence(self, line: str) -> None:
        if self._fenced_item:
            self._fenced_item = not self._fence.closes(line)
        elif fence := _FENCE.match(line.lstrip()):
            self._fence = _fence(fence)
            self._fenced_item = True


def _fence(match: re.Match[str]) -> _Fence:
    run = match[2] or match[4]
    return _Fence(run[0], len(run), len(match[1]), (match[3] or match[5] or "").strip())


def _dedent(line: str, indent: int) -> str:
    return line[min(indent, len(line) - len(line.lstrip(" "))) :]


def _interrupts(line: str) -> bool:
    """Whether a line ends the paragraph (or the table, or a quote's lazy lines) before it."""
    if _FENCE.match(line) or _BREAK.match(line) or _HEADING.match(line) or _QUOTE.match(line):
        return True
    item = _ITEM.match(line.expandtabs(4))
    return bool(item and item[6] and (item[2] or int(item[3]) == 1))


def _cells(row: str) -> int:
    return row.strip().strip("|").replace("\\|", "").count("|") + 1
