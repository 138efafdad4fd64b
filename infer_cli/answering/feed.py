"""Keeps the engine fed with requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def requests_ahead(width: int) -> int:
    """How many requests an engine of `width` slots is given at once: a slot that becomes free finds its next
    row waiting."""
    return width + max(1, width // 4)
