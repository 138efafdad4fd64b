"""Evaluated beginnings of prompts, and conversations, on disk: one file each, in the cache directory.

    magic, version, length of the header     16 bytes
    header                                   JSON: whose state it is, and the payload's length and SHA-256
    SHA-256 of all of the above              32 bytes
    payload                                  the state, as the backend gave it

A file's name is a hash over whatever the state depends on, the token ids included, so that finding one takes
no scan. Nothing in a file is believed before its hashes are checked: what is damaged, cut short or of another
version is a miss, and is removed. Files are written atomically and never changed, so processes need no lock;
what another process removes meanwhile is a miss too. A file's time of change is when it was last used.

Knows no engine and no prompt. What a state is of is token ids, a multiple of `GRID` of them, or the segments
in which a conversation was evaluated: the same ids in other segments are another state.
"""

from __future__ import annotations

import contextlib
import hashlib  # for states: faster than our `sha256` by the megabyte
import json
import os
import re
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from infer_cli.system.files import open_regular, write_atomic
from infer_cli.system.hashing import sha256
from infer_cli.system.paths import cache_dir
from infer_cli.system.private_files import make_private_dir
from infer_cli.types import Segment

GRID = 64  # tokens; a state ends at a multiple of this, which is where canonical chunks end
MOST_BYTES = 2 * 10**9  # of all files, where the user names no limit: this, and at most
FREE_SHARE = 0.1  # of what the disk has free, our own files counted as free

_MAGIC = b"INFERKV\n"
_VERSION = 1
_FIXED = struct.Struct("<8sII")
_MAX_HEADER = 1 << 16
_NAME = re.compile(r"[0-9a-f]{64}\.kv")
_TEMPORARY = re.compile(r"[0-9a-f]{64}\.kv\.[0-9a-f]{8}\.tmp")
_ABANDONED_S = 3600  # a temporary file older than this was left by a process that died


What = Sequence[int] | Sequence[Segment]


@dataclass(frozen=True)
class Owner:
    """What a state depends on beside its token ids. `engine` names every choice that can change its bytes."""

    model: str  # its name, to be shown
    model_sha256: str
    engine: str


@dataclass(frozen=True)
class Entry:
    """A file of the store, its header checked. `used`: seconds since the epoch."""

    path: Path
    key: str
    owner: Owner
    n_tokens: int
    size: int  # bytes of the file
    used: float


def store_dir() -> Path:
    return cache_dir() / "prefixes"


def keys(owner: Owner, ids: Sequence[int]) -> Iterator[tuple[int, str]]:
    """(n, key of the first n ids) for each n on the grid, ascending."""
    digest = hashlib.sha256(f"{_VERSION}\0{owner.model_sha256}\0{owner.engine}\0prompt\0".encode())
    for end in range(GRID, len(ids) + 1, GRID):
        digest.update(struct.pack(f"<{GRID}I", *ids[end - GRID : end]))
        yield end, digest.hexdigest()


