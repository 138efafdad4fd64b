"""Dots with intervals as lines of text."""

from __future__ import annotations

from typing import NamedTuple

from infer_cli.evaluation.comparing.dots import Dot, DotGroup
from infer_cli.text.graphemes import cells
from infer_cli.text.sanitize import single_line

_GAP = 2
_FEWEST_COLUMNS = 24  # of an axis beside labels; with less, labels stand above their lines
_PER_TICK = 10  # columns of the axis


class Marks(NamedTuple):
    """What lines are drawn with. `told` is the dot of a run that is told apart."""

    zero: str
    line: str
    left: str
    right: str
    told: str
    untold: str


DRAWN = Marks("│", "─", "├", "┤", "●", "○")
PLAIN = Marks("|", "-", "[", "]", "*", "o")


def plot_lines(group: DotGroup, width: int, marks: Marks) -> list[str]:
    """A line for each dot and the axis below, in `width` columns. A label may be wider."""
    labels = [single_line(dot.label) for dot in group.dots]
    indent = max(map(cells, labels)) + _GAP
    is_beside = width - indent >= _FEWEST_COLUMNS
    if not is_beside:
        indent = 0
    axis = _Axis(group, width - indent)
    lines = []
    for label, dot in zip(labels, group.dots, strict=True):
        if not is_beside:
            lines.append(label)
        beside = label + " " * (indent - cells(label)) if is_beside else ""
        lines.append(beside + axis.line(dot, marks))
    return [*lines, " " * indent + axis.numbers()]


class _Axis:
    """A group's range in so many columns."""

    def __init__(self, group: DotGroup, n_columns: int) -> None:
        self._n = n_columns
        self._lo, self._hi = group.range
        self._ticks = group.ticks(max(n_columns // _PER_TICK, 1))

    def line(self, dot: Dot, marks: Marks) -> str:
        columns = [" "] * self._n
        columns[self._column(0.0)] = marks.zero
        if dot.interval is not None:
            lo, hi = map(self._column, dot.interval)
            columns[lo : hi + 1] = [marks.line] * (hi + 1 - lo)
            columns[lo], columns[hi] = marks.left, marks.right
        columns[self._column(dot.value)] = marks.told if dot.told_apart else marks.untold
        return "".join(columns).rstrip()

    def numbers(self) -> str:
        """Those of the ticks, each in the middle below its column where the line's ends allow it."""
        line = ""
        for tick in self._ticks:
            text = f"{tick:+g}" if tick else "0"
            begin = min(max(self._column(tick) - (len(text) - 1) // 2, 0), self._n - len(text))
            line = line.ljust(begin) + text
        return line

    def _column(self, value: float) -> int:
        return round((value - self._lo) / (self._hi - self._lo) * (self._n - 1))
