"""What a file of rows is made of: lines of bounded length, and the JSON of one."""

from __future__ import annotations

import json
import math
from typing import BinaryIO

from infer_cli.errors import UsageError
from infer_cli.settings.sizes import size_text
from infer_cli.system.hashing import sha256_hex

MAX_ROW_BYTES = 8 * 10**6  # far beyond any window; reading a row takes some 20 times as much memory
_PIECE = 1 << 20  # bytes


class RowTooLong(UsageError):
    """Of a row that is not kept in memory. `content` stands for it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(f"the row has more than {size_text(MAX_ROW_BYTES)}")
        self.content = content


class BoundedLines:
    """Lines of a file, the first without a byte order mark; each row's together at most `MAX_ROW_BYTES`.

    `next` raises RowTooLong where they are more, and goes on behind the row: with `quoted`, that is the line
    in which the last quote is closed. `n_read` counts lines.
    """

    def __init__(self, file: BinaryIO, *, quoted: bool) -> None:
        self._file, self._quoted = file, quoted
        self._left = MAX_ROW_BYTES
        self._n_quotes = 0  # of this row
        self.n_read = 0

    def begin_row(self) -> None:
        self._left, self._n_quotes = MAX_ROW_BYTES, 0

    def __iter__(self) -> BoundedLines:
        return self

    def __next__(self) -> bytes:
        line = self._file.readline(self._left + 1)
        if not line:
            raise StopIteration
        if self.n_read == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")
        self.n_read += 1
        self._left -= len(line)
        self._n_quotes += line.count(b'"')
        if self._left < 0:
            raise RowTooLong(self._digest_of_rest(line).encode())
        return line

    def _digest_of_rest(self, piece: bytes) -> str:
        digest = sha256_hex(piece)
        while not piece.endswith(b"\n") or (self._quoted and self._n_quotes % 2):
            self.n_read += piece.endswith(b"\n")
            piece = self._file.readline(_PIECE)
            if not piece:
                break
            self._n_quotes += piece.count(b'"')
            digest = sha256_hex(digest.encode() + piece)
        return digest


def decoded_line(line: bytes) -> str:
    """Raises UsageError for bytes that are not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as e:
        raise UsageError(f"the line is not UTF-8: byte 0x{line[e.start]:02x} at offset {e.start}") from None


def json_value(line: bytes) -> object:
    """The JSON of a line. Raises UsageError for what is none, for numbers that are not finite, and for an
    object that has a key twice: of two, other readers take another one."""
    try:
        return _DECODER.decode(decoded_line(line))
    except RecursionError:
        raise UsageError("the line is JSON nested too deeply") from None
    except ValueError as e:
        # Python's own limit is no JSONDecodeError.
        why = e if isinstance(e, json.JSONDecodeError) else "a number of more than 4300 digits"
        raise UsageError(f"the line is not JSON: {why}") from None


def _refuse_constant(name: str) -> object:
    raise UsageError(f"the line is not JSON: {name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise UsageError(f"the number {text:.60} is out of range")
    return value


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys are there once: of two, other readers take another one."""
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise UsageError(f"the key {twice!r:.60} is there twice")
    return value


_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_without_doubles
)
