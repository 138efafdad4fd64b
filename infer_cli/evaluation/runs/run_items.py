"""The items of a run by any of the rows that they are asked in."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.tasks.item import Item
from infer_cli.evaluation.tasks.item_file import ItemLine, read_item_lines
from infer_cli.system.files import open_regular

if TYPE_CHECKING:
    from types import TracebackType


class RunItems:
    """Of each item only the places of its lines are kept. Open until it is closed.

    Raises UsageError for files that are none of a run's."""

    def __init__(self, folder: RunFolder) -> None:
        self._first_rows, self._items, self._requests = array("q"), array("q"), array("q")
        n_rows = [line.n_rows for line in read_item_lines(folder.items)]
        row = 0
        with open_regular(folder.items) as items, open_regular(folder.requests) as requests:
            for n in n_rows:
                self._first_rows.append(row)
                self._items.append(items.tell())
                self._requests.append(requests.tell())
                items.readline()
                for _ in range(n):
                    requests.readline()
                row += n
        self._item_file, self._request_file = open_regular(folder.items), open_regular(folder.requests)

    def __enter__(self) -> RunItems:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._item_file.close()
        self._request_file.close()

    def number_of(self, row: int) -> int:
        """Of the item that a row is of."""
        return bisect_right(self._first_rows, row) - 1

    def first_row(self, number: int) -> int:
        return self._first_rows[number]

    def item(self, number: int) -> Item:
        self._item_file.seek(self._items[number])
        self._request_file.seek(self._requests[number])
        value = json.loads(self._item_file.readline())  # it was checked above
        texts = {key: tuple(value[key]) for key in ("references", "choices", "fewshot")}
        line = ItemLine(**{**value, **texts})
        return line.with_rows(json.loads(self._request_file.readline()) for _ in range(line.n_rows))
