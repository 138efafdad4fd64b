"""Numbers of files that may be anyone's, and of a task's code: such as can be computed with, or none."""

from __future__ import annotations

import math

MOST = 1e100  # in size, of a score: of millions of such the squares have a sum that is a number
MOST_OF_RESULTS = 1e150  # in size, of what scores come to: an interval is wider than they are
MOST_COUNT = 10**15  # each of so many is a float


def number_of(value: object, most: float = MOST) -> float | None:
    """A number of at most this size; None for all else, true and false too."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if -most <= value <= most else None  # NaN is not in between


def count_of(value: object) -> int | None:
    """A whole number from 0; None for all else."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MOST_COUNT else None


def finite_float(text: str) -> float:
    """For `parse_float` of JSON. Raises ValueError for what is beyond all numbers."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text:.40} is out of range")
    return value


def refuse_constant(name: str) -> float:
    """For `parse_constant` of JSON: NaN and Infinity are none of its numbers. Raises ValueError."""
    raise ValueError(f"{name} is not a JSON number")
