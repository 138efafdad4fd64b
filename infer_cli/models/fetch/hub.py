"""Hugging Face repositories: the cache, token, endpoint and offline switch of huggingface_hub.

The requests are our own: its client reads answers of any size, and follows redirects to http:.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from infer_cli.models.fetch.base import SourceFailure, innermost_reason, refusal_of
from infer_cli.models.fetch.connect import CONNECT_S, reach
from infer_cli.models.sources import HubFile, HubQuant, split_names

if TYPE_CHECKING:
    import requests

    from infer_cli.models.fetch.http_session import Session

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_LISTING = 1 << 24  # bytes that the list of a repository's files may have
_DATA_SET = "dataset"  # a kind of repository
_LEAST_PAGE = 1 << 14  # bytes that a page of it counts at least, so that the pages end too
# Where none is asked for, the first of these: by bits a weight, and of two that are as near, the larger.
_NEAREST = (
    "Q4_K_M", "Q4_K_L", "Q4_K_S", "Q4_K_XL", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "MXFP4", "IQ4_XS",
    "Q5_K_S", "Q5_K_M", "Q5_K_L", "Q5_K_XL", "Q5_K", "Q5_0", "Q5_1", "Q3_K_L", "Q3_K_XL", "Q3_K_M",
    "Q6_K", "Q6_K_L", "Q6_K_XL", "IQ3_M", "Q3_K_S", "IQ3_S", "IQ3_XS", "IQ3_XXS", "Q8_0", "Q8_K_XL",
    "Q2_K_L", "Q2_K", "IQ2_M", "BF16", "F16", "FP16", "F32",
)  # fmt: skip
_REFUSALS = {
    "GatedRepo": ("access must be asked for", "ask on the repository's page, then set HF_TOKEN"),
    "RepoNotFound": ("no such repository", "check the name; a private one needs HF_TOKEN"),
    "RevisionNotFound": ("no such revision", "check what stands behind @; without it, main is taken"),
    "EntryNotFound": ("the repository has no such file", "check the file's name; its page lists the files"),
}


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
    from huggingface_hub import constants, hf_hub_url

    from infer_cli.models.fetch.http_session import MALFORMED, Session

    headers = _headers()
    try:
        with Session() as session:
            if isinstance(source, HubQuant):
                names = _file_names(session, constants.ENDPOINT, source.repo, headers)
                source = HubFile(source.repo, _pick(source, names))
            parts = []
            for name in _all_parts(source.file):
                url = hf_hub_url(source.repo, name, revision=source.revision)
                parts.append(_ask(session, PurePosixPath(name).name, url, headers))
    except MALFORMED as error:
        raise SourceFailure(innermost_reason(error)) from error
    return tuple(parts)


def cached_data(repo: str, file: str, revision: str | None) -> Path | None:
    """A file of a data set, if the Hugging Face cache holds it. Touches no network."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, file, revision=revision, repo_type=_DATA_SET)
    return Path(path) if isinstance(path, str) else None


def resolve_data(repo: str, file: str, revision: str | None) -> HubPart:
    """As `resolve`, of a file of a data set."""
    from huggingface_hub import hf_hub_url

    from infer_cli.models.fetch.http_session import MALFORMED, Session

    headers = _headers()
    url = hf_hub_url(repo, file, revision=revision, repo_type=_DATA_SET)
    try:
        with Session() as session:
            return _ask(session, PurePosixPath(file).name, url, headers)
    except MALFORMED as error:
        raise SourceFailure(innermost_reason(error)) from error


