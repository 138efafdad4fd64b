"""Model files that other programs on this machine hold: LM Studio, ollama, the Hugging Face cache.

Finds them by each program's own layout and reads their small index files; writes nothing, opens no model and
touches no network. Everything read there is untrusted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infer_cli.errors import UsageError
from infer_cli.models.hashes import parts_of
from infer_cli.models.sources import HubFile, OllamaModel, Source, StudioFile, parse_source
from infer_cli.system.files import open_regular

LM_STUDIO, OLLAMA, HUGGING_FACE = "LM Studio", "ollama", "Hugging Face cache"
_REGISTRY = "registry.ollama.ai"
_MODEL_LAYER = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_MAX_INDEX_BYTES = 2**20  # of a manifest or settings file


@dataclass(frozen=True)
class FoundModel:
    """A model that `tool` holds. `str(source)` is what `-m` takes; `size` is bytes over all files."""

    tool: str
    source: Source
    files: tuple[Path, ...]
    size: int


def find_all() -> list[FoundModel]:
    """Everything that other tools hold, by tool and name. Parts of a split GGUF are one model."""
    found = [*_lm_studio(), *_ollama(), *_hugging_face()]
    order = (LM_STUDIO, OLLAMA, HUGGING_FACE)
    return sorted(found, key=lambda model: (order.index(model.tool), str(model.source)))


def locate(source: OllamaModel | StudioFile) -> tuple[Path, ...] | None:
    """The files of a model of another tool; None if that tool does not have it (any more)."""
    if isinstance(source, StudioFile):
        paths = (folder / source.path for folder in lm_studio_folders())
        return next((parts_of(path) for path in paths if os.path.isfile(path)), None)
    named = _DIGEST.fullmatch(source.name)
    for folder in ollama_folders():
        digest = named or _model_digest(folder / "manifests" / _manifest_name(source))
        if digest and os.path.isfile(blob := folder / "blobs" / f"sha256-{digest[1]}"):
            return (blob,)
    return None


# --- where they keep them -------------------------------------------------------------------------


def lm_studio_folders() -> tuple[Path, ...]:
    """Directories of PUBLISHER/REPO/FILE.gguf: the one its settings name, and its defaults."""
    homes = (_home() / ".lmstudio", _home() / ".cache" / "lm-studio")
    chosen = [_read_json(home / "settings.json").get("downloadsFolder") for home in homes]
    folders = [Path(text) for text in chosen if isinstance(text, str) and text and "\0" not in text]
    return tuple(dict.fromkeys([*folders, *(home / "models" for home in homes)]))


def ollama_folders() -> tuple[Path, ...]:
    """Directories of `manifests` and `blobs`: the user's, then that of the service on Linux."""
    if named := os.environ.get("OLLAMA_MODELS"):
        return (Path(named),)
    return (_home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models"))


def hugging_face_folder() -> Path:
    """Holds `models--OWNER--REPO`, as huggingface_hub decides where that is."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := os.environ.get(name):
            return Path(named).expanduser()
    if named := os.environ.get("HF_HOME"):
        return Path(named).expanduser() / "hub"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache).expanduser() if cache else _home() / ".cache") / "huggingface" / "hub"


def _home() -> Path:
    return Path(os.path.expanduser("~"))


# --- what is there --------------------------------------------------------------------------------


def _lm_studio() -> Iterator[FoundModel]:
    seen: set[str] = set()
    for folder in lm_studio_folders():
        for path in _ggufs(folder, "*/*/*.gguf"):
            name = path.relative_to(folder).as_posix()
            if name not in seen:  # the folder of the settings comes first, as in `locate`
                seen.add(name)
                yield from _model(LM_STUDIO, f"lmstudio:{name}", parts_of(path))


def _ollama() -> Iterator[FoundModel]:
    seen: set[OllamaModel] = set()
    for root in (folder / "manifests" for folder in ollama_folders()):
        for path in _glob(root, "*/*/*/*"):
            host, owner, name, tag = path.relative_to(root).parts
            if host == _REGISTRY:
                name = name if owner == "library" else f"{owner}/{name}"
            else:
                name = f"{host}/{owner}/{name}"
            source = OllamaModel(name, tag)
            files = locate(source) if source not in seen else None
            if files:
                seen.add(source)
                yield from _model(OLLAMA, str(source), files)


def _hugging_face() -> Iterator[FoundModel]:
    for repo in _glob(hugging_face_folder(), "models--*--*"):
        owner, name = repo.name.split("--", 2)[1:]
        for snapshot in _glob(repo / "snapshots", "*"):
            for path in _ggufs(snapshot, "**/*.gguf"):
                file = path.relative_to(snapshot).as_posix()
                source = HubFile(f"{owner}/{name}", file, snapshot.name)
                yield from _model(HUGGING_FACE, str(source), parts_of(path))


def _model(tool: str, text: str, files: tuple[Path, ...]) -> Iterator[FoundModel]:
    """The model, unless a part is missing or `-m` could not name it."""
    try:
        yield FoundModel(tool, parse_source(text), files, sum(file.stat().st_size for file in files))
    except (OSError, UsageError):
        return


def _ggufs(folder: Path, pattern: str) -> Iterator[Path]:
    """GGUF files that hold a language model, the first file of each."""
    for path in _glob(folder, pattern):
        if os.path.isfile(path) and "mmproj" not in path.name.lower() and parts_of(path)[0] == path:
            yield path


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:  # not ours to complain of
        return []


# --- index files ----------------------------------------------------------------------------------


def _manifest_name(source: OllamaModel) -> Path:
    pieces = source.name.split("/")
    if len(pieces) == 1:
        pieces = ["library", *pieces]
    if len(pieces) == 2:
        pieces = [_REGISTRY, *pieces]
    return Path(*pieces, source.tag)


def _model_digest(manifest: Path) -> re.Match[str] | None:
    """The digest of a manifest's model layer; None unless there is exactly one."""
    layers = _read_json(manifest).get("layers")
    digests = [
        str(layer.get("digest"))
        for layer in (layers if isinstance(layers, list) else [])
        if isinstance(layer, dict) and layer.get("mediaType") == _MODEL_LAYER
    ]
    return _DIGEST.fullmatch(digests[0]) if len(digests) == 1 else None


def _read_json(path: Path) -> dict[str, Any]:
    """A small JSON object; empty where there is none that can be read."""
    try:
        with open_regular(path) as file:
            data = json.loads(file.read(_MAX_INDEX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
