"""Which rows the engine was working on: after a crash of native code, one of them may have caused it.

A file of short lines, appended to by the worker (`+ROW` begun, `-ROW` done, `x` a reply failed) and, after
a crash, by its supervisor (`!`, or `!k` where the system killed the worker, most often for its memory).
A row that was under way at one crash is tried alone; at the second it is given up. Light: the supervisor
imports it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from infer_cli.system.files import MOST_INPUT, naming, read_regular

CRASHES_TO_GIVE_UP = 2
_LINE = re.compile(r"[+=-](?P<row>[0-9]{1,18})(?: (?P<n>[0-9]{1,9})(?P<killed> k)?)?")


class Flight:
    """The worker's side. Opening it takes over what a worker that crashed has left: `crashes` by row, those
    rows whose last crash was a kill, and `n_failed`, how many replies failed since the command was given."""

    def __init__(self, path: Path) -> None:
        left = _read(path)
        self.crashes, self.killed = left.crashes, left.killed
        self.n_failed = left.n_failed if left.crashed else 0
        text = "".join(
            f"={row} {n}{' k' if row in self.killed else ''}\n" for row, n in sorted(self.crashes.items())
        )
        text += "x\n" * self.n_failed
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        os.ftruncate(self._fd, 0)
        self._note(text.encode())

    def begin(self, row: int) -> None:
        self._note(b"+%d\n" % row)

    def end(self, row: int) -> None:
        self._note(b"-%d\n" % row)

    def fail(self) -> None:
        self._note(b"x\n")

    def close(self) -> None:
        os.close(self._fd)

    def _note(self, text: bytes) -> None:
        with naming(self._path):
            os.write(self._fd, text)


class Suspects(NamedTuple):
    """Rows that were under way at a crash: for the first time, or once too often."""

    to_try: list[int]
    given_up: list[int]


def note_crash(path: Path, *, killed: bool = False) -> Suspects:
    """Write a crash down, or that the system killed the worker. No suspects: it was no row's."""
    left = _read(path)
    if left.under_way:
        with open(path, "ab") as file:
            file.write(b"!k\n" if killed else b"!\n")
    given_up = {row for row in left.under_way if left.crashes.get(row, 0) + 1 >= CRASHES_TO_GIVE_UP}
    return Suspects(sorted(left.under_way - given_up), sorted(given_up))


def after_crash(path: Path) -> bool:
    """Whether this worker goes on for one that crashed."""
    return _read(path).crashed


class _State(NamedTuple):
    crashes: dict[int, int]  # how often a row was under way at one
    killed: set[int]  # rows whose last one was a kill
    under_way: set[int]
    n_failed: int
    crashed: bool  # it is the last thing that happened


def _read(path: Path) -> _State:
    """What is written there; lines that are none of ours say nothing."""
    state = _State({}, set(), set(), 0, False)
    try:
        lines = read_regular(path, MOST_INPUT).decode("ascii", "replace").splitlines()
    except OSError:
        lines = []
    n_failed, crashed = 0, False
    for line in lines:
        kind = line[:1]
        crashed = kind == "!"
        if crashed:
            for suspect in state.under_way:
                state.crashes[suspect] = state.crashes.get(suspect, 0) + 1
                (state.killed.add if line == "!k" else state.killed.discard)(suspect)
            state.under_way.clear()
        elif kind == "x":
            n_failed += 1
        elif (numbers := _LINE.fullmatch(line)) is not None:
            row = int(numbers["row"])
            if kind == "+":
                state.under_way.add(row)
            elif kind == "-":
                state.under_way.discard(row)
                state.crashes.pop(row, None)
            elif numbers["n"]:
                state.crashes[row] = int(numbers["n"])
                if numbers["killed"]:
                    state.killed.add(row)
    return state._replace(n_failed=n_failed, crashed=crashed)
