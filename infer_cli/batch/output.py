"""The output file: locked, and appended to a whole line at a time.

A line is given to the operating system before anything else happens, so that no end of the process can lose
it; it is on the disk at most `SYNC_INTERVAL_S` after the next line, or when the file is closed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from infer_cli.system.files import naming, write_all

SYNC_INTERVAL_S = 1.0


class Unit(NamedTuple):
    """What a line answers: a row's sample (0 where a line has all samples)."""

    row: int
    sample: int


class Output(Protocol):
    """Where finished lines go.

    `expect` is called for each unit in input order, before it is complete or after; it says whether the unit
    is still to be answered. `waits`: it is complete and its turn has not come.
    """

    def expect(self, unit: Unit) -> bool: ...

    def waits(self, unit: Unit) -> bool: ...

    def complete(self, unit: Unit, line: bytes) -> None: ...

    def close(self) -> None: ...


class FileOutput:
    """A file that lines are appended to as they come. `n_bytes` of it are whole lines: the rest goes."""

    def __init__(self, path: Path, n_bytes: int) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        os.ftruncate(self._fd, n_bytes)
        os.lseek(self._fd, 0, os.SEEK_END)
        self._synced = time.monotonic()

    def expect(self, unit: Unit) -> bool:
        return True

    def waits(self, unit: Unit) -> bool:
        return False

    def complete(self, unit: Unit, line: bytes) -> None:
        """Raises OSError where the disk is full."""
        with naming(self._path):
            write_all(self._fd, line)
            if time.monotonic() - self._synced >= SYNC_INTERVAL_S:
                os.fsync(self._fd)
                self._synced = time.monotonic()

    def close(self) -> None:
        os.fsync(self._fd)
        os.close(self._fd)


class StreamOutput:
    """Standard output: nothing to lock, nothing to find again."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def expect(self, unit: Unit) -> bool:
        return True

    def waits(self, unit: Unit) -> bool:
        return False

    def complete(self, unit: Unit, line: bytes) -> None:
        self._out.write(line)
        self._out.flush()

    def close(self) -> None:
        pass
