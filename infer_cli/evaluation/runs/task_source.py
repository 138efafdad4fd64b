"""A task of ours as where the items of a run come from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from infer_cli.evaluation.runs.facts import DataFacts, GenerationFacts, SelectionFacts, TaskFacts
from infer_cli.evaluation.runs.grader import TaskGrader
from infer_cli.evaluation.runs.judging import judges_of
from infer_cli.evaluation.scorers.extraction import Extractor
from infer_cli.evaluation.scorers.judge import Judge
from infer_cli.evaluation.scorers.registry import make_scorers
from infer_cli.evaluation.scorers.scorer import Scorer
from infer_cli.evaluation.tasks.item import Item, Metric
from infer_cli.evaluation.tasks.items import ItemSet, read_items
from infer_cli.evaluation.tasks.loading import load_task
from infer_cli.evaluation.tasks.selection import Selection, examples_asked, is_chat
from infer_cli.evaluation.tasks.task import Task
from infer_cli.system.hashing import sha256_hex


class TaskSource:
    """`given` is what the command line calls the task."""

    def __init__(self, task: Task, given: str, selection: Selection, scorers: Sequence[Scorer]) -> None:
        self._given_task, self._given, self._selection = task, given, selection
        self._scorers = scorers
        self._items: ItemSet = read_items(task, selection)

    @property
    def task(self) -> TaskFacts:
        task = self._given_task
        return TaskFacts(
            name=task.name,
            version=task.version,
            kind=task.kind,
            sha256=task.sha256,
            template_sha256=template_sha256(task),
            given=self._given,
            description=task.description,
            is_code=task.is_code,
            licence=task.licence,
            citation=task.citation,
        )

    @property
    def copy(self) -> str:
        return self._given_task.text

    @property
    def copy_name(self) -> str:
        return "task.py" if self._given_task.is_code else "task.toml"

    @property
    def data(self) -> DataFacts:
        return DataFacts(self._items.data_path, self._items.data_sha256, self._items.n_all)

    @property
    def selection(self) -> SelectionFacts:
        asked = examples_asked(self._given_task, self._selection)
        return SelectionFacts(
            limit=self._selection.limit,
            ids=self._selection.ids,
            fewshot=0 if asked is None else asked[1],
            fewshot_seed=None if asked is None or asked[0].draw == "fixed" else asked[2],
            seeds=self._selection.seeds,
            chat=is_chat(self._given_task, self._selection),
        )

    @property
    def generation(self) -> GenerationFacts:
        made = self._given_task.generation
        return GenerationFacts(dict(made.sampling), made.max_tokens, made.stop)

    @property
    def examples(self) -> Sequence[Mapping[str, object]]:
        return self._items.examples

    @property
    def judges(self) -> Sequence[Judge]:
        return judges_of(self._scorers)

    def metrics(self, n_samples: int) -> Sequence[Metric]:
        return TaskGrader(self._given_task, self._scorers, n_samples).metrics

    def items(self) -> Iterator[Item]:
        return self._items.items()


def open_task(given: str, selection: Selection, *, allow_code: bool) -> TaskSource:
    """A shipped task, or one of a file. Raises UsageError for a task, its extractions, scorers or data that
    can't be used."""
    task = load_task(given, allow_code=allow_code)
    # What is wrong with them is told before anything is written.
    Extractor(task.extractions, task.path)
    scorers = make_scorers(task, allow_code=allow_code)
    return TaskSource(task, given, selection, scorers)


def template_sha256(task: Task) -> str:
    """Of all that makes prompts of a row; of a Python task its whole text."""
    templates = {
        "prompt": asdict(task.prompt),
        "answer": asdict(task.answer),
        "fewshot": None if task.fewshot is None else [task.fewshot.answer, task.fewshot.separator],
        "code": task.text if task.is_code else None,
    }
    return sha256_hex(json.dumps(templates, sort_keys=True, ensure_ascii=True).encode())
