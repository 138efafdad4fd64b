"""Keeps what native code prints away from stdout and stderr.

Native libraries write to file descriptors 1 and 2. In a worker process these two are pointed at a
capture file, and Python's own streams move to private duplicates of the real ones. Knows nothing of
processes and signals.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from infer_cli.process.stream_filter import FilteredText
from infer_cli.text.sanitize import single_line

CAPTURE_LIMIT = 1 << 20  # bytes; a capture that grew beyond is cut back to its end
_TAIL_BYTES = 1 << 16
_MAX_LINE = 500  # characters of a log line that are shown


def open_standard_fds() -> None:
    """Open the null device where 0, 1 or 2 is closed, lest a file opened later becomes stdout.

    Where 1 was closed it is open for reading: what is written to it then fails, and no answer is lost in
    silence. `sys.stdout` and `sys.stderr` are streams after it, `sys.stdin` may be None.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            flags = os.O_WRONLY if fd == 2 else os.O_RDONLY
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest free number: fd
    for name, fd in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            stream = io.TextIOWrapper(io.FileIO(fd, "w", closefd=False), encoding="utf-8", write_through=True)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def new_capture() -> int:
    """File descriptor of an anonymous file to which every write appends."""
    if sys.platform == "linux":
        capture = os.memfd_create("infer-native-log")
    else:
        import tempfile

        with tempfile.TemporaryFile(prefix="infer-") as file:
            capture = os.dup(file.fileno())
    if sys.platform != "win32":
        import fcntl

        fcntl.fcntl(capture, fcntl.F_SETFL, os.O_APPEND)
    return capture


def trim_capture(capture: int) -> None:
    """Cut a capture longer than `CAPTURE_LIMIT` back to its end. What is written meanwhile may get lost."""
    if os.fstat(capture).st_size > CAPTURE_LIMIT:
        end = _last_bytes(capture)
        os.ftruncate(capture, 0)
        os.write(capture, end)


def capture_tail(capture: int, n_lines: int) -> list[str]:
    """The last non-empty lines of a capture, without control characters."""
    lines = (single_line(line) for line in _last_bytes(capture).decode("utf-8", "replace").split("\n"))
    return [line[:_MAX_LINE] for line in lines if line][-n_lines:]


def take_over_streams(native: int) -> None:
    """Point descriptors 1 and 2 at `native`, which takes what native code prints.

    `sys.stdout` and `sys.stderr` go on writing where they did, with the same encoding and buffering.
    """
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = _on_duplicate(getattr(sys, name), fd)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.dup2(native, 1)
    os.dup2(native, 2)


def _on_duplicate(stream: TextIO | None, fd: int) -> TextIO:
    raw = os.dup(fd)
    if not isinstance(stream, io.TextIOWrapper):  # closed at start: the null device
        return open(raw, "w", encoding="utf-8")
    stream.flush()
    buffer = stream.unfiltered_buffer if isinstance(stream, FilteredText) else stream.buffer
    return type(stream)(
        open(raw, "wb", buffering=0 if isinstance(buffer, io.RawIOBase) else -1),  # 0: python -u
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _last_bytes(capture: int) -> bytes:
    start = max(0, os.fstat(capture).st_size - _TAIL_BYTES)
    if sys.platform != "win32":
        return os.pread(capture, _TAIL_BYTES, start)
    os.lseek(capture, start, os.SEEK_SET)
    return os.read(capture, _TAIL_BYTES)
