"""The items of a run: the rows of a task's data that are selected, made into what the model is asked.

All of the data is read once before the first item: for its digest, the number of its rows, ids that are there
twice, and the examples. Of ids met before, 64-bit hashes are kept; rows are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.data import DataRow, data_of, find_data
from infer_cli.evaluation.tasks.doc import Doc, MissingField, field_text
from infer_cli.evaluation.tasks.fewshot import Example, ExamplePool, question_key
from infer_cli.evaluation.tasks.item import Item
from infer_cli.evaluation.tasks.rendering import ItemRenderer
from infer_cli.evaluation.tasks.selection import Selection, check_selection, examples_asked
from infer_cli.evaluation.tasks.task import Task
from infer_cli.system.hashing import sha256

# What is put behind an item's id to name one of several rows.
_ROW_SUFFIX = re.compile(r"(?P<id>.*)(?:/|@)\d+", re.DOTALL)


class ItemSet:
    """`n_all`: rows of the data; `n`: those that are selected. `data_sha256` is of all the data. `examples`
    are the rows that may be shown, each with `id` and `doc`.

    Raises UsageError naming file, table, key and row for what is wrong with the data or its templates, and
    SourceUnreachable for data that can't be fetched.
    """

    def __init__(self, task: Task, selection: Selection) -> None:
        check_selection(task, selection)
        self._task, self._selection = task, selection
        self._renderer = ItemRenderer(task, selection)
        self._renderer.check_templates()
        self._data = data_of(task, selection.data, offline=selection.offline)
        self._wanted = frozenset(selection.ids)
        self.data_path = self._data.name
        self.data_sha256 = self._data.sha256()
        self.n_all, self.n = self._scan()
        self._pool = self._make_pool()

    @property
    def examples(self) -> Sequence[Mapping[str, object]]:
        return [] if self._pool is None else [example.as_json() for example in self._pool.examples]

    def items(self) -> Iterator[Item]:
        """All items in the order of the data; as often as asked for."""
        index = 0
        for row in self._data.rows():
            if index == self.n:
                return
            id_ = self._id(row)
            if self._wanted and id_ not in self._wanted:
                continue
            where = self._where(row, id_)
            try:
                item = self._item(index, id_, row.doc, where)
            except MissingField as e:
                is_named = where.startswith(self._data.name)
                raise e if is_named else MissingField(f"{self._data.name}: {e.message}", e.hint) from None
            yield item
            index += 1

    def _item(self, index: int, id_: str, doc: Doc, where: str) -> Item:
        examples: list[Mapping[str, object]] = []
        if self._pool is not None:
            key = question_key(self._renderer.question(doc, where))
            examples = [example.as_json() for example in self._pool.of(id_, key)]
        return self._renderer.item(index, id_, doc, examples, where)

    def _scan(self) -> tuple[int, int]:
        """How many rows there are, and how many are selected."""
        n_all = 0
        hashes: set[bytes] = set()
        longer: dict[str, str] = {}  # ids that could be those of another item's rows, by that one's
        missing = set(self._wanted)
        for row in self._data.rows():
            n_all += 1
            id_ = self._id(row)
            hashed = _hash(id_)
            if hashed in hashes:
                raise UsageError(
                    f"{row.where} has the id {id_!r:.60}, which is another row's too",
                    "name fields that tell rows apart in [data] id; without it, rows are numbered",
                )
            hashes.add(hashed)
            missing.discard(id_)
            if self._task.data.id and (found := _ROW_SUFFIX.fullmatch(id_)):
                longer.setdefault(found["id"], id_)
        for shorter, id_ in longer.items():
            if _hash(shorter) in hashes:
                raise UsageError(
                    f"{self._data.name} has the ids {shorter!r:.60} and {id_!r:.60}: the second could be a"
                    " row of the first item",
                    "name other fields in [data] id",
                )
        if missing:
            raise UsageError(
                f"--ids: {self._data.name} has no item {min(missing)!r:.60}",
                "ids are the values of [data] id, or numbers of rows from 0",
            )
        if not n_all:
            raise UsageError(f"{self._data.name} has no rows")
        n = len(self._wanted) or n_all
        return n_all, n if self._selection.limit is None else min(n, self._selection.limit)

    def _make_pool(self) -> ExamplePool | None:
        asked = examples_asked(self._task, self._selection)
        if asked is None:
            return None
        fewshot, n, seed = asked
        drawn_by = seed if fewshot.draw == "seeded" else None
        if fewshot.path is None:
            examples = (self._example(row, self._id(row)) for row in self._data.rows())
            return ExamplePool(examples, n, drawn_by, None)
        folder, format_ = Path(self._task.path).parent, self._task.data.format
        data = find_data(fewshot.path, folder, format_, offline=self._selection.offline)
        examples = (self._example(row, str(row.number)) for row in data.rows())
        return ExamplePool(examples, n, drawn_by, data.name)

    def _example(self, row: DataRow, id_: str) -> Example:
        return Example(id_, row.doc, question_key(self._renderer.question(row.doc, row.where)))

    def _id(self, row: DataRow) -> str:
        names = self._task.data.id
        key = f"{self._task.path}: [data] id"
        return "-".join(field_text(row.doc, name, row.where, key) for name in names) or str(row.number)

    def _where(self, row: DataRow, id_: str) -> str:
        in_folder = not row.where.startswith(f"{self._data.name}: ")
        place = row.where if in_folder else f"row {row.number}"
        return f"{place} ({id_!r:.60})" if self._task.data.id else place


def read_items(task: Task, selection: Selection) -> ItemSet:
    """The items that are selected of a task's data. Raises as `ItemSet`."""
    return ItemSet(task, selection)


def _hash(text: str) -> bytes:
    return sha256(text.encode())[:8]
