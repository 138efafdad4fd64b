"""The last of many, one at a time in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def last_of(found: Iterable[T]) -> T | None:
    last = deque(found, maxlen=1)
    return last[0] if last else None
