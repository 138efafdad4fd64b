"""The items of a run, read from its folder: with the rows that they are asked in."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.tasks.item import Item
from infer_cli.evaluation.tasks.item_file import item_of
from infer_cli.system.files import open_regular

if TYPE_CHECKING:
    from types import TracebackType


def read_items_of(folder: RunFolder) -> Iterator[Item]:
    """In their order. Raises UsageError for a line that is none of an item, and for rows that are missing."""
    with open_regular(folder.items) as items, open_regular(folder.requests) as requests:
        for n, line in enumerate(items, 1):
            yield _item(folder, n, line, requests)
        if requests.readline():
            raise UsageError(f"{folder.requests} has more rows than its items", _HINT)


class ItemPlaces:
    """Items of a run by any of their rows. Of each item only the places of its lines are kept."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._first_rows, self._items, self._requests = array("q"), array("q"), array("q")
        row = 0
        with open_regular(folder.items) as items, open_regular(folder.requests) as requests:
            at = 0
            for n, line in enumerate(items, 1):
                self._first_rows.append(row)
                self._items.append(at)
                self._requests.append(requests.tell())
                at += len(line)
                n_rows = _object(folder, n, line).get("n_rows")
                for _ in range(n_rows if isinstance(n_rows, int) else 0):
                    requests.readline()
                    row += 1
        self._open_items, self._open_requests = open_regular(folder.items), open_regular(folder.requests)

    def __enter__(self) -> ItemPlaces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_items.close()
        self._open_requests.close()

    def number_of(self, row: int) -> int:
        """The number of the item that a row is of."""
        return bisect_right(self._first_rows, row) - 1

    def first_row(self, number: int) -> int:
        return self._first_rows[number]

    def item(self, number: int) -> Item:
        self._open_items.seek(self._items[number])
        self._open_requests.seek(self._requests[number])
        return _item(self._folder, number + 1, self._open_items.readline(), self._open_requests)


_HINT = "--redo writes the run's files again"


def _item(folder: RunFolder, n: int, line: bytes, requests: BinaryIO) -> Item:
    value = _object(folder, n, line)
    n_rows = value.get("n_rows")
    if not isinstance(n_rows, int) or n_rows < 1:
        raise UsageError(f"{folder.items}: line {n} has no n_rows", _HINT)
    rows = []
    for _ in range(n_rows):
        try:
            row = json.loads(requests.readline())
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UsageError(f"{folder.requests}: a row of item {value.get('id')!r} is missing", _HINT)
        rows.append(row)
    try:
        return item_of(value, rows)
    except (KeyError, TypeError, ValueError) as e:
        raise UsageError(f"{folder.items}: line {n} is no item: {e}", _HINT) from None


def _object(folder: RunFolder, n: int, line: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"{folder.items}: line {n} is no item", _HINT)
    return value