class PrefixStore:
    """The files of one directory. Reading raises nothing: a failing disk is a miss."""

    def __init__(self, directory: Path | None = None, most_bytes: int | None = None) -> None:
        """`most_bytes` None: the default limit, `MOST_BYTES` or the share of the disk."""
        self._directory = store_dir() if directory is None else directory
        self._most_bytes = most_bytes

    # --- one prefix ----------------------------------------------------------------------------

    def longest(self, owner: Owner, ids: Sequence[int], *, at_least: int, at_most: int) -> int:
        """The most first tokens of `ids` that there is a file for, between the two bounds; else 0."""
        known = [(n, key) for n, key in keys(owner, ids[:at_most]) if n >= at_least]
        return next((n for n, key in reversed(known) if self._path(key).is_file()), 0)

    def size(self, owner: Owner, what: What) -> int:
        """Bytes that `read` would take; 0 where there is no file."""
        try:
            return self._path(_key(owner, what)).stat().st_size
        except OSError:
            return 0

    def read(self, owner: Owner, what: What) -> memoryview | None:
        """The state after exactly this, checked; it is marked as used. Raises MemoryError."""
        path = self._path(_key(owner, what))
        try:
            with open_regular(path) as file:
                data = file.read()
        except OSError:
            return None
        checked = _checked(data, path.stem)
        if checked is None:
            self._remove(path)
            return None
        with contextlib.suppress(OSError):  # of a read-only directory: then the oldest is not known
            os.utime(path)
        return checked[1]

    def write(self, owner: Owner, what: What, payload: bytes | bytearray) -> int:
        """Keep the state after this, and make room for it; returns the file's bytes.

        Raises OSError, and ValueError where the whole store may not be so large.
        """
        key = _key(owner, what)
        digest = hashlib.sha256(payload).hexdigest()
        head = _head(
            _Header(key, _n_tokens(what), **asdict(owner), payload_bytes=len(payload), payload_sha256=digest)
        )
        size, limit = len(head) + len(payload), self.limit()
        if size > limit:
            raise ValueError(f"its {size} bytes are more than all that the cache may take ({limit})")
        make_private_dir(self._directory)  # a state tells of its text
        path = self._path(key)
        write_atomic(path, [head, payload])
        for other in self._beyond(limit, but=path):
            self._remove(other)
        return size

    def enforce(self) -> None:
        """Remove the longest unused until the rest is within the limit; what can't be removed stays."""
        for path in self._beyond(self.limit()):
            self._remove(path)

    def remove(self, owner: Owner, what: What) -> None:
        """Forget the state after this, where there is one."""
        self._remove(self._path(_key(owner, what)))

    # --- all of them ---------------------------------------------------------------------------

    def limit(self) -> int:
        """Bytes that all files may take together."""
        if self._most_bytes is not None:
            return self._most_bytes
        directory = self._directory
        while not directory.is_dir() and directory != directory.parent:
            directory = directory.parent
        try:
            free = shutil.disk_usage(directory).free
        except OSError:
            return MOST_BYTES
        ours = sum(size for _path, size, _used in self._files())
        return min(MOST_BYTES, int((free + ours) * FREE_SHARE))

    def entries(self) -> list[Entry]:
        """All files whose header is sound, last used first. Payloads are not read."""
        found = []
        for path, size, used in self._files():
            header = _header_of(path)
            if header is not None:
                found.append(Entry(path, header.key, header.owner, header.n_tokens, size, used))
        return sorted(found, key=lambda entry: (-entry.used, entry.key))

    def prune(self) -> tuple[int, int]:
        """Remove what is damaged, abandoned, or beyond the limit. (files removed, bytes freed).

        Raises OSError.
        """
        before = self._every_file()
        for path, _size, _used in self._files():
            try:
                with open_regular(path) as file:
                    data = file.read()
            except (OSError, MemoryError):
                continue
            if _checked(data, path.stem) is None:
                path.unlink(missing_ok=True)
        for path in self._beyond(self.limit()):
            path.unlink(missing_ok=True)
        return self._gone(before)

    def clear(self) -> tuple[int, int]:
        """Remove all files of the store. (files removed, bytes freed). Raises OSError."""
        before = self._every_file()
        for path in before:
            path.unlink(missing_ok=True)
        return self._gone(before)

    # --- files ---------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.kv"

    def _every_file(self) -> dict[Path, os.stat_result]:
        """Our files, temporary ones too; a directory may hold files of others."""
        found = {}
        with contextlib.suppress(OSError), os.scandir(self._directory) as items:
            for item in items:
                if _NAME.fullmatch(item.name) or _TEMPORARY.fullmatch(item.name):
                    with contextlib.suppress(OSError):
                        found[Path(item.path)] = item.stat()
        return found

    def _files(self) -> list[tuple[Path, int, float]]:
        """(path, size, last used) of all states, the longest unused first."""
        found = [
            (path, stat.st_size, stat.st_mtime)
            for path, stat in self._every_file().items()
            if path.suffix == ".kv"
        ]
        return sorted(found, key=lambda item: (item[2], item[0]))

    def _beyond(self, limit: int, but: Path | None = None) -> list[Path]:
        """Abandoned files, and the longest unused until the rest is within the limit."""
        gone = [
            path
            for path, stat in self._every_file().items()
            if path.suffix == ".tmp" and time.time() - stat.st_mtime > _ABANDONED_S
        ]
        files = self._files()
        total = sum(size for _path, size, _used in files)
        for path, size, _used in files:
            if total <= limit:
                break
            if path != but:
                gone.append(path)
                total -= size
        return gone

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # another process was quicker, or it may not be removed
            path.unlink()

    def _gone(self, before: dict[Path, os.stat_result]) -> tuple[int, int]:
        gone = [stat.st_size for path, stat in before.items() if not path.exists()]
        return len(gone), sum(gone)


def _key(owner: Owner, what: What) -> str:
    if segments := [item for item in what if isinstance(item, Segment)]:
        digest = hashlib.sha256(f"{_VERSION}\0{owner.model_sha256}\0{owner.engine}\0talk\0".encode())
        for kind, ids in segments:
            digest.update(f"{kind}\0{len(ids)}\0".encode() + struct.pack(f"<{len(ids)}I", *ids))
        return digest.hexdigest()
    if not what or len(what) % GRID:
        raise ValueError(f"{len(what)} tokens are not a multiple of {GRID}")
    key = ""
    for _n, key in keys(owner, [item for item in what if isinstance(item, int)]):  # noqa: B007  # the last one
        pass
    return key


def _n_tokens(what: What) -> int:
    return sum(len(item.ids) if isinstance(item, Segment) else 1 for item in what)


@dataclass(frozen=True)
class _Header:
    key: str
    n_tokens: int
    model: str
    model_sha256: str
    engine: str
    payload_bytes: int
    payload_sha256: str

    @property
    def owner(self) -> Owner:
        return Owner(self.model, self.model_sha256, self.engine)


def _head(header: _Header) -> bytes:
    text = json.dumps(asdict(header)).encode()
    head = _FIXED.pack(_MAGIC, _VERSION, len(text)) + text
    return head + sha256(head)


def _parsed(data: bytes, key: str) -> tuple[_Header, int] | None:
    """The header, and where the payload begins; None where it is not a sound header of this key."""
    if len(data) < _FIXED.size:
        return None
    magic, version, length = _FIXED.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION) or length > _MAX_HEADER:
        return None
    end = _FIXED.size + length
    if data[end : end + 32] != sha256(data[:end]):
        return None
    try:
        header = _Header(**json.loads(data[_FIXED.size : end]))
    except (ValueError, TypeError, RecursionError):
        return None
    if any(type(getattr(header, f.name)).__name__ != f.type for f in fields(header)):
        return None
    return (header, end + 32) if header.key == key else None


def _checked(data: bytes, key: str) -> tuple[_Header, memoryview] | None:
    """The header and the payload of a whole file, if all of it is as it was written."""
    parsed = _parsed(data, key)
    if parsed is None:
        return None
    header, start = parsed
    payload = memoryview(data)[start:]
    if len(payload) != header.payload_bytes:
        return None
    return (header, payload) if hashlib.sha256(payload).hexdigest() == header.payload_sha256 else None


def _header_of(path: Path) -> _Header | None:
    try:
        with open_regular(path) as file:
            data = file.read(_FIXED.size + _MAX_HEADER + 32)
    except OSError:
        return None
    parsed = _parsed(data, path.stem)
    return None if parsed is None else parsed[0]
