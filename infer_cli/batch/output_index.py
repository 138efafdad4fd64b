"""What an output file holds already: which rows, which of their samples, and whether they failed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeGuard

from infer_cli.errors import UsageError
from infer_cli.system.files import bounded_lines, open_regular

MAX_ROW = 10**18


class Line(NamedTuple):
    """One line of an output, from `start` to `end` in bytes. `samples` is a bit mask: OpenAI's form has
    all samples of a row in one line (-1)."""

    row: int
    row_sha256: str
    samples: int
    failed: bool
    start: int
    end: int
    value: Mapping[str, object]

    @property
    def sample(self) -> int:
        """The sample of our own form, 0 of OpenAI's."""
        return 0 if self.samples < 0 else self.samples.bit_length() - 1


class HeldRow(NamedTuple):
    row_sha256: str
    samples: int  # a bit mask
    failed: bool  # any of them


class OutputIndex:
    """Rows of an output, by index. `n_bytes` is the length of its whole lines."""

    def __init__(self) -> None:
        self.rows: dict[int, HeldRow] = {}
        self.n_bytes = 0
        self.finish_reasons: dict[str, int] = {}
        self.dropped: dict[int, int] = {}  # tokens that were left out of prompts, by row
        self.n_reasoning_cut = 0  # replies that ended inside their reasoning

    def add(self, line: Line) -> None:
        """Raises UsageError for a reply that is there twice."""
        old = self.rows.get(line.row, HeldRow(line.row_sha256, 0, False))
        if old.samples & line.samples:
            raise UsageError(f"row {line.row} is answered twice")
        self.rows[line.row] = HeldRow(line.row_sha256, old.samples | line.samples, old.failed or line.failed)
        for reason in finish_reasons(line.value):
            self.finish_reasons[reason] = self.finish_reasons.get(reason, 0) + 1
        if n_dropped := dropped_tokens(line.value):
            self.dropped[line.row] = n_dropped
        self.n_reasoning_cut += reasoning_cuts(line.value)

    def copy(self) -> OutputIndex:
        other = OutputIndex()
        other.rows, other.finish_reasons = dict(self.rows), dict(self.finish_reasons)
        other.dropped, other.n_bytes = dict(self.dropped), self.n_bytes
        other.n_reasoning_cut = self.n_reasoning_cut
        return other

    def has(self, row: int, sample: int) -> bool:
        return row in self.rows and bool(self.rows[row].samples >> sample & 1)


def finish_reasons(value: Mapping[str, object]) -> list[str]:
    """Of each reply in an output line; a likelihood's is `stop`, unless it failed."""
    ours = value.get("infer")
    if isinstance(ours, dict):
        found = ours.get("finish_reasons")
        return [str(reason) for reason in found] if isinstance(found, list) else []
    if "finish_reason" not in value:
        return ["stop" if value.get("error") is None else "error"]
    return [str(value["finish_reason"])]


def dropped_tokens(value: Mapping[str, object]) -> int:
    """What was left out of the prompt of an output line."""
    ours = value.get("infer")
    truncation = (ours if isinstance(ours, dict) else value).get("truncation")
    n = truncation.get("dropped_tokens") if isinstance(truncation, dict) else None
    return n if isinstance(n, int) else 0


def reasoning_cuts(value: Mapping[str, object]) -> int:
    """How many replies of an output line ended inside their reasoning."""
    ours = value.get("infer")
    if not isinstance(ours, dict):
        return int(value.get("reasoning_cut") is True)
    found = ours.get("reasoning_cut")
    return sum(cut is True for cut in found) if isinstance(found, list) else 0


def read_output(path: Path, keep: Callable[[Line], bool] = lambda line: True) -> OutputIndex:
    """What a file holds, and `keep` wants; last lines that a power cut left broken do not count.

    Raises UsageError for a file that is not a batch's output, OSError where it can't be read.
    """
    held = OutputIndex()
    for line in lines_of(path):
        if keep(line):
            held.add(line)
        held.n_bytes = line.end
    return held


def lines_of(path: Path) -> Iterator[Line]:
    """The whole lines of an output. Raises UsageError for a broken one that a whole one follows."""
    broken: int | None = None
    with open_regular(path) as file:
        end = 0
        for n, data in enumerate(bounded_lines(file, path), 1):
            start, end = end, end + len(data)
            line = parse_line(data, start, end)
            if line is None:
                broken = broken or n
            elif broken is not None:
                raise UsageError(f"{path}: line {broken} is not a line of a batch's output")
            else:
                yield line
    if broken == 1 and end > 0 and not _may_be_ours(path):
        raise UsageError(f"{path} is there already and is not a batch's output", "name another file with -o")


def parse_line(data: bytes, start: int, end: int) -> Line | None:
    """A line of ours; None for a torn one and for anything else."""
    if not data.endswith(b"\n"):
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    ours = value.get("infer")
    keys = ours if isinstance(ours, dict) else value
    row, row_sha256 = keys.get("row"), keys.get("row_sha256")
    sample = value.get("sample")
    if not _is_index(row, MAX_ROW) or not isinstance(row_sha256, str):
        return None
    samples = -1 if keys is ours else 1 << sample if _is_index(sample, 255) else 0
    return Line(row, row_sha256, samples, value.get("error") is not None, start, end, value)


def _is_index(value: object, most: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _may_be_ours(path: Path) -> bool:
    """Whether a file without a whole line is the beginning of our first one."""
    with open_regular(path) as file:
        first = file.read(7)
    return b'{"id": '.startswith(first) or first.strip(b"\0") == b""
