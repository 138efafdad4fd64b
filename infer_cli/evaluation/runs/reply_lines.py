"""The lines of a run's replies, row by row: where they are is kept, not what they say."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from infer_cli.batch.output_index import lines_of
from infer_cli.errors import UsageError
from infer_cli.system.files import MOST_INPUT, bounded_lines, open_regular

if TYPE_CHECKING:
    from types import TracebackType

# The first keys of a line that we wrote, and its last: where they are found the line need not be read twice.
_HEAD = re.compile(rb'\{"id": "[^"\\]*", "custom_id": (?:null|"(?:[^"\\]|\\.)*"), "sample": (\d{1,3}), ')
_TAIL = re.compile(rb', "row": (\d{1,18}), "row_sha256": "[0-9a-f]+"\}\n\Z')
_MOST_TAIL = 128  # bytes


class ReplyLines:
    """Open until it is closed. Raises UsageError for a file that is no output of a batch, OSError."""

    def __init__(self, path: Path) -> None:
        rows, samples, starts = array("q"), array("q"), array("q")
        if path.exists():
            for row, sample, start in _places(path):
                rows.append(row)
                samples.append(sample)
                starts.append(start)
        order = array("q", sorted(range(len(rows)), key=lambda i: (rows[i], samples[i])))
        for i, k in pairwise(order):
            if (rows[i], samples[i]) == (rows[k], samples[k]):
                raise UsageError(f"{path}: row {rows[i]} is answered twice")
        self._rows, self._starts = (
            array("q", (rows[i] for i in order)),
            array("q", (starts[i] for i in order)),
        )
        self._file: BinaryIO | None = open_regular(path) if path.exists() else None
        self._next, self._path = 0, path
        self.n_lines = len(rows)

    def __enter__(self) -> ReplyLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def of_row(self, row: int) -> list[Mapping[str, object]]:
        """In the order of the samples; none where it is not answered. Rows are asked for in their order."""
        while self._next < self.n_lines and self._rows[self._next] < row:
            self._next += 1
        return list(self._lines(row))

    def _lines(self, row: int) -> Iterator[Mapping[str, object]]:
        while self._next < self.n_lines and self._rows[self._next] == row:
            assert self._file is not None
            self._file.seek(self._starts[self._next])
            try:
                value = json.loads(self._file.readline(MOST_INPUT))
            except (ValueError, RecursionError):
                raise UsageError(f"{self._path}: a line of row {row} is not JSON") from None
            yield value
            self._next += 1


def _places(path: Path) -> Iterator[tuple[int, int, int]]:
    """Row, sample and start of each line. Raises UsageError as `lines_of`."""
    start = 0
    with open_regular(path) as file:
        for data in bounded_lines(file, path):
            head, tail = _HEAD.match(data), _TAIL.search(data, max(0, len(data) - _MOST_TAIL))
            if head is None or tail is None:
                break  # the last line may be torn
            yield int(tail[1]), int(head[1]), start
            start += len(data)
        else:
            return
    for line in lines_of(path):
        if line.start >= start:
            yield line.row, line.sample, line.start
