"""What goes to stderr beside the answer: warnings, one status line, statistics."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from infer_cli.process.stream_filter import styled
from infer_cli.settings.origins import Setting
from infer_cli.text.graphemes import cells, wrapped
from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from rich.console import Console

    from infer_cli.types import Reply

_COLUMNS = 80  # where the terminal does not say


class Notices:
    """stderr as `--quiet` and `--stats` and the terminal allow.

    `stats`: whether statistics are shown; None: on a terminal, unless the answer goes on to another program.
    The status line is drawn on a terminal only, over itself, and wiped before anything else is written.
    """

    def __init__(self, *, quiet: bool, stats: bool | None) -> None:
        self._quiet = quiet
        self._stats = stats
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._draws = self._is_terminal and os.environ.get("TERM") != "dumb"
        self._status = ""

    def warn(self, message: str) -> None:
        """Something that the user must know of: a weaker promise, a download, a cut."""
        if not self._quiet:
            self._line(f"warning: {single_line(message)}")

    def note(self, message: str, *, dim: bool = False) -> None:
        """Something that is good to know: on a terminal or with --stats."""
        if self._stats or (self._is_terminal and not self._quiet):
            text = single_line(message)
            if dim and is_coloured(sys.stderr):
                self.clear()
                styled(sys.stderr).write(f"\x1b[2m{fitted(text, sys.stderr)}\x1b[0m\n")
            else:
                self._line(text)

    def detail(self, message: str) -> None:
        """Something of interest to --stats alone."""
        if self._stats:
            self.note(message)

    def status(self, text: str) -> None:
        """Show what is being waited for."""
        if self._draws and not self._quiet and text != self._status:
            shown = single_line(text)[: columns_of(sys.stderr) - 1]  # what wraps can't be drawn over
            dim, off = ("\x1b[2m", "\x1b[0m") if is_coloured(sys.stderr) else ("", "")
            styled(sys.stderr).write(f"\r\x1b[K{dim}{shown}{off}")
            sys.stderr.flush()
            self._status = text

    def clear(self) -> None:
        """Wipe the status line."""
        if self._status:
            styled(sys.stderr).write("\r\x1b[K")
            sys.stderr.flush()
            self._status = ""

    def statistics(self, text: str) -> None:
        """One line of counts and times."""
        if self._stats or (self._stats is None and not _is_pipe(sys.stdout)):
            self.note(text, dim=True)

    def _line(self, text: str) -> None:
        self.clear()
        if sys.stderr is not None:
            print(fitted(text, sys.stderr), file=sys.stderr)


def console(stream: TextIO, *, highlight: bool = True, soft_wrap: bool = False) -> Console:
    """Rich on one of our own streams. What is not our own text has gone through `single_line` before."""
    from rich.console import Console

    return Console(file=styled(stream), highlight=highlight, soft_wrap=soft_wrap)


def columns_of(terminal: TextIO) -> int:
    try:
        return os.get_terminal_size(terminal.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS


def fitted(line: str, stream: TextIO) -> str:
    """A line for a terminal, cut between words where it is too long; for anything else as it is."""
    if not stream.isatty():
        return line
    columns = columns_of(stream)
    return line if cells(line) <= columns else "\n".join(wrapped(line, 0, columns))


def is_coloured(stream: TextIO) -> bool:
    """Whether text on a stream may be styled."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _is_pipe(stream: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # closed, or none of the system's
        return False


def stats_line(reply: Reply, name: str) -> str:
    """`smollm2 · 31 + 12 tokens · TTFT 0.12 s · 140 tok/s · stop · seed 7`."""
    usage, timings = reply.usage, reply.timings
    parts = [name, f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"]
    if usage.cached_tokens:
        parts.append(f"{usage.cached_tokens} cached")
    parts.append(f"load {timings.load_s:.2f} s")
    if timings.ttft_s is not None:
        parts.append(f"TTFT {timings.ttft_s:.2f} s")
    if timings.decode_tps is not None:
        parts.append(f"{timings.decode_tps:.1f} tok/s")
    parts += [f"{timings.total_s:.2f} s", reply.finish_reason]
    if reply.seed is not None:
        parts.append(f"seed {reply.seed}")
    return " · ".join(parts)


def settings_table(settings: Sequence[Setting]) -> str:
    """`name = value   (origin)`, a line each, aligned."""
    width = max(len(s.name) for s in settings)
    values = ["not set" if s.value is None else str(s.value) for s in settings]
    value_width = max(len(v) for v in values)
    return "\n".join(
        f"{s.name:<{width}} = {single_line(v):<{value_width}}  ({s.origin})"
        for s, v in zip(settings, values, strict=True)
    )
