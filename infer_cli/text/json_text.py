"""JSON of values that others chose: a model's header, a catalogue. Valid whatever they hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping


def json_text(value: object) -> str:
    """`value` as indented JSON in ASCII. JSON has no NaN and no infinities: those are text ("NaN",
    "Infinity", "-Infinity")."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def in_json(values: Mapping[str, object]) -> dict[str, object]:
    """An object of values that JSON has: as `json_text` writes it."""
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value
