"""A scorer's table in a task's file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches

from infer_cli.evaluation.tasks.table import Table
from infer_cli.evaluation.tasks.task import Task


def close_name(name: str, known: Collection[str]) -> str:
    """The hint that names what was meant, else what there is."""
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"


class ScorerOptions(Table):
    """The `n`-th scorer, and what its table says besides `kind` and `name`. `score_name`: its scores' key."""

    def __init__(self, task: Task, n: int) -> None:
        self.task = task
        self.spec = task.scorers[n - 1]
        self.score_name = self.spec.name
        super().__init__(task.path, f"[[scorer]] {n}", self.spec.options)

    def count(self, key: str) -> int | None:
        """A whole number from 0, None where there is none."""
        return self.whole(key, 0, 0, 10**9) if self.has(key) else None

    def size(self, key: str, default: float = 0.0) -> float:
        """A finite number from 0."""
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise self.wrong(key, f"must be a number from 0, not {value!r}")
        return value

    def values(self, key: str) -> Mapping[str, object] | None:
        """A table of anything, not empty."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(key, f"must be a table, not {value!r:.60}")
        if not value:
            raise self.wrong(key, "is empty")
        return value

    def text_or_values(self, key: str) -> str | Mapping[str, object]:
        if isinstance(self._values.get(key), str):
            return self.needed_text(key)
        value = self.values(key)
        if value is None:
            raise self.missing(key)
        return value
