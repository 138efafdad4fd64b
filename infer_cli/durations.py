"""Lengths of time as people type them: `3`, `3s`, `500ms`, `2m`, `1h`."""

from __future__ import annotations

import math

from infer_cli.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str, name: str) -> float:
    """Seconds, above 0. `name` is the flag that an error names."""
    unit = next((u for u in ("ms", "s", "m", "h") if text.endswith(u)), "")
    try:
        seconds = float(text[: len(text) - len(unit)]) * _UNITS.get(unit, 1.0)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"{name} {text!r} is not a length of time", "write 3s, 500ms, 2m or 1h")
    return seconds
