"""Files of data sets of the Hugging Face hub: from the cache that other tools share, else downloaded once.

A download is kept below infer's own cache, by the name of its source: who needs to know which version it has
names a revision, or looks at the digest of what was read.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from infer_cli.errors import SourceUnreachable, UsageError
from infer_cli.models.fetch import http, hub
from infer_cli.models.fetch.base import SourceFailure, check_file_name, local_io
from infer_cli.models.sources import hub_repo_fault, is_plain_relative
from infer_cli.system.hashing import sha256_hex
from infer_cli.system.paths import cache_dir

_SOURCE = re.compile(
    r"hf:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/(?P<file>[^@\s]+)(?:@(?P<revision>[\w./-]+))?"
)
_GRAMMAR = "data of the hub is hf:OWNER/NAME/FILE, or hf:OWNER/NAME/FILE@REVISION"


class HubDataFile(NamedTuple):
    """`revision` None is the main branch."""

    repo: str
    file: str
    revision: str | None


def parse_data_source(text: str) -> HubDataFile:
    """Parse `hf:OWNER/NAME/FILE[@REVISION]`. Raises UsageError."""
    match = _SOURCE.fullmatch(text)
    if match is None:
        raise UsageError(f"the data {text!r:.200} is not understood", _GRAMMAR)
    fault = hub_repo_fault(match["repo"])
    if fault is None and not is_plain_relative(match["file"]):
        fault = f"{match['file']!r:.200} is not a plain relative path"
    if fault is not None:
        raise UsageError(f"the data {text!r:.200} is not understood: {fault}", _GRAMMAR)
    return HubDataFile(match["repo"], match["file"], match["revision"])


def fetch_data_file(text: str, *, offline: bool = False) -> Path:
    """A file of a data set, `hf:OWNER/NAME/FILE[@REVISION]`. `offline`: only where it is here already.

    Raises UsageError for another text, SourceUnreachable where it can't be had, and UnexpectedFailure for
    trouble with the disk.
    """
    source = parse_data_source(text)
    found = hub.cached_data(source.repo, source.file, source.revision)
    if found is not None:
        return found
    from filelock import FileLock

    name = PurePosixPath(source.file).name
    folder = cache_dir() / "data" / sha256_hex(text.encode())[:16]
    kept = folder / name
    if kept.is_file():
        return kept
    try:
        if offline:
            raise SourceFailure("it is not here, and --offline is given")
        check_file_name(name)
        with local_io(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held = FileLock(folder / ".lock")
            held.acquire()  # another process may be fetching it
        try:
            if not kept.is_file():
                _download(source, kept)
        finally:
            held.release()
    except SourceFailure as e:
        raise SourceUnreachable(
            f"{text} could not be fetched: {e.reason}",
            e.hint
            or "check the connection (proxies and HF_ENDPOINT are honoured), or name a file here with --data",
        ) from None
    return kept


def _download(source: HubDataFile, kept: Path) -> None:
    wanted = hub.resolve_data(source.repo, source.file, source.revision)
    part = kept.with_name(f"{kept.name}.part")
    digest = http.download(
        wanted.url, part, lambda done, total: None, headers=wanted.headers, size=wanted.size, is_model=False
    )
    if wanted.sha256 is not None and digest != wanted.sha256:
        http.discard(part)
        raise SourceFailure(f"sha256 is {digest}, {wanted.sha256} was expected")
    with local_io(part):
        part.replace(kept)
    http.discard(part)
