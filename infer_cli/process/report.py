"""Turns a failure into what the user sees: one line on stderr, a hint, an exit code.

Knows errors and text streams; knows no command line and no engine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TextIO

from infer_cli.errors import ExitStatus, InferError, OutOfMemory, UnexpectedFailure
from infer_cli.text.sanitize import single_line

_FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
_STORAGE = (*_FULL, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)


def report(error: InferError, stream: TextIO | None, log_tail: Sequence[str] = ()) -> None:
    """Write `error: …`, then `hint: …` if there is one, then native log lines, indented.

    A `stream` that is gone (None: its descriptor was closed at start) leaves nobody to tell.
    """
    if stream is None:
        return
    lines = [f"error: {single_line(error.message)}"]
    if error.hint:
        lines.append(f"hint: {single_line(error.hint)}")
    lines += [f"  {single_line(line)}" for line in log_tail]
    if stream.isatty():
        lines = _fitted(lines, stream)
    with contextlib.suppress(OSError):
        stream.write("\n".join(lines) + "\n")
        stream.flush()


def _fitted(lines: list[str], terminal: TextIO) -> list[str]:
    """The lines cut between words; as they are where the terminal does not say how wide it is, and where
    no more can be imported."""
    try:
        from infer_cli.text.graphemes import cells, wrapped

        columns = os.get_terminal_size(terminal.fileno()).columns
    except (OSError, ImportError):
        return lines
    too_long = [0 < columns < cells(line) and not line.startswith(" ") for line in lines]  # not llama.cpp's
    return [
        piece
        for line, cut in zip(lines, too_long, strict=True)
        for piece in (wrapped(line, 0, columns) if cut else [line])
    ]


def run_guarded(work: Callable[[], int], *, verbose: bool = False) -> int:
    """Run `work` and return its exit code; whatever it raises becomes a report and an exit code.

    An interrupt gives 130 without flushing: stdout may be a pipe that nobody reads, and a flush would
    then outlive the Ctrl-C. `SystemExit` is passed on.
    """
    try:
        status = work()
        for stream in _output_streams():
            stream.flush()
        return status
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        _settle_streams()
        return ExitStatus.READER_GONE
    except InferError as error:
        return _report_to_stderr(error)
    except MemoryError:
        return _report_to_stderr(OutOfMemory("out of memory", "use a smaller model or a smaller --ctx"))
    except Exception as error:
        if verbose:
            _print_traceback(error)
        if (outside := _from_outside(error)) is not None:
            return _report_to_stderr(outside)
        return _report_to_stderr(_unexpected(error, verbose))


def report_failures_of_threads(*, verbose: bool = False) -> None:
    """From now on, what ends a thread of this process is one line. Threads whose result is asked for raise
    what they meet there: this is for all others."""

    def tell(ended: threading.ExceptHookArgs) -> None:
        error = ended.exc_value
        if not isinstance(error, Exception):  # None, an interrupt, or the end of the process
            return
        if verbose:
            _print_traceback(error)
        report(_from_outside(error) or _unexpected(error, verbose), sys.stderr)

    threading.excepthook = tell


def _unexpected(error: Exception, verbose: bool) -> UnexpectedFailure:
    hint = "" if verbose else "run again with --verbose for the traceback"
    said = f": {error}" if str(error) else ", and no more is said"
    return UnexpectedFailure(f"unexpected failure: {type(error).__name__}{said}", hint)


def _from_outside(error: Exception) -> UnexpectedFailure | None:
    """What the system refuses is no fault of the program."""
    if isinstance(error, ImportError) and os.strerror(errno.EMFILE) in str(error):
        return _too_many_files()
    if not isinstance(error, OSError):
        return None
    if error.errno in _TOO_MANY_FILES:
        return _too_many_files()
    if error.errno == errno.EBADF and error.filename is None and not _is_writable(sys.stdout):
        return UnexpectedFailure("standard output is closed", "send it to a file or a pipe, or to /dev/null")
    return _storage_failure(error) if error.errno in _STORAGE else None


def _too_many_files() -> UnexpectedFailure:
    return UnexpectedFailure("too many open files for the limit that is set here", "raise it: ulimit -n 256")


def _is_writable(stream: TextIO) -> bool:
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        return fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return False


def _storage_failure(error: OSError) -> UnexpectedFailure:
    """What a disk or its owner refuses is no fault of the program."""
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    hint = "make room, then run the command again" if error.errno in _FULL else ""
    return UnexpectedFailure(f"{where}{error.strerror}", hint)


def _report_to_stderr(error: InferError) -> int:
    _settle_streams()  # what was answered before the failure goes out first
    report(error, sys.stderr)
    return error.exit_status


def _print_traceback(error: Exception) -> None:
    import traceback

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    with contextlib.suppress(OSError):  # as in `report`
        for line in text.splitlines():
            indent = len(line) - len(line.lstrip(" "))
            sys.stderr.write(" " * indent + single_line(line) + "\n")


def _settle_streams() -> None:
    """Flush; a stream that can't take its last bytes gets the null device, or the interpreter would
    complain of it on its way out and turn the exit code into 120."""
    for stream in _output_streams():
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _output_streams() -> list[TextIO]:
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]  # None: closed at start
