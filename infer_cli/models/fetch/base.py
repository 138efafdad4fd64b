"""What the ways of fetching share: events, the failure of one source, and guarded writing to the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from infer_cli.errors import UnexpectedFailure
from infer_cli.settings.sizes import size_text

GGUF_MAGIC = b"GGUF"
_MAX_NAME = 200  # bytes: file systems allow 255, and a download adds to it


@dataclass(frozen=True)
class Trying:
    """A source is being asked."""

    source: str


@dataclass(frozen=True)
class Chosen:
    """A source that names no quantization stands for this file."""

    source: str
    file: str


@dataclass(frozen=True)
class Progress:
    """`done` bytes are here of `total` (None: unknown; may be an estimate until the end)."""

    done: int
    total: int | None


@dataclass(frozen=True)
class Failed:
    """A source could not deliver; the next one is tried."""

    source: str
    reason: str


@dataclass(frozen=True)
class Waiting:
    """Another process is fetching the same model."""

    name: str


FetchEvent = Trying | Chosen | Progress | Failed | Waiting
OnEvent = Callable[[FetchEvent], None]
Report = Callable[[int, "int | None"], None]  # done, total


@dataclass(frozen=True)
class FetchedFile:
    """`files` are the parts of the model in order; `sha256` is of all their bytes."""

    files: tuple[Path, ...]
    sha256: str
    source: str


GONE = (404, 410)  # HTTP's statuses of an address that leads to nothing
NOTHING_THERE = "check the address: the server has nothing there"


class SourceFailure(Exception):
    """One source could not deliver. The text is the reason, one line, fit for a terminal.

    `hint` says what to do next, where that is another thing than looking at the connection.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(plain(reason))
        self.hint = plain(hint)

    @property
    def reason(self) -> str:
        return str(self)


def plain(text: str, limit: int = 300) -> str:
    """One printable line of at most `limit` characters: the text may come from a server."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def innermost_reason(error: BaseException) -> str:
    """The message at the bottom: requests wraps urllib3 wraps http.client wraps the socket's error."""
    while True:
        inner = (
            error.__cause__
            or error.__context__
            or next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        )
        if inner is None:
            return reason_of(error)
        error = inner


def reason_of(error: BaseException) -> str:
    """The first line of an error's message; its type where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else f"{type(error).__name__}, and no more is said"


def refusal_of(status: int, reason: str | None) -> SourceFailure:
    """What a server's answer that is no file means."""
    if status in GONE:
        hint = NOTHING_THERE
    elif status in (401, 403):
        hint = "the server asks for a login: ~/.netrc can hold one for its host"
    else:
        hint = "the server was reached and refuses: try again later, or give a path to a GGUF file with -m"
    return SourceFailure(f"HTTP {status} {reason or ''}", hint)


def check_file_name(name: str) -> None:
    """Raise SourceFailure unless `name`, which may come from a server, may name a file here."""
    if not name.isprintable() or any(c in "/\\:" for c in name) or name in ("", ".", ".."):
        raise SourceFailure(f"no file here can have the name {name!r}")
    if len(os.fsencode(name)) > _MAX_NAME:
        raise SourceFailure(f"the file's name has more than {_MAX_NAME} bytes")


@contextlib.contextmanager
def local_io(path: Path) -> Iterator[None]:
    """Turn a failure of this machine's disk into one line: no other source would help."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        raise UnexpectedFailure(
            f"{path}: {error.strerror or error}",
            "free some space and repeat the command: what is here already is kept"
            if full
            else "check its permissions; INFER_HOME moves all models to another directory",
        ) from error


def ensure_space(folder: Path, need: int) -> None:
    """Raise UnexpectedFailure if `folder`'s disk has fewer than `need` bytes free."""
    with local_io(folder):
        free = shutil.disk_usage(folder).free
    if free < need:
        raise UnexpectedFailure(
            f"not enough disk space in {folder}: {size_text(need)} needed, {size_text(free)} free",
            "free some space, or set INFER_HOME to a directory on another disk",
        )


def check_magic(head: bytes, content_type: str = "") -> None:
    """Raise SourceFailure unless the first bytes are a GGUF file's: servers answer with error pages."""
    if head[:4] != GGUF_MAGIC:
        kind = f" ({content_type.split(';')[0].strip()})" if content_type else ""
        raise SourceFailure(
            f"what came is not a GGUF file{kind}: it begins with {head[:12]!r}",
            "the address has to be that of the file itself, not of a page about it",
        )
