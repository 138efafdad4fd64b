"""Switches that llama.cpp reads from the environment once a process. All models of a process share them."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from infer_cli.errors import UsageError


class ProcessSwitches:
    """What one process has set. The first model decides, and one that needs other switches is refused: it
    would compute with those of the first, so its replies would not be those of a process of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: tuple[tuple[str, str], ...] | None = None

    def hold(self, environment: Sequence[tuple[str, str]]) -> None:
        """Set a policy's `environment`, before its model is loaded. Raises UsageError where a model of this
        process has other switches."""
        with self._lock:
            wanted = tuple(environment)
            if self._held not in (None, wanted):
                raise UsageError(
                    "a model of this process runs in a mode whose switches in llama.cpp differ",
                    "use the same mode, or another process",
                )
            self._held = wanted
            os.environ.update(wanted)


PROCESS_SWITCHES = ProcessSwitches()
