"""Prints rows on a terminal, the last ones to be replaced. Knows cursor movement and resizes, no markup."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple, TextIO

from rich.cells import cell_len

Size = Callable[[], tuple[int, int]]  # columns, rows

MIN_WIDTH = 10  # columns that are laid out for, however narrow the terminal
_MAX_LIVE_ROWS = 40  # rows that are replaced, however tall the terminal


class Row(NamedTuple):
    """A row of output: its text, and the same with styles."""

    plain: str
    ansi: str


def height(rows: Iterable[Row], columns: int) -> int:
    """Rows of the screen that printed rows take up where `columns` make them wrap."""
    return sum(_height(row.plain, columns) for row in rows)


def _height(text: str, columns: int) -> int:
    if cell_len(text) <= columns:
        return 1
    from infer_cli.text.graphemes import graphemes

    n_rows, column = 1, 0
    for grapheme in graphemes(text):
        cells = cell_len(grapheme)
        column += cells
        if column > columns:  # a wide one does not straddle the edge
            n_rows, column = n_rows + 1, cells
    return n_rows


class Painter:
    """Prints rows for good, and rows that the next call replaces.

    Most terminals wrap printed rows anew when they are resized (`reflows`), and may push some off the screen,
    where nothing can be painted over. So the open block keeps the width it was begun with: then its rows stay
    as they are, and only those that new text changes, the last ones, are painted over, counted for the new
    width. The other terminals cut rows off, and one row stays one: there all live rows are painted anew.
    """

    def __init__(self, file: TextIO, size: Size, *, reflows: bool, moves: bool = True) -> None:
        self._file = file
        self._size = size
        self._reflows = reflows
        self._moves = moves
        self._live: list[Row] = []  # painted last, to be replaced
        self._gone = 0  # rows of the open block before them that a resize left no room for
        self._tailed = False  # rows before them are not on the screen: they are printed when they are final
        self._columns = 0  # of the terminal at the last paint
        self._width = 0  # that the last paint's rows were laid out for

    def width(self) -> int:
        """Columns to lay out the next rows for. The last column stays free: it is where terminals differ."""
        columns, _ = self._size()
        return self._width if self._live and self._reflows else max(columns - 1, MIN_WIDTH)

    def fits(self, rows: list[Row]) -> bool:
        columns, _ = self._size()
        return height(rows, columns) <= self.capacity()

    def capacity(self) -> int:
        """Rows that can be replaced."""
        _, lines = self._size()
        return max(min(lines - 2, _MAX_LIVE_ROWS), 1)

    def paint(self, final: list[Row], live: list[Row], width: int) -> None:
        """Replace the live rows by `final` and new live rows, of which the last that fit are shown.

        The first rows must be those of the block that was open at the last call.
        """
        columns, lines = self._size()
        if self._reflows and columns < self._columns and not self._tailed:
            room = len(self._last(self._live, columns))
            self._gone += len(self._live) - room
            self._live = self._live[-room:] if room else []
        n_final = len(final)
        live, final = live[max(self._gone - len(final), 0) :], final[self._gone :]
        self._gone = max(self._gone - n_final, 0)
        shown = self._last(live, columns)
        self._tailed = shown != live
        rows = final + shown
        same = 0
        if self._reflows or columns == self._columns:
            while same < min(len(rows), len(self._live)) and rows[same].ansi == self._live[same].ansi:
                same += 1
        if same < max(len(rows), len(self._live)):
            up = min(height(self._live[same:], self._wrap(columns)), lines - 1)
            move = (f"\x1b[{up}A" if up else "") + "\r\x1b[J" if self._moves else ""
            self._file.write(move + "".join(f"{row.ansi}\n" for row in rows[same:]))
            self._file.flush()
        self._live, self._columns, self._width = shown, columns, width

    def clear_line(self) -> None:
        """Remove what the terminal echoed at the cursor (^C)."""
        if self._moves:
            self._file.write("\r\x1b[J")
            self._file.flush()

    def _wrap(self, columns: int) -> int:
        return columns if self._reflows else self._columns

    def _last(self, rows: list[Row], columns: int) -> list[Row]:
        room = self.capacity()
        if rows and not self.fits(rows[-1:]):
            from infer_cli.text.graphemes import grapheme_end

            text = rows[-1].plain
            begin = max(len(text) - max(room * columns // 2, 1), 0)
            end = text[grapheme_end(text, begin) :]
            return [Row(end, end)]
        first = len(rows)
        while first > 0 and (taken := height(rows[first - 1 : first], columns)) <= room:
            room -= taken
            first -= 1
        return rows[first:]


def terminal_size(file: TextIO) -> Size:
    def size() -> tuple[int, int]:
        try:
            columns, lines = os.get_terminal_size(file.fileno())
        except (OSError, ValueError):  # not a terminal's descriptor
            columns, lines = 0, 0
        return columns or 80, lines or 24

    return size


def terminal_reflows() -> bool:
    """False for the few terminals known to cut rows off at a resize: xterm, GNU screen, the Linux console."""
    return not (os.environ.get("XTERM_VERSION") or os.environ.get("STY") or os.environ.get("TERM") == "linux")
