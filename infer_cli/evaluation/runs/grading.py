"""What grades answers: a task's own scorers, or another program's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from infer_cli.evaluation.runs.sample import Sample
from infer_cli.evaluation.tasks.item import Item, Metric

# Of the values that all items have of a metric (JSON), what they come to. Raises ScorerFailed.
Corpus = Callable[[Sequence[object]], float]


class Grader(Protocol):
    """From an item and the lines of its rows to samples. A pure function of these, but for what is code."""

    @property
    def metrics(self) -> Sequence[Metric]: ...

    @property
    def code_scorers(self) -> Sequence[str]:
        """Names of the scorers that run code."""

    def grade(self, item: Item, lines: Sequence[Sequence[Mapping[str, object]]]) -> list[Sample]:
        """`lines`: for each of the item's rows, in their order, the lines of its samples; none where it is
        not answered. One sample of a likelihood; of replies as many as there are lines, at least one."""
