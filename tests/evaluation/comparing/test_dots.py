"""Dots with intervals: what shares an axis, the axis' numbers, and the plot as text."""

from __future__ import annotations

import pytest

from infer_cli.cli.compare.dot_plot import DRAWN, PLAIN, plot_lines
from infer_cli.evaluation.comparing.dots import Dot, DotGroup, dot_groups
from infer_cli.text.graphemes import cells
from tests.evaluation.comparing.test_comparisons import compared, draw, run

POINTS = DotGroup(
    "points",
    True,
    (
        Dot("B - A", 2.0, (-1.0, 5.0), False),
        Dot("C - A", -6.0, (-9.5, -2.5), True),
        Dot("D - A", 0, None, False),
    ),
)


def test_what_has_one_unit_shares_an_axis() -> None:
    a, b = [10.0 + i % 3 for i in range(40)], [11.0 + i % 2 for i in range(40)]
    others = compared(run(a, higher_is_better=False), run(b, higher_is_better=False))
    proportions = compared(*(run(draw(100, share, 1)) for share in (0.3, 0.4, 0.5)))
    points, exact = dot_groups([*proportions, *others])
    assert (points.unit, points.higher_is_better) == ("points", True)
    assert [dot.label for dot in points.dots] == ["B - A", "C - A"]
    assert points.dots[0].value == pytest.approx(100 * proportions[0].found.difference)
    assert (exact.unit, exact.higher_is_better, exact.dots[0].label) == ("exact", False, "B - A")
    assert points.title.endswith("to the right is better") and exact.title.endswith("to the left is better")


@pytest.mark.parametrize("most", [1, 2, 3, 6, 12])
@pytest.mark.parametrize("scale", [0.003, 1, 7, 40])
def test_ticks_are_few_and_round_and_0_is_one(most: int, scale: float) -> None:
    dots = [Dot(dot.label, dot.value * scale, None, False) for dot in POINTS.dots]
    group = POINTS._replace(dots=tuple(dots))
    ticks = group.ticks(most)
    assert 0 in ticks and 1 <= len(ticks) <= most
    assert len(ticks) > most / 3
    assert all(len(f"{tick:g}".lstrip("-").replace(".", "").strip("0")) <= 2 for tick in ticks)
    assert group.range[0] <= ticks[0] and ticks[-1] <= group.range[1]


def test_a_group_without_a_difference_has_an_axis() -> None:
    group = POINTS._replace(dots=(Dot("B - A", 0.0, None, False),))
    assert group.range[0] < 0 < group.range[1] and 0 in group.ticks(3)


def test_the_plot() -> None:
    assert plot_lines(POINTS, 50, PLAIN) == [
        "B - A                          [-------o-------]",
        "C - A    [--------*--------]      |",
        "D - A                             o",
        "       -10           -5           0            +5",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
@pytest.mark.parametrize("marks", [DRAWN, PLAIN])
def test_a_plot_fits_and_its_columns_are_aligned(width: int, marks: object) -> None:
    assert marks in (DRAWN, PLAIN)
    lines = plot_lines(POINTS, width, DRAWN if marks is DRAWN else PLAIN)
    assert all(cells(line) <= width for line in lines)
    kind = DRAWN if marks is DRAWN else PLAIN
    zero = lines[1].index(kind.zero)
    assert lines[2][zero] == kind.untold
    assert lines[-1][zero] == "0"


def test_long_labels_stand_above_their_lines() -> None:
    group = POINTS._replace(dots=(Dot("a task with a name that is long", 1.0, (0.5, 1.5), True),))
    lines = plot_lines(group, 40, PLAIN)
    assert lines[0] == "a task with a name that is long" and "*" in lines[1] and len(lines) == 3


def test_a_label_steers_no_terminal() -> None:
    group = POINTS._replace(dots=(Dot("a\x1b[31m", 1.0, None, True),))
    assert "\x1b" not in "".join(plot_lines(group, 80, PLAIN))
