"""A model that is here. A path is one already: it needs neither catalogue nor store, and loads neither."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.errors import ModelInvalid, ModelNotFound
from infer_cli.models.hashes import cached_sha256, parts_of
from infer_cli.models.sources import has_scheme, parse_hub_name, parse_path
from infer_cli.system.files import not_a_file

if TYPE_CHECKING:
    from infer_cli.models.catalogue import ModelEntry


FAKE = "fake"


class InstalledModel(NamedTuple):
    """A model that can be loaded. `path` is its (first) file; `sha256` None is not known yet.

    `entry` is its catalogue entry, None for a path or a source of the user's own. `is_fake`: it has no
    weights and no file, and its name says what it does.
    """

    name: str
    path: Path
    sha256: str | None
    entry: ModelEntry | None
    is_fake: bool = False


def is_fake(name: str | None) -> bool:
    return name is not None and (name == FAKE or name.startswith(FAKE + ":"))


def fake_model(name: str) -> InstalledModel:
    """`fake` or `fake:SCRIPT.json`."""
    return InstalledModel(name, Path(name), None, None, is_fake=True)


def named_by_path(text: str) -> InstalledModel | None:
    """The model at a path; None where `text` is a name or another kind of source.

    Raises ModelNotFound, ModelInvalid (a part is missing), UsageError (no such home directory, a page
    of the hub that shows no model).
    """
    if has_scheme(text) or not _looks_like_path(text):
        return None
    if not os.path.lexists(text) and parse_hub_name(text) is not None:
        return None
    return at_path(parse_path(text).path)


def _looks_like_path(text: str) -> bool:
    """Whether text can be no name: names have no separator, no dot at their start and no file's ending."""
    separators = {"/", "\\", os.sep}
    return text.startswith((".", "~")) or text.endswith(".gguf") or any(s in text for s in separators)


def at_path(path: Path) -> InstalledModel:
    """Raises ModelNotFound, ModelInvalid (a part of a split model is missing)."""
    if path.is_dir():
        raise ModelNotFound(f"{path} is a directory", "name the .gguf file in it")
    if not path.exists():
        raise ModelNotFound(not_a_file(path), "`infer models list` shows models that have a name")
    if not path.is_file():
        raise ModelInvalid(not_a_file(path), "give a .gguf file")
    parts = parts_of(path)
    for part in parts:
        if not part.is_file():
            raise ModelInvalid(
                f"{path} is a part of a split model, and {part.name} is missing", "get all parts"
            )
    return InstalledModel(path.stem, parts[0], cached_sha256(parts[0]), None)
