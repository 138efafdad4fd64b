"""How an error is written."""

from __future__ import annotations

import os
import struct
import sys

import pytest

from infer_cli.errors import UsageError
from infer_cli.process.report import report


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_an_error_on_a_terminal_is_cut_between_words() -> None:
    import fcntl
    import pty
    import termios

    reading, writing = pty.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    error = UsageError("the prompt needs 1200 tokens, and the window has 512", "use a larger --ctx")
    with open(writing, "w") as terminal:
        report(error, terminal, ["a line  of the log that is longer than the terminal is wide"])
        shown = os.read(reading, 4096).decode().splitlines()
    os.close(reading)
    assert shown == [
        "error: the prompt needs 1200 tokens, and",
        "  the window has 512",
        "hint: use a larger --ctx",
        "  a line  of the log that is longer than the terminal is wide",
    ]
