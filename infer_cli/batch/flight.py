"""Which rows the engine was working on: after a crash of native code, one of them may have caused it.

A file of short lines, appended to by the worker (`+ROW` begun, `-ROW` done, `x` a reply failed) and, after
a crash, by its supervisor (`!`). A row that was under way at one crash is tried alone; at the second it is
given up. Light: the supervisor imports it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from infer_cli.errors import naming

CRASHES_TO_GIVE_UP = 2


class Flight:
    """The worker's side. Opening it takes over what a worker that crashed has left: `crashes` by row, and
    `n_failed`, how many replies failed since the command was given."""

    def __init__(self, path: Path) -> None:
        left = _read(path)
        self.crashes = left.crashes
        self.n_failed = left.n_failed if left.crashed else 0
        text = "".join(f"={row} {n}\n" for row, n in sorted(self.crashes.items()))
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


def note_crash(path: Path) -> Suspects:
    """Write a crash down. No suspects: it was no row's."""
    crashes, under_way, _, _ = _read(path)
    if under_way:
        with open(path, "ab") as file:
            file.write(b"!\n")
    given_up = {row for row in under_way if crashes.get(row, 0) + 1 >= CRASHES_TO_GIVE_UP}
    return Suspects(sorted(under_way - given_up), sorted(given_up))


def after_crash(path: Path) -> bool:
    """Whether this worker goes on for one that crashed."""
    return _read(path).crashed


class _State(NamedTuple):
    crashes: dict[int, int]  # how often a row was under way at one
    under_way: set[int]
    n_failed: int
    crashed: bool  # it is the last thing that happened


def _read(path: Path) -> _State:
    crashes: dict[int, int] = {}
    under_way: set[int] = set()
    n_failed, crashed = 0, False
    try:
        lines = path.read_text("ascii", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        kind = line[:1]
        row, _, n = line[1:].partition(" ")
        crashed = kind == "!"
        if crashed:
            for suspect in under_way:
                crashes[suspect] = crashes.get(suspect, 0) + 1
            under_way.clear()
        elif kind == "x":
            n_failed += 1
        elif row.isdecimal():
            number = int(row)
            if kind == "+":
                under_way.add(number)
            elif kind == "-":
                under_way.discard(number)
                crashes.pop(number, None)
            elif n.isdecimal():
                crashes[number] = int(n)
    return _State(crashes, under_way, n_failed, crashed)
