"""TOML that a user wrote, as values: whatever is wrong with it is one line."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path
from typing import Any

from infer_cli.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse_toml(data: bytes, path: Path) -> dict[str, Any]:
    """TOML from bytes. Raises UsageError naming the file, and the line where one is wrong."""
    try:
        if data.startswith(codecs.BOM_UTF8):
            raise ValueError("it begins with a byte order mark; save it as UTF-8 without one")
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise UsageError(f"{path} is not UTF-8: byte 0x{data[e.start]:02x} in line {line}") from None
    except RecursionError:
        raise UsageError(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as e:  # TOMLDecodeError is one; so is Python's refusal of a number of 5000 digits
        raise UsageError(f"{path} is not valid TOML: {e}") from None
