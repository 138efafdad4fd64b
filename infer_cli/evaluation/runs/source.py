"""Where the items of a run come from: a task of ours, or what another program calls one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from infer_cli.evaluation.runs.facts import DataFacts, GenerationFacts, SelectionFacts, TaskFacts
from infer_cli.evaluation.scorers.judge import Judge
from infer_cli.evaluation.tasks.item import Item, Metric


class ItemSource(Protocol):
    """What a run is begun with. `copy` is kept in its folder: a grader can be made of it again."""

    @property
    def task(self) -> TaskFacts: ...

    @property
    def copy(self) -> str: ...

    @property
    def copy_name(self) -> str:
        """One of `folder.COPIES`."""

    @property
    def data(self) -> DataFacts: ...

    @property
    def selection(self) -> SelectionFacts: ...

    @property
    def generation(self) -> GenerationFacts: ...

    @property
    def examples(self) -> Sequence[Mapping[str, object]]:
        """Rows of the data that are shown before the questions, with their ids."""

    @property
    def judges(self) -> Sequence[Judge]:
        """Scorers that need a model."""

    def metrics(self, n_samples: int) -> Sequence[Metric]:
        """Those of a run with as many replies to each row."""

    def items(self) -> Iterator[Item]:
        """All that were chosen, in their order. Raises UsageError naming the row that can't be used."""
