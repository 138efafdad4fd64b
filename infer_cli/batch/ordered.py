"""Output in input order: a line whose turn has not come is kept in a journal beside the output."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from infer_cli.batch.output import Output, Unit
from infer_cli.batch.output_index import parse_line
from infer_cli.system.files import naming, open_regular, write_all

_MOST_HEAD = 128  # bytes
_HEAD = re.compile(
    rb'\{"row": (?P<row>[0-9]{1,18}), "sample": (?P<sample>[0-9]{1,3}), "size": (?P<size>[0-9]{1,18})\}\n'
)


class Place(NamedTuple):
    """Bytes of the journal."""

    start: int
    size: int


class OrderedOutput:
    """An output in input order. What waits in the journal is found there by the next process."""

    def __init__(self, output: Output, journal: Path) -> None:
        self._output = output
        self._path = journal
        self._turns: deque[Unit] = deque()
        self._waiting: dict[Unit, Place] = {}
        self._file = open(journal, "a+b", buffering=0)  # noqa: SIM115  # closed by `close`
        self._read_journal()

    def expect(self, unit: Unit) -> bool:
        waited = unit in self._waiting
        self._turns.append(unit)
        self._flush()
        return not waited

    def waits(self, unit: Unit) -> bool:
        return unit in self._waiting

    def complete(self, unit: Unit, line: bytes) -> None:
        if self._turns and self._turns[0] == unit:
            self._turns.popleft()
            self._output.complete(unit, line)
            self._flush()
            return
        end = self._file.seek(0, os.SEEK_END)
        entry = journal_entry(unit, line)
        with naming(self._path):
            write_all(self._file.fileno(), entry)
        self._waiting[unit] = Place(end + len(entry) - len(line), len(line))

    def close(self) -> None:
        self._output.close()
        os.fsync(self._file.fileno())
        self._file.close()

    def _flush(self) -> None:
        flushed = False
        while self._turns and (place := self._waiting.pop(self._turns[0], None)) is not None:
            self._file.seek(place.start)
            self._output.complete(self._turns.popleft(), self._file.read(place.size))
            flushed = True
        if flushed and not self._waiting:
            self._file.truncate(0)

    def _read_journal(self) -> None:
        whole = 0
        for unit, place, _ in read_journal(self._path):
            self._waiting[unit] = place
            whole = place.start + place.size
        self._file.truncate(whole)


def journal_entry(unit: Unit, line: bytes) -> bytes:
    """A line with what `read_journal` finds it by."""
    return json.dumps({"row": unit.row, "sample": unit.sample, "size": len(line)}).encode() + b"\n" + line


def read_journal(path: Path) -> Iterator[tuple[Unit, Place, bytes]]:
    """The lines that wait, up to what is none of ours. Nothing where there is no journal."""
    if not path.exists():
        return
    position = 0
    with open_regular(path) as file:
        left = os.fstat(file.fileno()).st_size
        while head := file.readline(_MOST_HEAD):
            position += len(head)
            entry = _HEAD.fullmatch(head)
            if entry is None:
                return
            unit, size = Unit(int(entry["row"]), int(entry["sample"])), int(entry["size"])
            if size > left - position:
                return
            line = file.read(size)
            held = parse_line(line, 0, size)  # None for one that was not written whole
            if held is None or Unit(held.row, held.sample) != unit:
                return
            yield unit, Place(position, size), line
            position += size
