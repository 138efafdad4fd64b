"""Rows of an input file, one at a time: JSON lines, CSV, TSV or plain lines.

A row that can't be read is a row with an error: the rows after it go on.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, TypeVar

from infer_cli.answering import openai_form
from infer_cli.batch.job import Kind
from infer_cli.batch.records import MAX_ROW_BYTES, BoundedLines, RowTooLong, decoded_line, json_value
from infer_cli.batch.row_template import RowTemplate
from infer_cli.errors import UsageError
from infer_cli.system.files import open_regular
from infer_cli.system.hashing import sha256_hex

Format = Literal["jsonl", "csv", "tsv", "lines"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "tsv", "lines")
STDIN = "-"
_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "lines",
}  # fmt: skip
_N_NAMED = 20  # columns in a message

T = TypeVar("T")


class RowShape(NamedTuple):
    """The key of the text that the model reads, and of those that a row has beside it: a table has columns of
    these names. `openai`: rows in OpenAI's batch form are taken too."""

    text: str
    beside: tuple[str, ...] = ()
    openai: bool = False


PROMPTS = RowShape("prompt", openai=True)
PAIRS = RowShape("context", ("continuation",))
SHAPES: Mapping[Kind, RowShape] = {"replies": PROMPTS, "likelihoods": PAIRS}


@dataclass(frozen=True)
class RowRequest:
    """What a row asks. `values` are its own parameters, and what its shape has beside the text; `raw`:
    complete the prompt as it is.

    `openai`: parameters without an effect are no error, as there. `template` made the prompt of `fields`,
    where the user gave one. JSON values are unchecked.
    """

    prompt: object = None
    messages: object = None
    raw: bool = False
    values: Mapping[str, object] = field(default_factory=dict)
    openai: bool = False
    template: RowTemplate | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


class _ParsedRow(NamedTuple):
    """One row of the file: the custom_id that was given, and what is asked or what is wrong with it."""

    custom_id: str | None
    asked: RowRequest | UsageError


@dataclass(frozen=True)
class Row:
    """`sha256` is of all that the row says (64 bits of it, hex); `key` is what its seeds derive from."""

    index: int
    custom_id: str
    sha256: str
    key: str
    asked: RowRequest | None
    error: str = ""


@dataclass(frozen=True)
class Input:
    """Where rows come from. `name` `-` is stdin, which must be a file by now: it is read more than once."""

    name: str
    format: Format
    template: RowTemplate | None = None
    shape: RowShape = PROMPTS

    def rows(self) -> Iterator[Row]:
        """All rows in order. Raises UsageError where the file can't be read."""
        try:
            with self._open() as file:
                yield from _numbered(self._asked(file))
        except OSError as e:
            raise UsageError(f"{self.name}: {e.strerror}") from None

    def _open(self) -> BinaryIO:
        if self.name != STDIN:
            return open_regular(self.name)
        file = os.fdopen(os.dup(0), "rb")
        file.seek(0)
        return file

    def _asked(self, file: BinaryIO) -> Iterator[tuple[bytes, _ParsedRow]]:
        is_table = self.format in ("csv", "tsv")
        lines = BoundedLines(file, quoted=is_table)
        if is_table:
            yield from self._records(lines)
            return
        read = self._line if self.format == "lines" else self._object
        while True:
            lines.begin_row()
            try:
                line = next(lines, None)
            except RowTooLong as e:
                yield e.content, _ParsedRow(None, e)
                continue
            if line is None:
                return
            if line.strip():
                line = line.rstrip(b"\r\n")
                yield line, _guarded(read, line)

    def _line(self, line: bytes) -> _ParsedRow:
        text = decoded_line(line)
        return _ParsedRow(
            None, RowRequest(text) if self.template is None else self._filled(self.template, {"line": text})
        )

    def _object(self, line: bytes) -> _ParsedRow:
        value = json_value(line)
        if not isinstance(value, dict):
            raise UsageError("the line is JSON but not an object", f'write {{"{self.shape.text}": "…"}}')
        custom_id = _custom_id(value.get("custom_id"))
        try:
            return _ParsedRow(custom_id, self._asked_by(value))
        except UsageError as e:
            return _ParsedRow(custom_id, e)

    def _asked_by(self, value: Mapping[str, object]) -> RowRequest:
        if self.template is not None:
            return self._filled(self.template, value)
        if self.shape.openai and ("body" in value or "url" in value):
            body = openai_form.read_body(value)
            if body.is_chat:
                return RowRequest(messages=body.content, values=body.values, openai=True)
            return RowRequest(body.content, raw=True, values=body.values, openai=True)
        name = self.shape.text
        text, messages = value.get(name), value.get("messages")
        if (text is None) == (messages is None):
            raise UsageError(f"a row has either a {name} or messages")
        values = {
            k: v for k, v in value.items() if v is not None and k not in (name, "messages", "custom_id")
        }
        return RowRequest(text, messages, values=values)

    def _filled(self, template: RowTemplate, fields: Mapping[str, object]) -> RowRequest:
        texts = template.texts(fields)
        values = {name: fields[name] for name in self.shape.beside if fields.get(name) is not None}
        return RowRequest(template.fill(texts), values=values, template=template, fields=texts)

    def _records(self, lines: BoundedLines) -> Iterator[tuple[bytes, _ParsedRow]]:
        csv.field_size_limit(MAX_ROW_BYTES)
        # A byte that is not UTF-8 becomes half a surrogate pair, which its row is refused for.
        texts = map(partial(str, encoding="utf-8", errors="surrogateescape"), lines)
        # Strict: a quote that is not closed would swallow all rows behind it.
        reader = csv.reader(texts, "excel-tab" if self.format == "tsv" else "excel", strict=True)
        try:
            names = next(reader, None)
        except (csv.Error, RowTooLong) as e:
            raise UsageError(f"{self.name}: {e}") from None
        if names is None:
            return
        self._check_header(names)
        while True:
            first = lines.n_read + 1
            lines.begin_row()
            try:
                fields = next(reader, None)
            except (csv.Error, RowTooLong) as e:
                content = e.content if isinstance(e, RowTooLong) else b""
                yield content, _ParsedRow(None, UsageError(f"the record from line {first} on: {e}"))
                continue
            if fields is None:
                return
            if fields:
                raw = "\x1f".join(fields).encode("utf-8", "surrogateescape")
                yield raw, _guarded(partial(self._record, names), fields)

    def _record(self, names: list[str], fields: list[str]) -> _ParsedRow:
        if len(fields) != len(names):
            raise UsageError(f"the row has {len(fields)} fields, the header {len(names)}")
        values = dict(zip(names, fields, strict=True))
        custom_id = values.get("custom_id") or None
        for text in fields:
            try:
                text.encode()
            except UnicodeEncodeError as e:
                byte = ord(text[e.start]) - 0xDC00
                return _ParsedRow(custom_id, UsageError(f"the record is not UTF-8: byte 0x{byte:02x}"))
        if self.template is not None:
            return _ParsedRow(custom_id, self._filled(self.template, values))
        beside = {name: values[name] for name in self.shape.beside}
        return _ParsedRow(custom_id, RowRequest(values[self.shape.text], values=beside))

    def _check_header(self, names: Sequence[str]) -> None:
        """Raises UsageError for column names that no row could be answered with."""
        known: set[str] = set()
        for name in names:
            if name in known:
                raise UsageError(f"{self.name} has the column {name!r:.60} twice")
            known.add(name)
        text, beside = self.shape.text, self.shape.beside
        needed = (text, *beside) if self.template is None else (*self.template.names, *beside)
        missing = [name for name in needed if name not in known]
        if missing:
            raise UsageError(
                f"{self.name} has no column {missing[0]!r}; its first line names {_named(names)}",
                "name a column so"
                if missing[0] in beside
                else f"--row-template 'Summarise: {{text}}' makes a {text} of the columns that there are",
            )


