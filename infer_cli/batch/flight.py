"""Which rows the engine was working on: after a crash of native code, one of them may have caused it.

A file of short lines, appended to by the worker (`+ROW` begun, `-ROW` done) and, after a crash, by its
supervisor (`!`). A row that was under way at one crash is tried alone; at the second it is given up.
Light: the supervisor imports it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

CRASHES_TO_GIVE_UP = 2


class Flight:
    """The worker's side. Opening it takes over what an earlier worker left."""

    def __init__(self, path: Path) -> None:
        self.crashes = read_crashes(path)
        text = "".join(f"={row} {n}\n" for row, n in sorted(self.crashes.items()))
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        os.ftruncate(self._fd, 0)
        os.write(self._fd, text.encode())

    def begin(self, row: int) -> None:
        os.write(self._fd, b"+%d\n" % row)

    def end(self, row: int) -> None:
        os.write(self._fd, b"-%d\n" % row)

    def close(self) -> None:
        os.close(self._fd)


class Suspects(NamedTuple):
    """Rows that were under way at a crash: for the first time, or once too often."""

    to_try: list[int]
    given_up: list[int]


def note_crash(path: Path) -> Suspects:
    """Write a crash down. No suspects: it was no row's."""
    crashes, under_way = _read(path)
    if under_way:
        with open(path, "ab") as file:
            file.write(b"!\n")
    given_up = {row for row in under_way if crashes.get(row, 0) + 1 >= CRASHES_TO_GIVE_UP}
    return Suspects(sorted(under_way - given_up), sorted(given_up))


def read_crashes(path: Path) -> dict[int, int]:
    """How often each row was under way at a crash, where at all."""
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[int, int], set[int]]:
    crashes: dict[int, int] = {}
    under_way: set[int] = set()
    try:
        lines = path.read_text("ascii", "replace").splitlines()
    except OSError:
        return crashes, under_way
    for line in lines:
        kind = line[:1]
        row, _, n = line[1:].partition(" ")
        if kind == "!":
            for suspect in under_way:
                crashes[suspect] = crashes.get(suspect, 0) + 1
            under_way.clear()
        elif row.isdecimal():
            number = int(row)
            if kind == "+":
                under_way.add(number)
            elif kind == "-":
                under_way.discard(number)
                crashes.pop(number, None)
            elif n.isdecimal():
                crashes[number] = int(n)
    return crashes, under_way
