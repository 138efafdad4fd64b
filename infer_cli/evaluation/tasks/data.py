"""Data of a task: files to rows, one at a time, and the digest of what was read.

A row that can't be read is an error that names it: a score over what could be read would be another score.
What a cell of a table holds is text, whatever it begins with.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from infer_cli.batch import records
from infer_cli.batch.records import BoundedLines, RowTooLong, json_value
from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.data_format import FORMATS, DataFormat, format_of_name
from infer_cli.evaluation.tasks.doc import Doc, canonical_json, checked_doc
from infer_cli.evaluation.tasks.task import Task
from infer_cli.prompt.messages import decode_input
from infer_cli.system.files import UnusableFile, not_a_file, open_regular, read_file

HUB = "hf:"
_BLOCK = 1 << 20  # bytes


class DataRow(NamedTuple):
    """`number` counts the rows of all files from 0; `where` is what an error about it begins with."""

    number: int
    where: str
    doc: Doc


class Data(Protocol):
    """Rows of data. `name`: what it is called."""

    @property
    def name(self) -> str: ...

    def rows(self) -> Iterator[DataRow]:
        """All rows, in order, again and again. Raises UsageError."""

    def sha256(self) -> str:
        """Hex digest of all of it. Raises UsageError."""


@dataclass(frozen=True)
class FileData:
    """One file or several of one format. `name` is as it was given."""

    name: str
    files: tuple[Path, ...]
    format: DataFormat
    is_folder: bool = False

    def rows(self) -> Iterator[DataRow]:
        numbers = itertools.count()
        for file in self.files:
            shown = f"{self.name}/{file.name}" if self.is_folder else self.name
            for doc in self._docs(file, shown):
                number = next(numbers)
                where = f"{shown}: row {number}"
                yield DataRow(number, where, checked_doc(doc, where))

    def sha256(self) -> str:
        """Of a file's bytes; for a folder, of the digests and names of its files."""
        digests = [self._digest(file) for file in self.files]
        if not self.is_folder:
            return digests[0]
        listed = "".join(f"{digest}  {f.name}\n" for digest, f in zip(digests, self.files, strict=True))
        return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()

    def _digest(self, file: Path) -> str:
        digest = hashlib.sha256()
        try:
            with open_regular(file) as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
        except OSError as e:
            raise _unreadable(file, e) from None
        return digest.hexdigest()

    def _docs(self, file: Path, shown: str) -> Iterator[object]:
        if self.format == "text":
            yield {"text": decode_input(read_file(file, shown), shown), "file": file.name}
            return
        try:
            with open_regular(file) as stream:
                lines = BoundedLines(stream, quoted=self.format != "jsonl")
                yield from _objects(lines, shown) if self.format == "jsonl" else self._table(lines, shown)
        except OSError as e:
            raise _unreadable(file, e) from None

    def _table(self, lines: BoundedLines, shown: str) -> Iterator[object]:
        csv.field_size_limit(records.MAX_ROW_BYTES)
        texts = map(partial(str, encoding="utf-8"), lines)
        # Strict: a quote that is not closed would swallow all rows behind it.
        reader = csv.reader(texts, "excel-tab" if self.format == "tsv" else "excel", strict=True)
        names: list[str] | None = None
        while True:
            where = f"{shown}: the record from line {lines.n_read + 1} on"
            lines.begin_row()
            try:
                cells = next(reader, None)
            except UnicodeDecodeError as e:
                raise UsageError(f"{where} is not UTF-8: byte 0x{e.object[e.start]:02x}") from None
            except (csv.Error, RowTooLong) as e:
                raise UsageError(f"{where}: {e}") from None
            if cells is None:
                return
            if not cells:  # an empty line
                continue
            if names is None:
                names = cells
                if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
                    raise UsageError(f"{shown} has the column {twice!r:.60} twice")
                continue
            if len(cells) != len(names):
                raise UsageError(f"{where} has {len(cells)} fields, the header {len(names)}")
            yield dict(zip(names, cells, strict=True))