def input_format(name: str, given: str | None) -> Format:
    """Raises UsageError for a format that is unknown, or can't be told from the file's name."""
    if given is not None:
        if given not in FORMATS:
            raise UsageError(f"--format {given!r} is not {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
        return given
    if name == STDIN:
        return "jsonl"
    found = _SUFFIXES.get(Path(name).suffix.lower())
    if found is None:
        raise UsageError(
            f"the format of {name} is not told by its name", "give --format jsonl, csv, tsv or lines"
        )
    return found


def _numbered(asked: Iterable[tuple[bytes, _ParsedRow]]) -> Iterator[Row]:
    """Rows with index, id and hash. Of ids and contents met before, 64-bit hashes are kept."""
    ids: set[int] = set()
    occurrences: dict[int, int] = {}
    for index, (raw, read) in enumerate(asked):
        custom_id = str(index) if read.custom_id is None else read.custom_id
        what: RowRequest | None = None
        error = content = ""
        if isinstance(read.asked, RowRequest):
            what = read.asked
            with contextlib.suppress(RecursionError):
                content = _hash([what.prompt, what.messages, what.raw, what.values, what.openai])
            if not content:
                error = "the line is JSON nested too deeply"
        else:
            error = read.asked.in_full
        if not content:
            what, content = None, _hash(["unread", raw.hex()])
        id_hash = int(_hash(custom_id), 16)
        if id_hash in ids:
            what, error = None, f"custom_id {custom_id!r} is another row's too"
        ids.add(id_hash)
        if read.custom_id is None:
            n = occurrences[int(content, 16)] = occurrences.get(int(content, 16), 0) + 1
            key = f"row {content} {n}"
        else:
            key = key_of_id(custom_id)
        yield Row(index, custom_id, _hash([content, read.custom_id]), key, what, error)


def key_of_id(custom_id: str) -> str:
    """The `Row.key` of a row that has an id."""
    return f"id {custom_id}"


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return sha256_hex(text.encode("ascii"))[:16]


def _guarded(read: Callable[[T], _ParsedRow], source: T) -> _ParsedRow:
    try:
        return read(source)
    except UsageError as e:
        return _ParsedRow(None, e)


def _custom_id(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise UsageError("custom_id must be a string")


def _named(names: Sequence[str]) -> str:
    """Column names, or the first few of many."""
    shown = ", ".join(f"{name!r:.60}" for name in names[:_N_NAMED])
    return shown + (", …" if len(names) > _N_NAMED else "")
