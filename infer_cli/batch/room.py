"""How much memory of the engine is planned for a row."""

from __future__ import annotations

from typing import Any, NamedTuple

from infer_cli.batch.kind import AskedRow


class Room(NamedTuple):
    """Tokens that a row may fill: of a slot, and of the memory of likelihoods."""

    n_window: int
    n_score_window: int

    def lacks(self, asked: AskedRow[Any]) -> str:
        """What does not fit, in words; empty where the row does."""
        for needed, planned in (
            (asked.n_window, self.n_window),
            (asked.n_score_window, self.n_score_window),
        ):
            if needed > planned:
                return f"{needed} tokens do not fit the {planned} that were planned"
        return ""
