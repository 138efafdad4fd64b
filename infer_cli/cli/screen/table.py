"""Tables on a terminal. Columns that find no room are left out whole; what stays is never cut, but for one
column of a table, which holds the beginning of a text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from infer_cli.cli.screen.terminal import columns_of, is_coloured
from infer_cli.process.stream_filter import styled
from infer_cli.text.graphemes import cells, shortened, wrapped
from infer_cli.text.sanitize import single_line

_GAP = 2  # columns of the terminal between two of the table
SHORT_ID = 8  # characters of an id that are shown
_LEAST_TEXT = 24  # of a text that is cut: with less, other columns go first


class Column(NamedTuple):
    """`rank`: where room is short the highest goes first; 0 always stays. `is_text`: its cells may be cut."""

    heading: str
    rank: int = 0
    right: bool = False
    is_text: bool = False


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """To stdout, as wide as its terminal. Nothing where there is no row."""
    for line in table_lines(columns, rows, columns_of(sys.stdout)):
        print(line)


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """A heading and a line for each row. Longer than `width` only where a cell that stays is."""
    if not rows:
        return []
    grid = [[single_line(cell) for cell in row] for row in rows]
    widths = [
        max(cells(column.heading), *(cells(row[i]) for row in grid)) for i, column in enumerate(columns)
    ]
    shown = _that_fit(columns, widths, width)
    lines = []
    for row in [[column.heading for column in columns], *grid]:
        line = ""
        for i in shown:
            room = width - cells(line)
            cell = shortened(row[i], max(room, 1)) if columns[i].is_text else row[i]
            padding = " " * (widths[i] - cells(cell))
            line += (padding + cell if columns[i].right else cell + padding) + " " * _GAP
        lines.append(line.rstrip())
    return lines


def _that_fit(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """Indices of the columns that there is room for."""
    shown = list(range(len(columns)))
    least = [min(w, _LEAST_TEXT) if columns[i].is_text else w for i, w in enumerate(widths)]
    for i in sorted(shown, key=lambda i: -columns[i].rank):
        if sum(least[k] for k in shown) + _GAP * (len(shown) - 1) <= width or not columns[i].rank:
            break
        shown.remove(i)
    return shown


def print_facts(facts: Sequence[tuple[str, str, str]]) -> None:
    """Name, value and origin of each, to stdout; what is too long goes on in the next line, between words."""
    indent = max(cells(name) for name, _, _ in facts) + _GAP
    width = columns_of(sys.stdout)
    bold, dim, off = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if is_coloured(sys.stdout) else ("", "", "")
    out = styled(sys.stdout)
    for name, value, origin in facts:
        first, *rest = wrapped(value, indent, width)
        lines = [f"{bold}{name}{off}{first[len(name) :]}", *rest]
        told = f"({origin})" if origin else ""
        if told and cells((rest or [first])[-1]) + _GAP + cells(told) <= width:
            lines[-1] += " " * _GAP + dim + told + off
        elif told:
            lines += [dim + line + off for line in wrapped(told, indent, width)]
        out.write("\n".join(lines) + "\n")


def short_ids(ids: Sequence[str]) -> list[str]:
    """Beginnings of ids that tell these apart, `SHORT_ID` characters where that will do."""
    length = SHORT_ID
    while len({each[:length] for each in ids}) < len(set(ids)):
        length += 1
    return [each[:length] for each in ids]


def when_in_short(moment: datetime, now: datetime) -> str:
    """`18:42` of today, else how long ago in the units of `--since`: `2h`, `3d`."""
    if moment.date() == now.date():
        return moment.strftime("%H:%M")
    hours = max(int((now - moment).total_seconds() // 3600), 0)
    return f"{hours}h" if hours < 24 else f"{hours // 24}d"
