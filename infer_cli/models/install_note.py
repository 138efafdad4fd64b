"""The note beside a model's file that says where it came from and what its hash is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infer_cli.models.sources import has_scheme
from infer_cli.system.files import read_regular
from infer_cli.system.paths import models_dir

NOTE = "model.json"


def notes_in() -> list[Note]:
    """The notes of models whose files are all here."""
    notes = (read_note(path) for path in sorted(models_dir().glob(f"*/{NOTE}")))
    return [note for note in notes if note is not None and all(path.is_file() for path in note.paths())]


@dataclass(frozen=True)
class FileNote:
    path: str  # a bare name is beside the note
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Note:
    folder: Path
    name: str
    source: str
    sha256: str
    fetched_at: str
    files: tuple[FileNote, ...]

    def paths(self) -> tuple[Path, ...]:
        return tuple(self.folder / file.path for file in self.files)

    @property
    def of_the_user(self) -> bool:
        """Whether the files are the user's or another tool's, not fetched by us: they may change."""
        return not has_scheme(self.source) or self.source.startswith(("ollama:", "lmstudio:"))

    def unchanged(self) -> bool:
        """Whether size and mtime of every file are as noted. Raises OSError for one that is gone."""
        stats = [path.stat() for path in self.paths()]
        pairs = zip(stats, self.files, strict=True)
        return all((s.st_size, s.st_mtime_ns) == (file.size, file.mtime_ns) for s, file in pairs)


def read_note(path: Path) -> Note | None:
    """A note that cannot be read is none: the model is then looked for anew."""
    try:
        data: dict[str, Any] = json.loads(read_regular(path))
        files = tuple(
            FileNote(str(file["path"]), int(file["size"]), int(file["mtime_ns"])) for file in data["files"]
        )
        name, source, sha256, fetched_at = (
            str(data[key]) for key in ("name", "source", "sha256", "fetched_at")
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    return Note(path.parent, name, source, sha256, fetched_at, files) if files else None


def note_file(folder: Path, file: Path) -> FileNote:
    stat = file.stat()
    path = file.name if file.parent == folder else str(file.absolute())
    return FileNote(path, stat.st_size, stat.st_mtime_ns)
