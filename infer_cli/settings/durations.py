"""Lengths of time as people type them: `3`, `3s`, `500ms`, `2m`, `1h`."""

from __future__ import annotations

import math

from infer_cli.errors import UsageError

MOST_SECONDS = 100 * 365 * 86400  # beyond it the clocks and waits of some systems fail
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str, name: str) -> float:
    """Seconds, above 0 and at most `MOST_SECONDS`. `name` is the flag that an error names."""
    unit = next((u for u in ("ms", "s", "m", "h") if text.endswith(u)), "")
    try:
        seconds = float(text[: len(text) - len(unit)]) * _UNITS.get(unit, 1.0)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"{name} {text[:40]!r} is not a length of time", "write 3s, 500ms, 2m or 1h")
    if seconds > MOST_SECONDS:
        raise UsageError(f"{name} {text[:40]!r} is more than 100 years", "write 3s, 500ms, 2m or 1h")
    return seconds


def duration(seconds: float) -> str:
    """`42s`, `3m10s`, `2h05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
