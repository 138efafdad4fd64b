"""The plots of a report, by matplotlib. The same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.evaluation.report.calibration import Calibration
from infer_cli.evaluation.report.inline_svg import SERIES, inline_svg, label_mark
from infer_cli.evaluation.report.spreads import Spread
from infer_cli.evaluation.statistics.intervals import wilson
from infer_cli.text.graphemes import shortened
from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches: as narrow as a phone, so that the text of a plot stays legible there.
_WIDTH, _ROW, _AROUND, _PLAIN = 4.2, 0.28, 0.7, 2.2
_FONT = 9.5  # points
_LABEL_SHARE = 0.45  # of the width, for labels of rows
_MOST_LABEL = 21  # columns that fit there
_N_BARS = 30
_COLOURS = tuple(SERIES)
_MARKERS = ("o", "s")


class Dot(NamedTuple):
    """A value with its interval. `series` 0 or 1: the run that it is of."""

    value: float
    interval: tuple[float, float] | None
    series: int = 0


class DotRow(NamedTuple):
    label: str
    dots: Sequence[Dot]


class Plots:
    """Plots as inline SVG, and `labels`: texts in them that are data, which the page's script puts there."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.pictures: list[str] = []

    def dots(
        self, rows: Sequence[DotRow], bounds: tuple[float, float] | None, *, marks_zero: bool = False
    ) -> int:
        """Rows of dots with intervals over one axis, from and to `bounds`. Returns the plot's number."""
        with _OurSettings():
            figure, axis = _figure(len(rows) * _ROW + _AROUND)
            for place, row in enumerate(rows):
                for dot in row.dots:
                    self._dot(axis, place + (dot.series - (len(row.dots) - 1) / 2) * 0.3, dot)
            axis.set_yticks(range(len(rows)), [self._label(row.label) for row in rows])
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            axis.grid(axis="x", color="black", alpha=0.15, linewidth=0.6)
            if marks_zero:
                axis.axvline(0, color="black", linewidth=0.8)
            if bounds is not None:
                axis.set_xlim(*bounds)
            height = len(rows) * _ROW + _AROUND
            figure.subplots_adjust(_LABEL_SHARE, 0.4 / height, 0.96, 1 - 0.12 / height)
            return self._add(figure)

    def histogram(self, spread: Spread) -> int:
        """How many values lie where. Returns the plot's number."""
        with _OurSettings():
            figure, axis = _figure(_PLAIN)
            lo, hi = spread.values[0], spread.values[-1]
            n_bars = min(_N_BARS, int(hi - lo) + 1) if spread.unit == "tokens" else _N_BARS
            axis.hist(spread.values, bins=n_bars, range=(lo, hi) if lo < hi else None, color=_COLOURS[0])
            axis.set_xlabel(f"{spread.name}, {spread.unit}")
            axis.set_ylabel("replies")
            figure.subplots_adjust(0.16, 0.24, 0.96, 0.95)
            return self._add(figure)

    def reliability(self, found: Calibration) -> int:
        """Shares of right choices over probabilities, with Wilson intervals. Returns the plot's number."""
        with _OurSettings():
            figure, axis = _figure(_WIDTH * 0.85)
            axis.plot([0, 1], [0, 1], color="black", alpha=0.5, linewidth=1, linestyle="--")
            for each in found.bins:
                ends = wilson(each.n_right, each.n)
                axis.vlines(each.probability, ends.lo, ends.hi, color=_COLOURS[0], linewidth=1.6)
                axis.plot([each.probability], [each.n_right / each.n], "o", color=_COLOURS[0], markersize=5)
            axis.set_xlim(0, 1)
            axis.set_ylim(0, 1.02)
            axis.set_xlabel("probability of the choice")
            axis.set_ylabel("share that is right")
            figure.subplots_adjust(0.16, 0.16, 0.96, 0.96)
            return self._add(figure)

    def _dot(self, axis: Axes, place: float, dot: Dot) -> None:
        colour = _COLOURS[dot.series]
        if dot.interval is not None:
            axis.hlines(place, *dot.interval, color=colour, linewidth=1.8)
        axis.plot([dot.value], [place], _MARKERS[dot.series], color=colour, markersize=5)

    def _label(self, text: str) -> str:
        self.labels.append(shortened(single_line(text), _MOST_LABEL))
        return label_mark(len(self.labels) - 1)

    def _add(self, figure: Figure) -> int:
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        number = len(self.pictures)
        self.pictures.append(inline_svg(buffer.getvalue(), f"p{number}-"))
        return number


class _OurSettings:
    """Not the user's own settings of matplotlib: the bytes are the numbers' alone."""

    def __init__(self) -> None:
        import matplotlib

        self._context = matplotlib.rc_context()

    def __enter__(self) -> None:
        import matplotlib

        self._context.__enter__()
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {"svg.hashsalt": "infer", "svg.fonttype": "none", "text.parse_math": False, "font.size": _FONT}
        )

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height))
    axis = figure.add_subplot()
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis
