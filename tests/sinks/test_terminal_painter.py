"""Rows of the screen that a printed row takes up: the edge tears nothing that a reader takes for one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from infer_cli.sinks.terminal_painter import Row, height
from tests.text.test_graphemes import UNITS

TWO_CELLS = {
    name: unit for name, unit in UNITS.items() if "mark" not in name and name not in ("line end", "letter")
}


def rows_of(text: str, columns: int) -> int:
    return height([Row(text, text)], columns)


@pytest.mark.parametrize("unit", TWO_CELLS.values(), ids=TWO_CELLS)
def test_what_takes_two_cells_does_not_straddle_the_edge(unit: str) -> None:
    assert rows_of("a" * 8 + unit, 10) == 1
    assert rows_of("a" * 9 + unit, 10) == 2
    assert rows_of("a" * 10 + unit, 10) == 2
    assert rows_of(unit * 5, 10) == 1
    assert rows_of(unit * 6, 10) == 2
    assert rows_of("a" * 9 + unit * 5, 10) == 2
    assert rows_of("a" * 9 + unit * 5 + "b", 10) == 3  # 20 cells, of which the first row has 9


@pytest.mark.parametrize("unit", ["e\u0301", "e" + "\u0301" * 40, "é", "e"])
def test_a_mark_stays_with_its_letter_at_the_edge(unit: str) -> None:
    assert rows_of(unit * 10, 10) == 1
    assert rows_of(unit * 11, 10) == 2
    assert rows_of("a" * 9 + unit, 10) == 1


def test_rows_that_fit_ask_no_library() -> None:
    code = (
        "import sys; from infer_cli.sinks.terminal_painter import Row, height\n"
        "height([Row('a 👍🏽', '')], 80); sys.exit('wcwidth' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
