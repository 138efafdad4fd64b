"""The file of a run's replies, with somebody who is told of each line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from infer_cli.batch.output import Output, Unit
from infer_cli.batch.output_index import lines_of
from infer_cli.batch.target import FileTarget, JobSoFar

# Is told of the row and what its line says.
OnLine = Callable[[int, Mapping[str, object]], None]


class WatchedTarget(FileTarget):
    """`on_line` is told of the lines that are there already, then of each that is written."""

    def __init__(self, path: Path, on_line: OnLine, *, retry_errors: bool = False) -> None:
        super().__init__(path, retry_errors=retry_errors)
        self._replies, self._on_line = path, on_line

    def open(self, so_far: JobSoFar, *, ordered: bool) -> Output:
        output = super().open(so_far, ordered=ordered)
        for line in lines_of(self._replies):
            self._on_line(line.row, line.value)
        return _WatchedOutput(output, self._on_line)


class _WatchedOutput:
    def __init__(self, output: Output, on_line: OnLine) -> None:
        self._output, self._on_line = output, on_line
        self.expect, self.waits, self.close = output.expect, output.waits, output.close

    def complete(self, unit: Unit, line: bytes) -> None:
        self._output.complete(unit, line)
        self._on_line(unit.row, json.loads(line))