def _headers() -> dict[str, str]:
    """What the hub is told with each request. Raises SourceFailure where it may not be asked, or is not
    there."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise SourceFailure("HF_HUB_OFFLINE is set", "unset it, or name a file that is here")
    reach(constants.ENDPOINT)
    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _ask(session: Session, name: str, url: str, headers: Mapping[str, str]) -> HubPart:
    """What the hub says of a file before it sends us to where the bytes are."""
    from infer_cli.models.fetch.http_session import answer_to, number_in

    with answer_to(session, "HEAD", url, headers, read_s=CONNECT_S, stay=True) as response:
        _check(response)
        said = response.headers
        size = number_in(said.get("X-Linked-Size"))
        if size is None and not response.is_redirect:
            size = number_in(said.get("Content-Length"))
        etag = (said.get("X-Linked-Etag") or said.get("ETag") or "").removeprefix("W/").strip('"')
    return HubPart(name, url, headers, size, etag if _SHA256.fullmatch(etag) else None)


def _file_names(session: Session, endpoint: str, repo: str, headers: Mapping[str, str]) -> list[str]:
    """Paths of all files of a repository's main branch."""
    from infer_cli.models.fetch.http_session import answer_to

    url: str | None = f"{endpoint}/api/models/{repo}/tree/main?recursive=true"
    names: list[str] = []
    left = _MAX_LISTING
    while url is not None:
        body = b""
        with answer_to(session, "GET", url, headers, read_s=CONNECT_S) as response:
            _check(response)
            for chunk in response.iter_content(1 << 16):
                left -= len(chunk)
                if left < 0:
                    raise SourceFailure(f"the list of {repo}'s files has no end")
                body += chunk
            following = response.links.get("next", {}).get("url")
        entries = json.loads(body)
        if not isinstance(entries, list):
            raise SourceFailure(f"the list of {repo}'s files is none")
        for entry in entries:
            if isinstance(entry, dict) and entry.get("type") == "file" and isinstance(entry.get("path"), str):
                names.append(entry["path"])
        if following is not None and _origin(following) != _origin(url):
            raise SourceFailure("the hub's list of files goes on on another host")
        left -= _LEAST_PAGE
        url = following
    return names


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _check(response: requests.Response) -> None:
    """Raise SourceFailure with what the hub has against a request."""
    status = response.status_code
    if status < 400:
        return
    code = response.headers.get("X-Error-Code", "")
    if code in _REFUSALS:
        raise SourceFailure(*_REFUSALS[code])
    if status == 401:
        raise SourceFailure(*_REFUSALS["RepoNotFound"])
    if status == 404:  # which of them, it does not say
        raise SourceFailure("no such repository or file", _REFUSALS["RepoNotFound"][1])
    raise refusal_of(status, response.headers.get("X-Error-Message") or response.reason)


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
    if source.quant is None:
        return _nearest(source.repo, ggufs)
    firsts = _carrying(source.quant, ggufs)
    if len(firsts) > 1:
        raise _several(source.repo, source.quant, firsts)
    if not firsts:
        raise _none(source.repo, source.quant, ggufs)
    return firsts[0]


def _nearest(repo: str, ggufs: Sequence[str]) -> str:
    """The model file of the first of `_NEAREST` that there is; the only one, if it is the only one."""
    if len(whole := sorted({_all_parts(name)[0] for name in ggufs})) == 1:
        return whole[0]
    for quant in _NEAREST:
        if firsts := _carrying(quant, ggufs):
            if len(firsts) > 1:
                raise _several(repo, quant, firsts)
            return firsts[0]
    raise _none(repo, "a known quantization", ggufs)


def _carrying(quant: str, ggufs: Sequence[str]) -> list[str]:
    """Of these files, (the first parts of) those whose names carry a quantization."""
    carries = re.compile(rf"(?:^|[./_-]){re.escape(quant)}(?=[./-])", re.IGNORECASE)
    return sorted({_all_parts(name)[0] for name in ggufs if carries.search(name)})


def _several(repo: str, quant: str, firsts: Sequence[str]) -> SourceFailure:
    named = ", ".join(firsts[:4])
    return SourceFailure(f"{repo} has several files of {quant}: {named}", f"name one: hf:{repo}/{firsts[0]}")


def _none(repo: str, quant: str, ggufs: Sequence[str]) -> SourceFailure:
    """What to say of a repository that has no file of `quant`."""
    if not ggufs:
        return SourceFailure(
            f"{repo} has no GGUF file",
            "a repository of GGUF files is needed; most have GGUF in their name",
        )
    if quants := [each for each in _NEAREST if _carrying(each, ggufs)]:
        hint = f"it has {', '.join(quants[:8])}: hf:{repo}:{quants[0]}"
    else:
        hint = f"it has {', '.join(ggufs[:4])}: hf:{repo}/{ggufs[0]}"
    return SourceFailure(f"{repo} has no file of {quant}", hint)
