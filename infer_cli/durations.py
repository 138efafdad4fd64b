"""Lengths of time as people type them: `3`, `3s`, `500ms`, `2m`, `1h`."""

from __future__ import annotations

import math

from infer_cli.errors import UsageError

MAX_WAIT_S = 30 * 24 * 3600.0  # a timer takes 49 days on Windows, 292 years elsewhere

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str, name: str, most_s: float = MAX_WAIT_S) -> float:
    """Seconds, above 0 and at most `most_s`. `name` is the flag that an error names. Raises UsageError."""
    unit = next((u for u in ("ms", "s", "m", "h") if text.endswith(u)), "")
    try:
        seconds = float(text[: len(text) - len(unit)]) * _UNITS.get(unit, 1.0)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"{name} {text!r:.60} is not a length of time", "write 3s, 500ms, 2m or 1h")
    if seconds > most_s:
        raise UsageError(f"{name} {text!r:.60} is longer than {most_s / 3600:.0f}h", "give a shorter time")
    return seconds
