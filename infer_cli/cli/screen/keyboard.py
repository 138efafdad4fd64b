"""The keyboard while the program writes: no key is echoed into a reply, none is lost to whoever reads next.

The supervisor sets the terminal right again where this process dies.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from infer_cli.process.stream_filter import styled

BRACKETED_PASTE = "\x1b[?2004h"  # the terminal puts marks around what is pasted
PLAIN_PASTE = "\x1b[?2004l"


@contextlib.contextmanager
def unechoed() -> Iterator[None]:
    """Keep what is typed out of what is written; the shell reads it afterwards."""
    with _changed(off=("ECHO",)):
        yield


@contextlib.contextmanager
def keys_wait() -> Iterator[None]:
    """As `unechoed`, for an editor line that reads each key as it was typed: Alt-Enter, Ctrl-D and a paste
    too. Ctrl-C still interrupts, and what was typed before it waits all the same."""
    with _changed(off=("ECHO", "ICANON", "IEXTEN"), on=("NOFLSH",), raw_line_ends=True):
        write_now(BRACKETED_PASTE)
        try:
            yield
        finally:
            write_now(PLAIN_PASTE)


@contextlib.contextmanager
def keys_for_another() -> Iterator[None]:
    """Inside `keys_wait`: the terminal as a program finds it that the user starts, such as an editor."""
    from prompt_toolkit.input import create_input

    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    with create_input(sys.stdin).cooked_mode():
        write_now(PLAIN_PASTE)
        try:
            yield
        finally:
            write_now(BRACKETED_PASTE)


def write_now(sequence: str) -> None:
    styled(sys.stdout).write(sequence)
    sys.stdout.flush()


@contextlib.contextmanager
def _changed(
    *, off: tuple[str, ...], on: tuple[str, ...] = (), raw_line_ends: bool = False
) -> Iterator[None]:
    """Change local modes of the terminal on stdin. Nothing where it is none, or another job's."""
    if sys.platform == "win32" or sys.stdin is None or not sys.stdin.isatty() or not _is_ours():
        yield
        return
    import termios

    before = termios.tcgetattr(sys.stdin)
    changed = [*before]
    for name in off:
        changed[3] &= ~getattr(termios, name)
    for name in on:
        changed[3] |= getattr(termios, name)
    if raw_line_ends:
        changed[0] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, changed)
    try:
        yield
    finally:
        if _is_ours():
            termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def _is_ours() -> bool:
    """Whether this is the terminal's foreground job; another one would be stopped for changing it."""
    with contextlib.suppress(OSError):
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    return False
