"""TOML that a user wrote, as values: whatever is wrong with it is one line."""

from __future__ import annotations

import codecs
import re
import sys
from pathlib import Path
from typing import Any

from infer_cli.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_KEY_PARTS = 32  # `a.b.c` has 3. tomllib's time grows with their square, and nobody means so many

_MARK = re.compile(r"""\"{3}|'{3}|["'.\n]|#[^\n]*|[^\s\w.-]""")
_STRING_MARKS = {
    '"': re.compile(r'\\.|["\n]', re.DOTALL),
    "'": re.compile(r"['\n]"),
    '"""': re.compile(r'\\.|"{3}', re.DOTALL),
    "'''": re.compile("'{3}"),
}


def parse_toml(data: bytes, path: Path) -> dict[str, Any]:
    """TOML from bytes. Raises UsageError naming the file, and the line where one is wrong."""
    try:
        if data.startswith(codecs.BOM_UTF8):
            raise ValueError("it begins with a byte order mark; save it as UTF-8 without one")
        text = data.decode("utf-8")
        if line := _line_of_long_key(text):
            raise ValueError(f"line {line} has a key of more than {MOST_KEY_PARTS} parts with dots between")
        return tomllib.loads(text)
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise UsageError(f"{path} is not UTF-8: byte 0x{data[e.start]:02x} in line {line}") from None
    except RecursionError:
        raise UsageError(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as e:  # TOMLDecodeError is one; so is Python's refusal of a number of 5000 digits
        raise UsageError(f"{path} is not valid TOML: {e}") from None


def _line_of_long_key(text: str) -> int | None:
    """The first line in which more parts than a key may have are joined by dots; None where there is none.

    What stands in strings and comments does not count. Takes time in proportion to the text.
    """
    place, n_parts = 0, 1
    while mark := _MARK.search(text, place):
        place = mark.end()
        if (quote := mark[0]) in _STRING_MARKS:
            place = _string_end(text, place, quote)
        elif mark[0] != ".":
            n_parts = 1
        elif (n_parts := n_parts + 1) > MOST_KEY_PARTS:
            return text.count("\n", 0, place) + 1
    return None


def _string_end(text: str, place: int, quote: str) -> int:
    """Where a string ends whose contents begin at `place`."""
    while mark := _STRING_MARKS[quote].search(text, place):
        place = mark.end()
        if not mark[0].startswith("\\"):
            return place
    return len(text)
