"""Hugging Face repositories through huggingface_hub: its cache, token, endpoint and offline switch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from infer_cli.fetch.base import SourceFailure
from infer_cli.fetch.connect import CONNECT_S, reach
from infer_cli.sources import HubFile, HubQuant, split_names

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HubPart:
    """Where one file is downloaded from. `size` and `sha256` are what the hub publishes."""

    name: str
    url: str
    headers: Mapping[str, str]
    size: int | None
    sha256: str | None


def cached(source: HubFile | HubQuant) -> tuple[Path, ...] | None:
    """The files if the Hugging Face cache holds all of them. Touches no network."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(source, HubQuant):
        named = _cached_name(source)
        if named is None:
            return None
        source = named
    found = []
    for name in _all_parts(source.file):
        path = try_to_load_from_cache(source.repo, name, revision=source.revision)
        if not isinstance(path, str):
            return None
        found.append(Path(path))
    return tuple(found)


def resolve(source: HubFile | HubQuant) -> tuple[HubPart, ...]:
    """Ask the hub for URL, size and hash of each part. Raises SourceFailure."""
    from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_token, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise SourceFailure("HF_HUB_OFFLINE is set")
    reach(constants.ENDPOINT)
    try:
        if isinstance(source, HubQuant):
            files = HfApi().list_repo_tree(source.repo, recursive=True)
            source = HubFile(source.repo, _pick(source, (file.path for file in files)))
        token = get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        parts = []
        for name in _all_parts(source.file):
            url = hf_hub_url(source.repo, name, revision=source.revision)
            meta = get_hf_file_metadata(url, timeout=CONNECT_S)
            digest = meta.etag if meta.etag and _SHA256.fullmatch(meta.etag) else None
            parts.append(HubPart(PurePosixPath(name).name, url, headers, meta.size, digest))
    except SourceFailure:
        raise
    except Exception as error:
        # huggingface_hub lets its HTTP client's exceptions through, and which client depends on its version.
        raise SourceFailure(_reason(error)) from error
    return tuple(parts)


def _all_parts(file: str) -> list[str]:
    folder = PurePosixPath(file).parent
    return [str(folder / name) for name in split_names(PurePosixPath(file).name)]


def _cached_name(source: HubQuant) -> HubFile | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(source.repo, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf"))
    try:
        return HubFile(source.repo, _pick(source, names))
    except SourceFailure:
        return None


def _pick(source: HubQuant, names: Iterable[str]) -> str:
    """The one model file whose name carries the quantization (the first part if it is split)."""
    ggufs = sorted(name for name in names if name.lower().endswith(".gguf") and "mmproj" not in name.lower())
    carries = re.compile(rf"(?:^|[./_-]){re.escape(source.quant)}(?=[./-])", re.IGNORECASE)
    firsts = {_all_parts(name)[0] for name in ggufs if carries.search(name)}
    if len(firsts) == 1:
        return firsts.pop()
    if firsts:
        listed = ", ".join(sorted(firsts)[:4])
        raise SourceFailure(
            f"{source.repo} has several files of {source.quant}: {listed}; name one: hf:OWNER/REPO/FILE"
        )
    listed = ", ".join(PurePosixPath(name).name for name in ggufs[:6])
    raise SourceFailure(
        f"{source.repo} has no file of {source.quant}" + (f", but {listed}" if listed else "")
    )


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "access must be asked for on the model's page, then HF_TOKEN set"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or it is private and HF_TOKEN is not set"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such revision"
    if isinstance(error, errors.EntryNotFoundError):
        return "the repository has no such file"
    first = str(error).strip().split(os.linesep)[0].split("\n")[0]
    return first or type(error).__name__
