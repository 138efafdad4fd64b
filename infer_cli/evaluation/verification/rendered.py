"""Are a run's items and requests what its task makes of the data? Each is made again and compared."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.facts import RunFacts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.tasks.data import data_of
from infer_cli.evaluation.tasks.doc import Doc, canonical_json
from infer_cli.evaluation.tasks.fewshot import Example, ExamplePool, question_key
from infer_cli.evaluation.tasks.item import Item
from infer_cli.evaluation.tasks.item_file import item_json, read_written_items
from infer_cli.evaluation.tasks.items import read_items
from infer_cli.evaluation.tasks.rendering import ItemRenderer
from infer_cli.evaluation.tasks.selection import Selection, examples_asked
from infer_cli.evaluation.tasks.task import Task
from infer_cli.evaluation.verification.finding import Finding, first_of
from infer_cli.system.files import bounded_lines, open_regular

# What items were made again of: the data themselves, or the rows that the folder says were its. Another
# program's are not made again.
MadeOf = Literal["data", "folder", "nothing"]


class Rendered(NamedTuple):
    """`made_of` the data: which rows are items was checked too."""

    findings: Sequence[Finding]
    made_of: MadeOf


def check_items(folder: RunFolder, facts: RunFacts, task: Task, data: str | None) -> Rendered:
    """`data`: where the task's data are here; None: where the run says, if they are there and the same.

    Raises UsageError for data that can't be read, and for a selection that the task can't have.
    """
    path = _data_path(facts, task, data)
    if path is not None:
        found = data_of(task, path, offline=True).sha256()
        if found != facts.data.sha256:
            if data is not None:
                what = f"its data have the hash {facts.data.sha256}, {path} has {found}"
                return Rendered([Finding(folder.facts.name, what)], "data")
            path = None
    selection = _selection(facts, task, path)
    findings = [
        *_made_again(folder, facts, _FromFolder(folder, task, selection)),
        *_counts(folder, facts),
    ]
    if path is None:
        return Rendered(findings, "folder")
    findings += first_of(
        folder.items.name, _unlike_data(folder, task, selection), lambda n: f"{n} more items differ"
    )
    return Rendered(findings, "data")


def _data_path(facts: RunFacts, task: Task, data: str | None) -> str | None:
    if data is not None:
        return data
    return facts.data.path if Path(facts.data.path).exists() else None


def _selection(facts: RunFacts, task: Task, data: str | None) -> Selection:
    chosen = facts.selection
    return Selection(
        data=data,
        limit=chosen.limit,
        ids=chosen.ids,
        n_fewshot=None if task.fewshot is None else chosen.fewshot,
        fewshot_seed=chosen.fewshot_seed,
        seeds=chosen.seeds,
        chat=None if task.kind in ("minimal_pairs", "perplexity") else chosen.chat,
        offline=True,
    )


class _FromFolder:
    """Makes items of the rows that the folder has, with the examples that it has."""

    def __init__(self, folder: RunFolder, task: Task, selection: Selection) -> None:
        self._renderer = ItemRenderer(task, selection)
        asked = examples_asked(task, selection)
        self._pool: ExamplePool | None = None
        if asked is not None:
            fewshot, n, seed = asked
            examples = (self._example(id_, doc) for id_, doc in _examples(folder))
            self._pool = ExamplePool(examples, n, seed if fewshot.draw == "seeded" else None, None)

    def _example(self, id_: str, doc: Doc) -> Example:
        return Example(id_, doc, question_key(self._renderer.question(doc, f"example {id_!r:.60}")))

    def item(self, written: Item) -> Item:
        where = f"item {written.id!r:.60}"
        examples: list[Mapping[str, object]] = []
        if self._pool is not None:
            key = question_key(self._renderer.question(written.doc, where))
            examples = [example.as_json() for example in self._pool.of(written.id, key)]
        return self._renderer.item(written.index, written.id, written.doc, examples, where)


def _examples(folder: RunFolder) -> Iterator[tuple[str, Doc]]:
    with open_regular(folder.examples) as file:
        for number, line in enumerate(bounded_lines(file, folder.examples), 1):
            try:
                value = json.loads(line)
                yield str(value["id"]), dict(value["doc"])
            except (ValueError, KeyError, TypeError, RecursionError):
                raise UsageError(f"{folder.examples}: line {number} is no example") from None


def _made_again(folder: RunFolder, facts: RunFacts, made: _FromFolder) -> Iterator[Finding]:
    items, requests = folder.items.name, folder.requests.name

    def unlike() -> Iterator[str]:
        index = -1
        for index, written in enumerate(read_written_items(folder.items, folder.requests)):
            if written.index != index:
                yield f"item {written.id!r:.60} has the index {written.index}, it is number {index}"
                continue
            try:
                now = made.item(written)
            except UsageError as e:
                yield f"item {written.id!r:.60} can't be made again: {e.message}"
                continue
            if (name := _unlike(written, now)) is not None:
                yield f"the {name} of item {written.id!r:.60} are not what the task makes of its row"
        if index + 1 != facts.n_items:
            yield f"these are {index + 1} items, {folder.facts.name} has {facts.n_items}"

    try:
        yield from first_of(f"{items}, {requests}", unlike(), lambda n: f"{n} more items differ")
    except UsageError as e:  # files that do not belong together
        yield Finding(f"{items}, {requests}", e.message)


def _unlike(written: Item, now: Item) -> str | None:
    """What of an item is not the same, or None. As JSON has it: 1 and 1.0 are two."""
    if canonical_json(list(written.rows)) != canonical_json(list(now.rows)):
        return "requests"
    was, is_now = item_json(written), item_json(now)
    for name in is_now:
        if canonical_json(was[name]) != canonical_json(is_now[name]):
            return name
    return None


def _counts(folder: RunFolder, facts: RunFacts) -> Iterator[Finding]:
    """As many items as were selected."""
    chosen, n = facts.selection, facts.data.n_all
    wanted = len(chosen.ids) or n
    wanted = wanted if chosen.limit is None else min(wanted, chosen.limit)
    if facts.n_items != wanted:
        yield Finding(
            folder.facts.name, f"it has {facts.n_items} items, and of {n} rows {wanted} were selected"
        )


def _unlike_data(folder: RunFolder, task: Task, selection: Selection) -> Iterator[str]:
    """Items that are not those of the data. Their requests were compared before, but for examples that came
    from another file: these are the folder's."""
    from_data = task.fewshot is None or task.fewshot.path is None
    if not from_data:
        selection = replace(selection, n_fewshot=0, fewshot_seed=None)
    items = read_items(task, selection)
    if from_data and [canonical_json(dict(example)) for example in items.examples] != [
        canonical_json({"id": id_, "doc": doc}) for id_, doc in _examples(folder)
    ]:
        yield f"the examples in {folder.examples.name} are not those of the data"
    written = read_written_items(folder.items, folder.requests)
    for was, now in itertools.zip_longest(written, items.items()):
        if was is None:
            yield f"item {now.id!r:.60} is missing"
        elif now is None:
            yield f"item {was.id!r:.60} is none of those selected"
        elif was.id != now.id or canonical_json(was.doc) != canonical_json(now.doc):
            yield f"item {was.id!r:.60} is not the row of the data, which has {now.id!r:.60}"
        elif from_data and (name := _unlike(was, now)) is not None:
            yield f"the {name} of item {was.id!r:.60} are not what the task makes of the data"