@dataclass(frozen=True)
class FunctionData:
    """What `items()` of a Python task gives."""

    task: Task

    @property
    def name(self) -> str:
        return f"{self.task.path}: items()"

    def rows(self) -> Iterator[DataRow]:
        assert self.task.functions.items is not None
        for number, doc in enumerate(self.task.functions.items()):
            where = f"{self.name}: row {number}"
            yield DataRow(number, where, checked_doc(doc, where))

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for row in self.rows():
            digest.update(canonical_json(row.doc) + b"\n")
        return digest.hexdigest()


def data_of(task: Task, given: str | None, *, offline: bool = False) -> Data:
    """The data that the user gave, else the task's own. Raises UsageError where there is none, and
    SourceUnreachable where it can't be fetched."""
    if given is not None:
        if task.functions.items is not None:
            raise UsageError(f"--data has no meaning for {task.name}: its items() gives the data")
        return find_data(given, Path(), task.data.format, offline=offline)
    if task.functions.items is not None:
        return FunctionData(task)
    if task.data.path is None:
        raise UsageError(
            f"the task {task.name} has no data of its own", "name a file or a folder with --data"
        )
    return find_data(task.data.path, Path(task.path).parent, task.data.format, offline=offline)


def find_data(name: str, folder: Path, format_: DataFormat | None, *, offline: bool = False) -> FileData:
    """A file, a folder of files, or a file of a data set of the Hugging Face hub. `folder`: what a path is
    relative to."""
    if name.startswith(HUB):
        from infer_cli.models.fetch.data_set import fetch_data_file

        file = fetch_data_file(name, offline=offline)
        return FileData(name, (file,), format_ or _format_of(file, name))
    path = folder / Path(name).expanduser()
    shown = str(path)
    if path.is_dir():
        return _folder(path, shown, format_)
    try:
        open_regular(path).close()
    except OSError as e:
        raise _unreadable(path, e) from None
    return FileData(shown, (path,), format_ or _format_of(path, shown))


def _folder(path: Path, shown: str, format_: DataFormat | None) -> FileData:
    """Of a folder its own files of one format, by name. What others hold is not data."""
    try:
        files = [file for file in path.iterdir() if not file.name.startswith(".") and file.is_file()]
    except OSError as e:
        raise _unreadable(path, e) from None
    formats = {format_of_name(file.name) for file in files} - {None}
    if format_ is None and len(formats) > 1:
        raise UsageError(
            f"the folder {shown} has files of several formats: {', '.join(sorted(map(str, formats)))}",
            "name one of the files, or write the format into the task's [data]",
        )
    wanted = format_ or next(iter(formats), None)
    found = sorted(
        (file for file in files if format_of_name(file.name) == wanted), key=lambda file: file.name
    )
    if wanted is None or not found:
        raise UsageError(f"the folder {shown} has no file of data", f"formats are {_listed(FORMATS)}")
    return FileData(shown, tuple(found), wanted, is_folder=True)


def _format_of(path: Path, shown: str) -> DataFormat:
    found = format_of_name(path.name)
    if found is None:
        raise UsageError(
            f"the format of {shown} is not told by its name",
            f"write format = into the task's [data]: {_listed(FORMATS)}",
        )
    return found


def _objects(lines: BoundedLines, shown: str) -> Iterator[object]:
    while True:
        lines.begin_row()
        try:
            line = next(lines, None)
            if line is None:
                return
            if line.strip():
                yield json_value(line.rstrip(b"\r\n"))
        except UsageError as e:
            raise UsageError(f"{shown}: line {lines.n_read}: {e.message}", e.hint) from None


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _unreadable(path: Path, error: OSError) -> UsageError:
    if isinstance(error, FileNotFoundError) and not isinstance(error, UnusableFile):
        return UsageError(not_a_file(path), "name the data with --data")
    return UsageError(f"{path}: {error.strerror}", "name a file or a folder that can be read")
