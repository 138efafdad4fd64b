"""What a scorer is: it says how good one answer is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class ScorerFailed(Exception):
    """A scorer could not score an answer: the item is wrong, and its line says why."""


@dataclass(frozen=True)
class Answer:
    """`text` is the whole reply, `extracted` what was found in it, `doc` the row of the data.
    `finish_reason` says what ended the reply, as in its line."""

    text: str
    extracted: str
    references: tuple[str, ...]
    doc: Mapping[str, object]
    finish_reason: str | None = None


class Score(NamedTuple):
    """`value` is finite. `explanation` says why, where that can be said."""

    value: float
    explanation: str = ""


class Scorer(Protocol):
    """`name`: the key of its score. `is_code`: it runs what a model or a task wrote. `is_proportion`: scores
    are 0 or 1. `worst`: what an item without an answer counts as."""

    @property
    def name(self) -> str: ...

    @property
    def is_code(self) -> bool: ...

    @property
    def is_proportion(self) -> bool: ...

    @property
    def higher_is_better(self) -> bool: ...

    @property
    def worst(self) -> float: ...

    def score(self, answer: Answer) -> Score:
        """Raises ScorerFailed."""
