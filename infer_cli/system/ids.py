"""Names of what is answered and kept: replies, records, conversations, jobs."""

from __future__ import annotations

import os


def new_id() -> str:
    """16 hex digits that nothing else has."""
    return os.urandom(8).hex()
