"""What scorers by a rule have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from infer_cli.evaluation.scorers.scorer import Answer, Score, ScorerFailed

_SHOWN = 40  # characters of a text in an explanation

RIGHT = Score(1.0)


class Rule(ABC):
    """A scorer that computes from the answer alone: the same answer has the same score, always."""

    is_code = False
    higher_is_better = True
    worst = 0.0

    def __init__(self, name: str, *, is_proportion: bool = True) -> None:
        self.name = name
        self.is_proportion = is_proportion

    @abstractmethod
    def score(self, answer: Answer) -> Score:
        """Raises ScorerFailed."""


def wrong(explanation: str) -> Score:
    return Score(0.0, explanation)


def wrong_for(got: str, wanted: tuple[str, ...]) -> Score:
    return Score(0.0, f"got {shown(got)}, wanted {' or '.join(map(shown, wanted[:3]))}")


def shown(text: str) -> str:
    """The beginning of a text for an explanation, on one line."""
    text = " ".join(text[: _SHOWN * 4].split()) if not text.isalnum() else text
    return f"{text[:_SHOWN]}…" if len(text) > _SHOWN else text or "nothing"


def references_of(answer: Answer) -> tuple[str, ...]:
    """The correct answers. Raises ScorerFailed where there are none."""
    if not answer.references:
        raise ScorerFailed("the item has no reference")
    return answer.references
