"""The output file: locked, and appended to a whole line at a time.

A line is given to the operating system before anything else happens, so that no end of the process can lose
it; it is on the disk at most `SYNC_INTERVAL_S` after the next line, or when the file is closed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from infer_cli.errors import UsageError, naming

if TYPE_CHECKING:
    from filelock import BaseFileLock

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


class Appended:
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


class Piped:
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


def write_all(fd: int, data: bytes) -> None:
    """Raises OSError, as `os.write`, which may write less."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def lock(path: Path, what: Path) -> BaseFileLock:
    """Hold the lock file `path` until this process ends. Raises UsageError where another holds it."""
    from filelock import FileLock, Timeout

    held = FileLock(path)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"another process is writing {what}", "wait for it, or name another file with -o"
        ) from None
    return held


def write_atomically(path: Path, pieces: Iterable[bytes]) -> None:
    """A new content for a file: all of it or none, also after a power cut.

    A pipe or a device is written to as it is.
    """
    if (path.exists() and not path.is_file()) or path.is_relative_to("/dev"):
        with open(path, "ab", buffering=0) as file:
            for piece in pieces:
                write_all(file.fileno(), piece)
        return
    path = path.resolve()  # a link stays one
    beside = path.with_name(f".{path.name}.new")
    with open(beside, "wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
