"""Ends a reply's reasoning when its budget is spent: the tokens of the closing tag come next.

What comes next depends on the request's own tokens alone, so neighbours, chunks and guesses change nothing.
"""

from __future__ import annotations

from infer_cli.text.reasoning import ReasoningMeter, TagPair
from infer_cli.types import ReasoningBudget


class ReasoningLimit:
    """One reply's reasoning, token by token. `next_token`: the one that has to come next; None: any may."""

    def __init__(self, budget: ReasoningBudget) -> None:
        opened = None if budget.opened is None else TagPair(*budget.opened)
        self._budget = budget
        self._meter = ReasoningMeter([TagPair(*pair) for pair in budget.pairs], opened)
        self._forced: list[int] = []  # still to come
        self._is_spent = False  # the tag is put in once
        self._spend()

    @property
    def next_token(self) -> int | None:
        return self._forced[0] if self._forced else None

    def take(self, piece: bytes) -> None:
        """The next token of the reply stands for `piece`."""
        if self._forced:
            del self._forced[0]
        self._meter.feed(piece)
        self._spend()

    def _spend(self) -> None:
        inside = self._meter.inside
        if inside is not None and not self._is_spent and self._meter.n_tokens >= self._budget.n_tokens:
            self._is_spent = True
            self._forced = list(self._budget.closing[inside.closing])
