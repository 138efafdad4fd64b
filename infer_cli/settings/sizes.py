"""Amounts of bytes as people type and read them: `500MB`, `2GiB`, `1.5G`, `0`."""

from __future__ import annotations

import re

from infer_cli.errors import UsageError

MOST_BYTES = 2**63 - 1  # of any file
_SIZE = r"(?P<number>\d+(?:\.\d+)?)\s*(?:(?P<unit>[kmgt])(?P<binary>i?)b?|b)?"


def parse_size(text: str, name: str) -> int:
    """Bytes, at most `MOST_BYTES`. `kB` is 1000, `KiB` 1024. `name` is the flag that an error names."""
    match = re.fullmatch(_SIZE, text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"{name} {text[:40]!r} is not an amount of bytes", "write 500MB, 2GB or 0")
    power = "kmgt".index(match["unit"].lower()) + 1 if match["unit"] else 0
    size = float(match["number"]) * (1024 if match["binary"] else 1000) ** power
    if size > MOST_BYTES:
        raise UsageError(f"{name} {text[:40]!r} is more than any file can hold", "write 500MB, 2GB or 0")
    return int(size)


def size_text(n_bytes: int) -> str:
    """`98.4 MB`: decimal units, as model pages and file managers give sizes."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= scale:
            value = n_bytes / scale
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{n_bytes} bytes"
