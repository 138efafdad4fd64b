"""Opens files to be read: regular ones, without ever waiting for whoever should write them.

A FIFO, a device, a directory or a link to nothing in a file's place is an OSError whose `strerror` says so.
What the shell opened already (`<(command)`, `/dev/stdin`) is read as the pipe that it is, and the null device
is an empty file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from infer_cli.errors import UsageError
from infer_cli.system.private_files import is_private, make_private_dir, open_private

if TYPE_CHECKING:
    from filelock import BaseFileLock

MOST_SETTINGS = 4 * 10**6  # bytes of a file of settings or notes: far more than anyone writes
MOST_INPUT = 64 * 10**6  # bytes of a text: far beyond any window

_OPEN_ALREADY = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
_OPENED_TO_WRITE = ("/dev/fd/", "/dev/stdout", "/dev/stderr", "/proc/self/fd/")
_KINDS = (
    (stat.S_ISDIR, "it is a directory, not a file"),
    (stat.S_ISFIFO, "it is a pipe (FIFO), not a file"),
    (stat.S_ISSOCK, "it is a socket, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
)
_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"):
    _FLAGS |= getattr(os, _flag, 0)


class UnusableFile(OSError):
    """Something is at a path, and it is no file that can be read. `strerror` is fit to be shown."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A file, open to be read. Raises FileNotFoundError where there is nothing, OSError for all else."""
    name = os.fspath(path)
    if name.startswith(_OPEN_ALREADY):
        return open(name, "rb")
    check_regular(name)  # before it is opened: that alone does something to some devices
    fd = os.open(name, _FLAGS)
    try:
        _check(name, os.fstat(fd))  # it may be another by now
        return open(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise as `open_regular`, without opening anything."""
    name = os.fspath(path)
    try:
        _check(name, os.stat(name))
    except OSError as e:
        if (link := _broken_link(Path(name), e)) is not None:
            raise UnusableFile(errno.ENOENT, link, name) from None
        raise
    except ValueError as e:  # a null character
        raise UnusableFile(errno.EINVAL, f"no file has such a name ({e})", name) from None


def read_regular(path: str | os.PathLike[str], most_bytes: int = MOST_SETTINGS) -> bytes:
    """All of a file. Raises as `open_regular`, and OSError for one of more than `most_bytes`."""
    with open_regular(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise UnusableFile(errno.EINVAL, f"more than {most_bytes // 10**6} MB", os.fspath(path))
    return data


def bounded_lines(file: BinaryIO, path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The lines of an open file. Raises UsageError naming the line of more than `MOST_INPUT` bytes."""
    n = 0
    while line := file.readline(MOST_INPUT + 1):
        n += 1
        if len(line) > MOST_INPUT:
            raise UsageError(
                f"{os.fspath(path)}: line {n} has more than {MOST_INPUT // 10**6} MB",
                "put back the file that infer wrote",
            )
        yield line


def is_url(name: str) -> bool:
    """Whether what should name a file is a web address."""
    return name.lower().startswith(("http://", "https://"))


def not_a_file(path: str | os.PathLike[str]) -> str:
    """What to say of a path at which no file was found: `no file X`, `X: it is a directory, not a file`."""
    try:
        check_regular(path)
    except UnusableFile as e:
        return f"{os.fspath(path)}: {e.strerror}"
    except OSError:
        pass
    return f"no file {os.fspath(path)}"


def _check(name: str, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode) or _is_null(status):
        return
    kind = next((what for is_kind, what in _KINDS if is_kind(status.st_mode)), "it is not a file")
    raise UnusableFile(errno.EINVAL, kind, name)


def _is_null(status: os.stat_result) -> bool:
    if not stat.S_ISCHR(status.st_mode):
        return False
    try:
        return status.st_rdev == os.stat(os.devnull).st_rdev
    except OSError:
        return False


def _broken_link(path: Path, error: OSError) -> str | None:
    """What is wrong with `path`, or a directory above it, where that is a link that leads nowhere."""
    if error.errno == errno.ELOOP:
        return "it is an endless link"
    if not isinstance(error, FileNotFoundError):
        return None
    link = next((part for part in (path, *path.parents) if part.is_symlink() and not part.exists()), None)
    if link is None:
        return None
    return "it is a link to nothing" if link == path else f"{link} is a link to nothing"


def write_all(fd: int, data: bytes | bytearray) -> None:
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


def write_atomic(path: Path, pieces: Iterable[bytes | bytearray], *, durable: bool = False) -> None:
    """Give a file a new content in one step: all of it or none. The file is for the user alone where its
    place is (`private_files`); a link to it stays one, and a pipe or a device is written to as it is.

    `durable`: it is on the disk when this returns, and a process that is killed meanwhile leaves one file
    beside it at most, however often; for a file that one process at a time writes. Raises OSError.
    """
    if os.fspath(path).startswith(_OPENED_TO_WRITE) or (path.exists() and not path.is_file()):
        with open(path, "ab", buffering=0) as file:
            for piece in pieces:
                write_all(file.fileno(), piece)
        return
    private = is_private(path)
    if private:
        make_private_dir(path.parent)
    path = path.resolve()
    # Not tempfile: all its files are private to the user, and a shelf may be shared.
    temporary = path.with_name(f".{path.name}.new" if durable else f"{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        if durable:  # what a process left that was killed, or a link that anyone put there
            temporary.unlink(missing_ok=True)
        opener = open_private if private else None
        with naming(path), open(temporary, "xb", opener=opener) as file:
            for piece in pieces:
                file.write(piece)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read_bytes(name: str) -> bytes:
    """A file's bytes; `-` is stdin. Raises UsageError as `read_file`."""
    return read_stdin() if name == "-" else read_file(Path(name), name)


def read_file(path: Path, name: str) -> bytes:
    """All of a file that the user calls `name`. Raises UsageError where it can't be read, or is too long."""
    try:
        with open_regular(path) as file:
            return _bounded(file, name)
    except OSError as e:
        raise UsageError(f"{name}: {e.strerror}", "name a text file that can be read") from None


def read_stdin() -> bytes:
    """All of standard input. Raises UsageError where it is closed, too long, or does not end."""
    if sys.stdin is None:
        raise UsageError("there is no stdin to read")
    return _bounded(sys.stdin.buffer, "stdin")


def _bounded(file: BinaryIO, name: str) -> bytes:
    data = file.read(MOST_INPUT + 1)
    if len(data) > MOST_INPUT:
        raise UsageError(f"{name}: more than {MOST_INPUT // 10**6} MB of text", "give the part that matters")
    return data


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError of an open file say which file it is, where it does not say so."""
    try:
        yield
    except OSError as e:
        if e.errno is not None:  # without a number the name would take the message's place
            e.filename = e.filename or str(path)
        raise
