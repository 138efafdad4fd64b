"""Directories and files that hold prompts, replies and what they were made of: the user's own to read.

All that lies in the data and cache directories is private, model files excepted. Directories that an older
build made wider are made narrower where they are ours. Windows has its own rules, which nothing here changes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from infer_cli.system.paths import cache_dir, data_dir, models_dir

_DIRECTORY, _FILE = 0o700, 0o600
_PASSED_THROUGH = 0o711  # what it holds can't be listed, but the model files below it be read


def is_private(path: Path) -> bool:
    """Whether this place is ours and holds no model."""
    path = path.absolute()
    if _is_in(path, models_dir()):
        return False
    return _is_in(path, data_dir()) or _is_in(path, cache_dir())


def make_private_dir(path: Path) -> None:
    """Create a directory that nobody else may look into, and what is missing above it. Raises OSError."""
    missing = []
    above = path
    while not above.exists() and above != above.parent:
        missing.append(above)
        above = above.parent
    for directory in reversed(missing):
        private = directory == path or is_private(directory)
        with contextlib.suppress(FileExistsError):  # another process was quicker
            directory.mkdir(_mode_of(directory) if private else 0o777)
    for directory in {path, *(root for root in (data_dir(), cache_dir()) if _is_in(path.absolute(), root))}:
        _tighten(directory)


def open_private(path: str | Path, flags: int) -> int:
    """A descriptor of a file that is made, if it is, for the user alone. Raises OSError."""
    return os.open(path, flags | getattr(os, "O_BINARY", 0), _FILE)


def _is_in(path: Path, directory: Path) -> bool:
    directory = directory.absolute()
    return path == directory or directory in path.parents


def _mode_of(directory: Path) -> int:
    return _PASSED_THROUGH if _is_in(models_dir().absolute(), directory.absolute()) else _DIRECTORY


def _tighten(directory: Path) -> None:
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # a file system without modes, or somebody else's directory
        stat = directory.stat()
        narrow = stat.st_mode & 0o7777 & (_mode_of(directory) | 0o7000)
        if stat.st_uid == os.geteuid() and narrow != stat.st_mode & 0o7777:
            directory.chmod(narrow)
