"""Tries a task before a run: how its items read, how long they are, and what its scorers say to an answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from infer_cli.evaluation.runs.grader import TaskGrader
from infer_cli.evaluation.runs.sample import Sample
from infer_cli.evaluation.scorers.judge import Judge
from infer_cli.evaluation.scorers.registry import make_scorers
from infer_cli.evaluation.tasks.asked_prompt import AskedPrompt, PromptReader
from infer_cli.evaluation.tasks.item import Item
from infer_cli.evaluation.tasks.items import ItemSet
from infer_cli.evaluation.tasks.task import Task
from infer_cli.evaluation.tasks.templates import TaskTemplate, Templates

N_SHOWN = 3  # items
N_NAMED = 10  # ids of items that do not fit
_NO_ANSWER = "I do not know."


class TriedAnswer(NamedTuple):
    """An answer that nobody gave, and what a run would make of it."""

    what: str
    sample: Sample


class ShownItem(NamedTuple):
    """`prompts` are its rows as the model reads them. `answers` are there where replies are scored."""

    item: Item
    prompts: tuple[AskedPrompt, ...]
    answers: tuple[TriedAnswer, ...]


class TokenCounts(NamedTuple):
    """Of all rows of all items. `window` is the model's, None where it is not known; `too_long` are the items
    that it does not hold, the first few of `n_too_long`."""

    n_rows: int
    least: int
    median: int
    most: int
    window: int | None
    n_too_long: int
    too_long: tuple[str, ...]


class TaskCheck(NamedTuple):
    """What a check found. `judges` are the scorers that need a model, which is not asked here."""

    shown: tuple[ShownItem, ...]
    tokens: TokenCounts
    judges: tuple[str, ...]


def check_task(
    task: Task,
    items: ItemSet,
    reader: PromptReader,
    window: int | None,
    *,
    allow_code: bool,
    on_item: Callable[[int], None],
) -> TaskCheck:
    """Reads all items, one at a time, and shows the first, one of the middle, and the last. `on_item` is told
    how many were read. Raises an InferError for what is wrong with a row, a template or a scorer."""
    scorers = make_scorers(task, allow_code=allow_code)
    grader = TaskGrader(task, [scorer for scorer in scorers if not isinstance(scorer, Judge)])
    shown_at = {0, items.n // 2, items.n - 1}
    shown: list[tuple[Item, tuple[AskedPrompt, ...]]] = []
    counts: list[int] = []
    too_long: list[str] = []
    n_too_long = 0
    for item in items.items():
        prompts = tuple(map(reader.read, item.rows))
        counts += [prompt.n_tokens for prompt in prompts]
        if window is not None and any(prompt.n_window > window for prompt in prompts):
            n_too_long += 1
            too_long += [item.id] if n_too_long <= N_NAMED else []
        if item.index in shown_at:
            shown.append((item, prompts))
        on_item(item.index + 1)
    counts.sort()
    references = [item.references for item, _ in shown]
    return TaskCheck(
        tuple(ShownItem(item, prompts, _tried(task, grader, item, references)) for item, prompts in shown),
        TokenCounts(
            len(counts), counts[0], counts[len(counts) // 2], counts[-1], window, n_too_long, tuple(too_long)
        ),
        tuple(scorer.name for scorer in scorers if isinstance(scorer, Judge)),
    )


def _tried(
    task: Task, grader: TaskGrader, item: Item, references: Sequence[Sequence[str]]
) -> tuple[TriedAnswer, ...]:
    """What is said to an item's own reference, to an answer as examples have it, to an empty one, and to
    another item's reference."""
    if task.kind != "generate":
        return ()
    own = [("its reference", text) for text in item.references[:1]]
    if task.fewshot is not None:
        template = TaskTemplate("[fewshot] answer", task.fewshot.answer)
        as_example = Templates(task).text(template, item.doc, f"item {item.id!r:.60}")
        own.append(("as an example", as_example))
    others = (text for each in references for text in each if text not in item.references)
    wrong = [("another item's", text) for text in itertools.islice(others, 1)]
    answers = [*own, ("nothing", ""), *(wrong or [("a wrong one", _NO_ANSWER)])]
    return tuple(TriedAnswer(what, _graded(grader, item, text)) for what, text in answers)


def _graded(grader: TaskGrader, item: Item, text: str) -> Sample:
    line: Mapping[str, object] = {"text": text, "finish_reason": "stop", "sample": 0}
    lines: Iterable[Sequence[Mapping[str, object]]] = [[line] for _ in item.rows]
    return grader.grade(item, list(lines))[0]
