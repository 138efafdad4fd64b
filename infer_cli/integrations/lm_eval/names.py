"""What a task of the harness is called on the command line and in a run's folder."""

from __future__ import annotations

PREFIX = "lm:"
SOURCE = "lm_eval"  # `TaskFacts.source`


def is_harness_task(name: str) -> bool:
    return name.startswith(PREFIX)
