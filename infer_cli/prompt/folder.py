"""The text files of a folder, in the order of their names; what else is in it is left out by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from infer_cli.errors import UsageError
from infer_cli.prompt.attachments import Attachment
from infer_cli.prompt.messages import decode_input
from infer_cli.system.files import MOST_INPUT, open_regular

MOST_FILES = 500  # texts of one folder
_MOST_ENTRIES = 20_000  # that are looked at
_MOST_DEPTH = 50
_HEAD = 8192  # bytes in which a binary file is known
_OF_VERSION_CONTROL = {"CVS", "_darcs", "RCS", "SCCS"}  # others are hidden: .git, .hg, .svn, .jj


class FolderTexts(NamedTuple):
    """`left_out`: names of files that are no text, that can't be read, or lie outside."""

    texts: tuple[Attachment, ...]
    left_out: tuple[str, ...]


def texts_in(folder: str) -> FolderTexts:
    """All text files below a folder. Hidden entries and those of version control are passed over.

    A text's name is its path, its title the path from the folder's own name on. Raises UsageError for a
    folder that can't be read, that has no text, or more than a prompt may have.
    """
    root = Path(folder)
    top = root.resolve().name or "root"
    texts: list[Attachment] = []
    left_out: list[str] = []
    n_bytes = 0
    for path in _files(root, folder):
        name = path.relative_to(root).as_posix()
        data = _text(path, root, MOST_INPUT - n_bytes)
        if data is None:
            left_out.append(name)
            continue
        n_bytes += len(data)
        if n_bytes > MOST_INPUT:
            raise UsageError(f"{folder}: more than {MOST_INPUT // 10**6} MB of text", _NAME_THEM)
        if len(texts) == MOST_FILES:
            raise UsageError(f"{folder}: more than {MOST_FILES} text files", _NAME_THEM)
        try:
            texts.append(Attachment(os.path.join(folder, name), decode_input(data, name), f"{top}/{name}"))
        except UsageError:
            left_out.append(name)
    if not texts:
        raise UsageError(
            f"{folder}: it is a directory without a text file", "name a text file that can be read"
        )
    return FolderTexts(tuple(texts), tuple(left_out))


_NAME_THEM = "name the files that matter, such as -f src/a.py -f src/b.py"


def _files(root: Path, folder: str) -> Iterator[Path]:
    """Files and links, a folder's own before those of the folders in it. Folders' links are not followed."""
    n_seen = 0
    waiting = [(root, 0)]
    while waiting:
        here, depth = waiting.pop()
        try:
            with os.scandir(here) as found:
                entries = [entry for entry in found if _is_shown(entry.name)]
        except OSError as e:
            if here == root:
                raise UsageError(f"{folder}: {e.strerror}", "name a folder that can be read") from None
            continue
        n_seen += len(entries)
        if n_seen > _MOST_ENTRIES or depth > _MOST_DEPTH:
            what = f"more than {_MOST_ENTRIES} files" if depth <= _MOST_DEPTH else "folders too deep"
            raise UsageError(f"{folder}: {what}", _NAME_THEM)
        entries.sort(key=lambda entry: entry.name)
        yield from (here / entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
        folders = [here / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        waiting += [(each, depth + 1) for each in reversed(folders)]


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name not in _OF_VERSION_CONTROL


def _text(path: Path, root: Path, room: int) -> bytes | None:
    """Bytes of a file, one more than there is room for where it is longer; None of what is left out."""
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        return None
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
            return None if b"\0" in head else head + file.read(max(room + 1 - len(head), 0))
    except OSError:
        return None
