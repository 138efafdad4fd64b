"""Goes on with an output that is there: what it holds, and what of it is to be answered again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from infer_cli.batch.ordered import journal_entry, read_journal
from infer_cli.batch.output import Unit
from infer_cli.batch.output_index import Line, OutputIndex, lines_of, parse_line, read_output
from infer_cli.system.files import open_regular, write_atomic


class OutputContents(NamedTuple):
    """`written`: in the output itself. `answered`: and in the journal of lines that wait for their turn."""

    written: OutputIndex
    answered: OutputIndex


Keep = Callable[[Line], bool]


def find(output: Path, journal: Path, keep: Keep = lambda line: True) -> OutputContents:
    """What an earlier run left, and `keep` wants. Raises UsageError for an output that is none of ours."""
    written = read_output(output, keep) if output.exists() else OutputIndex()
    answered = written.copy()
    for _, line in _waiting(journal, written):
        if keep(line):
            answered.add(line)
    return OutputContents(written, answered)


def drop(output: Path, journal: Path, keep: Keep, *, ordered: bool) -> None:
    """Leave only some lines. With `ordered`, those behind a gap go back to the journal."""
    written = read_output(output)
    gap = next((line.start for line in lines_of(output) if not keep(line)), written.n_bytes)
    if ordered:
        behind = [line._replace(value={}) for line in lines_of(output) if line.start > gap and keep(line)]

        def entries() -> Iterator[bytes]:
            with open_regular(output) as file:
                for line in behind:
                    yield journal_entry(_unit(line), _read(file, line))
            for data, line in _waiting(journal, written):
                if keep(line):
                    yield journal_entry(_unit(line), data)

        write_atomic(journal, entries(), durable=True)

    def kept() -> Iterator[bytes]:
        with open_regular(output) as file:
            for line in lines_of(output):
                if keep(line) and not (ordered and line.start > gap):
                    yield _read(file, line)

    write_atomic(output, kept(), durable=True)


def _waiting(journal: Path, written: OutputIndex) -> Iterator[tuple[bytes, Line]]:
    for unit, _, data in read_journal(journal):
        line = parse_line(data, 0, len(data))
        if line is not None and not written.has(unit.row, unit.sample):
            yield data, line


def _unit(line: Line) -> Unit:
    return Unit(line.row, line.sample)


def _read(file: BinaryIO, line: Line) -> bytes:
    file.seek(line.start)
    return file.read(line.end - line.start)
