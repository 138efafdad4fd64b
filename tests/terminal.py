"""A terminal for tests: `infer` on a pty, its screen as pyte sees it."""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO

import pytest

if sys.platform == "win32":
    pytest.skip("a pty is needed", allow_module_level=True)

import fcntl
import pty
import termios

import pyte

from tests.cli_helpers import INFER, REPO


class Terminal:
    """`infer ARGUMENTS` with a terminal for stdin, stdout (unless it is given) and stderr."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 80,
        lines: int = 30,
        env: Mapping[str, str] | None = None,
        stdout: IO[bytes] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        self.screen = pyte.HistoryScreen(columns, lines, history=5000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._set_size(columns, lines)
        environment = {**os.environ, "TERM": "xterm-256color", **(env or {})}
        environment.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            [*INFER, *arguments],
            stdin=slave, stdout=slave if stdout is None else stdout, stderr=slave,
            cwd=REPO, env=environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self._set_size(columns, lines)
        self.screen.resize(lines, columns)
        os.killpg(self.process.pid, signal.SIGWINCH)

    def send(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def line(self, text: str) -> None:
        self.send(text + "\r")

    def paste(self, text: str) -> None:
        self.send(f"\x1b[200~{text}\x1b[201~")

    def _read(self, timeout: float) -> bool:
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += data
        if b"\x1b[6n" in data:  # asked where the cursor is
            self.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")
        self._stream.feed(data)
        return True

    @property
    def is_echoing(self) -> bool:
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    @property
    def text(self) -> str:
        """Scrollback and screen."""
        rows = ["".join(row[x].data for x in range(self.screen.columns)) for row in self.screen.history.top]
        return "\n".join(row.rstrip() for row in [*rows, *self.screen.display])

    def wait_for(self, wanted: str | Callable[[str], bool], timeout: float = 30) -> str:
        """The text, once it holds what is wanted."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            text = self.text
            if wanted(text) if callable(wanted) else wanted in text:
                return text
            self._read(0.05)
        raise AssertionError(f"no {wanted!r} in\n{self.text}")

    def end(self, timeout: float = 15) -> int:
        """Its exit code, once it has left."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        while self._read(0):  # what it wrote last
            pass
        return self.process.wait(1)
