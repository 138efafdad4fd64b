"""sha256 of model files, remembered by file identity so that a large file is hashed once.

The store is a directory of one small file per identity (device, inode, size, mtime): written atomically, so
processes need no lock, and anything unreadable in it is a miss.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from infer_cli.models.sources import split_names
from infer_cli.system.files import open_regular, read_regular, write_atomic
from infer_cli.system.hashing import sha256_hex
from infer_cli.system.paths import cache_dir

_CHUNK = 1 << 20
_HEX = re.compile(r"[0-9a-f]{64}")


def parts_of(path: Path) -> tuple[Path, ...]:
    """All files of a model: the parts of a split GGUF in order, or the file alone."""
    return tuple(path.with_name(name) for name in split_names(path.name))


def file_sha256(path: Path) -> str:
    """Hex digest of a model, parts of a split GGUF in order. Raises OSError."""
    found = cached_sha256(path) or compute_sha256(path)
    assert found is not None  # only a `should_stop` yields None
    return found


def cached_sha256(path: Path) -> str | None:
    """The digest if it is already known; reads no model data."""
    try:
        text = read_regular(_store_path(identity_of(parts_of(path)))).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return text if _HEX.fullmatch(text) else None


def compute_sha256(path: Path, should_stop: Callable[[], bool] | None = None) -> str | None:
    """Hash the model and remember the digest; None if `should_stop`, asked every MiB, said so.

    Raises OSError.
    """
    parts = parts_of(path)
    before = identity_of(parts)
    digest = hash_files(parts, should_stop)
    if digest is not None and identity_of(parts) == before:
        _remember(before, digest)
    return digest


def remember_sha256(path: Path, digest: str) -> None:
    """Note a digest that was computed while the file was written."""
    _remember(identity_of(parts_of(path)), digest)


def hash_files(paths: Sequence[Path], should_stop: Callable[[], bool] | None = None) -> str | None:
    """Hex sha256 of the files' bytes in order; None if stopped. Raises OSError."""
    import hashlib  # releases the GIL for each chunk

    digest = hashlib.sha256()
    for path in paths:
        with open_regular(path) as file:
            while chunk := file.read(_CHUNK):
                if should_stop is not None and should_stop():
                    return None
                digest.update(chunk)
    return digest.hexdigest()


def identity_of(paths: Sequence[Path]) -> str:
    """Of files as they are now: device, inode, size, mtime. Raises OSError."""
    stats = [path.stat() for path in paths]
    return ",".join(f"{s.st_dev}:{s.st_ino}:{s.st_size}:{s.st_mtime_ns}" for s in stats)


def _store_path(identity: str) -> Path:
    return cache_dir() / "sha256" / sha256_hex(identity.encode())[:40]


def _remember(identity: str, digest: str) -> None:
    # A cache that cannot be written (a read-only home) costs time, nothing else.
    with contextlib.suppress(OSError):
        write_atomic(_store_path(identity), [digest.encode()])
