"""The lines of a run's replies, row by row: where they are is kept, not what they say."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from infer_cli.batch.output_index import lines_of
from infer_cli.errors import UsageError
from infer_cli.system.files import open_regular

if TYPE_CHECKING:
    from types import TracebackType


class ReplyLines:
    """Open until it is closed. Raises UsageError for a file that is no output of a batch, OSError."""

    def __init__(self, path: Path) -> None:
        rows, samples, starts = array("q"), array("q"), array("q")
        if path.exists():
            for line in lines_of(path):
                rows.append(line.row)
                samples.append(line.sample)
                starts.append(line.start)
        order = array("q", sorted(range(len(rows)), key=lambda i: (rows[i], samples[i])))
        for i, k in pairwise(order):
            if (rows[i], samples[i]) == (rows[k], samples[k]):
                raise UsageError(f"{path}: row {rows[i]} is answered twice")
        self._rows, self._starts = (
            array("q", (rows[i] for i in order)),
            array("q", (starts[i] for i in order)),
        )
        self._file: BinaryIO | None = open_regular(path) if path.exists() else None
        self._next = 0
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
            yield json.loads(self._file.readline())
            self._next += 1
