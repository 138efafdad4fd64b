"""What a report says, part by part: tables, facts and figures, as the page's script draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Facts(NamedTuple):
    """Names and values. `summary`: they are folded away under it."""

    facts: Sequence[tuple[str, str]]
    summary: str | None = None

    def as_json(self) -> dict[str, object]:
        return {"facts": self.facts, "summary": self.summary}


class Table(NamedTuple):
    """The first column names a row, the others are numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def as_json(self) -> dict[str, object]:
        return {"caption": self.caption, "columns": self.columns, "rows": self.rows}


class Figure(NamedTuple):
    """The number of a plot, and what it shows, in words."""

    number: int
    caption: str

    def as_json(self) -> dict[str, object]:
        return {"figure": self.number, "caption": self.caption}


class Paragraph(NamedTuple):
    text: str
    is_warning: bool = False

    def as_json(self) -> dict[str, object]:
        return {"text": self.text, "warning": self.is_warning}


Block = Facts | Table | Figure | Paragraph


class Section(NamedTuple):
    """`level` 2 or 3, of its heading."""

    title: str
    blocks: Sequence[Block]
    level: int = 2

    def as_json(self) -> dict[str, object]:
        return {
            "title": self.title,
            "level": self.level,
            "blocks": [block.as_json() for block in self.blocks],
        }


def number(value: float | None) -> str:
    """Four digits that mean something."""
    if value is None:
        return "-"
    return f"{value:.4g}" if abs(value) >= 0.001 or value == 0 else f"{value:.2g}"
