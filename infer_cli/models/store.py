"""The store of models on this machine: finds one by name, path or source, and installs it if it is not here.

Each installed model has a directory in `models_dir()` with its files and a note, `model.json`: where it came
from, its sha256, and size and mtime of its files (which may lie elsewhere: what another tool holds is used in
place). The note is written last: without it nothing is installed. Knows no terminal and no model runtime.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from infer_cli.errors import ModelInvalid, ModelNotFound, UsageError
from infer_cli.models import other_programs
from infer_cli.models.catalogue import ModelEntry, load_catalogue
from infer_cli.models.fetch.base import FetchEvent, OnEvent, Waiting, local_io
from infer_cli.models.hashes import cached_sha256, compute_sha256, hash_files, remember_sha256
from infer_cli.models.install_note import NOTE, Note, note_file, notes_in, read_note
from infer_cli.models.installed import InstalledModel, at_path, named_by_path
from infer_cli.models.sources import (
    OllamaModel,
    Source,
    StudioFile,
    has_scheme,
    is_tagged,
    parse_hub_name,
    parse_ollama,
    parse_source,
)
from infer_cli.system.files import write_atomic
from infer_cli.system.hashing import sha256_hex
from infer_cli.system.paths import models_dir

_LOCK = ".lock"
_BLOB = re.compile(r"sha256-([0-9a-f]{64})")
_SLUG = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class FetchNotice:
    """What is about to be downloaded. `size` is in bytes, None if only the server knows."""

    name: str
    size: int | None
    source: str


def _ignore(event: object) -> None:
    pass


def resolve(
    model: str | None,
    *,
    offline: bool = False,
    on_fetch: Callable[[FetchNotice], None] = _ignore,
    on_event: OnEvent = _ignore,
) -> InstalledModel:
    """The model of a name, an alias, a path or a source string, fetched if need be; None is the default one.

    Raises ModelNotFound (unknown, or not here and `offline`), ModelInvalid (changed or incomplete),
    UsageError (a source that cannot be parsed), SourceUnreachable, UnexpectedFailure (the disk).
    """
    wanted = _wanted(model)
    if isinstance(wanted, InstalledModel):
        return wanted
    if (here := _installed(wanted)) is not None:
        return here
    return _install(wanted, offline, on_fetch, on_event)


def pull(
    model: str | None,
    *,
    on_fetch: Callable[[FetchNotice], None] = _ignore,
    on_event: OnEvent = _ignore,
) -> InstalledModel:
    """As `resolve`, but a model whose files have changed since they were installed is fetched again."""
    wanted = _wanted(model)
    if isinstance(wanted, InstalledModel):
        return wanted
    with contextlib.suppress(ModelInvalid):
        if (here := _installed(wanted)) is not None:
            return here
    return _install(wanted, False, on_fetch, on_event)


def look(model: str | None) -> InstalledModel | ModelEntry:
    """What is known of a model without fetching or hashing: the model if it is here, else its entry.

    Its `sha256` is None where its file may have changed since it was hashed. Raises ModelNotFound,
    UsageError.
    """
    wanted = _wanted(model)
    if isinstance(wanted, InstalledModel):
        return wanted
    if (note := _current_note(wanted)) is not None:
        found = _model(wanted, note)
        return found if note.unchanged() else found._replace(sha256=None)
    from infer_cli.models.fetch.pull import locate

    for source in wanted.sources:
        if files := locate(source):
            return InstalledModel(wanted.name, files[0], cached_sha256(files[0]), wanted.entry)
    if wanted.entry is None:
        raise _not_installed(wanted)
    return wanted.entry


@dataclass(frozen=True)
class Verdict:
    """What hashing a model said. `expected` None: nothing is known to compare with.

    `origin` tells where `expected` comes from.
    """

    name: str
    path: Path
    sha256: str
    expected: str | None
    origin: str

    @property
    def holds(self) -> bool:
        return self.expected in (None, self.sha256)


def verify(model: str | None) -> Verdict:
    """Read all bytes of a model that is here and compare their hash with the published or noted one.

    Raises ModelNotFound where it is not here, UnexpectedFailure where it cannot be read.
    """
    wanted = _wanted(model)
    if isinstance(wanted, InstalledModel):
        blob = _BLOB.fullmatch(wanted.path.name)
        return _verdict(wanted.name, wanted.path, blob[1] if blob else None, "the name that ollama gave it")
    note = _current_note(wanted)
    if note is not None:
        return _verify_note(note, wanted.expected)
    found = look(model)
    if not isinstance(found, InstalledModel):
        raise _not_installed(wanted)
    return _verdict(wanted.name, found.path, wanted.expected, "published")


def verify_all() -> Iterator[Verdict]:
    """`verify` for everything in the store, by name."""
    catalogue = load_catalogue()
    for note in notes_in():
        entry = catalogue.entries.get(note.name)
        yield _verify_note(note, entry.sha256 if entry else None)


@dataclass(frozen=True)
class Removed:
    """`freed` is in bytes; `kept` are files of the model that are not the store's to remove."""

    name: str
    freed: int
    kept: tuple[Path, ...]


def remove(model: str, *, on_event: OnEvent = _ignore) -> Removed:
    """Remove what was installed of a model, unfinished downloads too. Files used in place stay.

    Raises UsageError for a path or another tool's model, ModelNotFound where nothing is installed.
    """
    try:
        wanted = _wanted(model)
    except ModelNotFound:
        noted = next((note for note in notes_in() if note.name == model), None)
        if noted is None:  # an entry may go before its files
            raise
        wanted = _Wanted(noted.name, noted.folder, (), None, None, None)
    if isinstance(wanted, InstalledModel):
        raise UsageError(
            f"{wanted.path} was not installed by infer, so it stays",
            "remove it with the tool that put it there",
        )
    if not wanted.folder.is_dir():
        raise _not_installed(wanted)
    with _held(wanted, on_event):
        note = read_note(wanted.folder / NOTE)
        kept = tuple(path for path in note.paths() if path.parent != wanted.folder) if note else ()
        freed = 0
        found = False
        with local_io(wanted.folder):
            # The lock stays: another process may be waiting for it. The note goes first.
            for path in sorted(wanted.folder.iterdir(), key=lambda path: path.name != NOTE):
                if path.name == _LOCK or path.is_dir():
                    continue
                found = True
                freed += path.stat().st_size
                path.unlink()
    if not found:
        raise _not_installed(wanted)
    return Removed(wanted.name, freed, kept)


def list_installed() -> list[InstalledModel]:
    """What is in the store, by name. Reads no model data; a model whose files are gone is left out."""
    catalogue = load_catalogue()
    return [
        InstalledModel(note.name, note.paths()[0], note.sha256, catalogue.entries.get(note.name))
        for note in notes_in()
    ]


def list_here() -> list[InstalledModel]:
    """As `list_installed`, and the models of the catalogue that would be used where they are."""
    installed = list_installed()
    names = {model.name for model in installed}
    looked = (look(name) for name in load_catalogue().entries if name not in names)
    return [*installed, *(model for model in looked if isinstance(model, InstalledModel))]


def _not_installed(wanted: _Wanted) -> ModelNotFound:
    return ModelNotFound(f"{wanted.name} is not installed", f"`infer models pull {wanted.name}` installs it")


def _verify_note(note: Note, published: str | None) -> Verdict:
    origin = "published" if published else "noted when it was installed"
    return _verdict(note.name, note.paths()[0], published or note.sha256, origin)


def _verdict(name: str, path: Path, expected: str | None, origin: str) -> Verdict:
    with local_io(path):
        digest = compute_sha256(path)
    assert digest is not None  # only a `should_stop` yields None
    return Verdict(name, path, digest, expected, origin)


# --- what is asked for ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """A model with a place in the store. `expected` is its published sha256."""

    name: str
    folder: Path
    sources: tuple[Source, ...]
    entry: ModelEntry | None
    expected: str | None
    size: int | None


def _wanted(model: str | None) -> _Wanted | InstalledModel:
    """What is asked for; a file that is used where it is, is a model already."""
    if model is not None and is_tagged(model):
        load_catalogue().find(model)  # raises: no name has a colon
    if model is not None and has_scheme(model):
        source = parse_source(model)
        return _in_place(source) if isinstance(source, OllamaModel | StudioFile) else _of_source(source)
    if model is not None and (found := named_by_path(model)) is not None:
        return found
    if model is not None and (source_of_name := parse_hub_name(model)) is not None:
        return _of_source(source_of_name)
    catalogue = load_catalogue()
    entry = catalogue.find(catalogue.default if model is None else model)
    return _Wanted(entry.name, models_dir() / entry.name, entry.sources, entry, entry.sha256, entry.size)


def _of_source(source: Source) -> _Wanted:
    mark = sha256_hex(str(source).encode())[:8]
    folder = f"{_SLUG.sub('-', str(source))[:80]}-{mark}"
    return _Wanted(str(source), models_dir() / folder, (source,), None, None, None)


def _in_place(source: OllamaModel | StudioFile) -> InstalledModel:
    files = other_programs.locate(source)
    if files is None:
        tool = "ollama" if isinstance(source, OllamaModel) else "LM Studio"
        raise ModelNotFound(
            f"{tool} has no model {str(source).partition(':')[2]!r} here",
            "`infer models list` shows what it has",
        )
    model = at_path(files[0])
    return model._replace(name=str(source)) if isinstance(source, OllamaModel) else model


# --- what is here ---------------------------------------------------------------------------------


def _write_note(wanted: _Wanted, files: tuple[Path, ...], sha256: str, source: str) -> Note:
    folder = wanted.folder
    note = Note(
        folder,
        wanted.name,
        source,
        sha256,
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tuple(note_file(folder, file) for file in files),
    )
    data = asdict(note)
    del data["folder"]
    with local_io(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / NOTE, [json.dumps(data, indent=2).encode()])
    return note


def _current_note(wanted: _Wanted) -> Note | None:
    """The note of a model whose files are here and are still the ones that its sources name."""
    note = read_note(wanted.folder / NOTE)
    if note is None or (wanted.expected is not None and note.sha256 != wanted.expected):
        return None
    if not all(path.is_file() for path in note.paths()):
        return None
    if (
        note.source.startswith("ollama:") and wanted.expected is None
    ):  # its tag may have moved to another file
        return note if other_programs.locate(parse_ollama(note.source)) == note.paths() else None
    return note


def _installed(wanted: _Wanted) -> InstalledModel | None:
    """The model if it is in the store. Raises ModelInvalid if its files are not what was installed."""
    note = _current_note(wanted)
    if note is None:
        return None
    try:
        if not note.unchanged():
            # Touched or copied: the bytes decide.
            if hash_files(note.paths()) != note.sha256:
                if wanted.expected is None and note.of_the_user:
                    return None
                raise ModelInvalid(
                    f"{note.paths()[0]} has changed since it was installed",
                    f"`infer models pull {wanted.name}` fetches it again",
                )
            _write_note(wanted, note.paths(), note.sha256, note.source)
    except OSError:
        return None
    return _model(wanted, note)


def _model(wanted: _Wanted, note: Note) -> InstalledModel:
    path = note.paths()[0]
    return InstalledModel(wanted.name if wanted.entry else path.stem, path, note.sha256, wanted.entry)


# --- bringing it here -----------------------------------------------------------------------------


def _install(
    wanted: _Wanted, offline: bool, on_fetch: Callable[[FetchNotice], None], on_event: OnEvent
) -> InstalledModel:
    from infer_cli.models.fetch.pull import fetch, find_here

    with _held(wanted, on_event):
        damaged = False
        try:
            if (here := _installed(wanted)) is not None:  # another process was quicker
                return here
        except ModelInvalid:
            damaged = True
        expected = wanted.expected or _recorded(wanted)
        found = find_here(wanted.sources, sha256=expected, on_event=on_event)
        if found is None:
            if offline:
                raise ModelNotFound(
                    f"{wanted.name} is not installed here",
                    f"`infer models pull {wanted.name}` installs it",
                )
            on_fetch(FetchNotice(wanted.name, wanted.size, str(wanted.sources[0])))
            if damaged:
                _remove_files(wanted.folder)
            found = fetch(
                wanted.name,
                wanted.sources,
                wanted.folder,
                sha256=expected,
                size=wanted.size,
                on_event=on_event,
            )
        note = _write_note(wanted, found.files, found.sha256, found.source)
    remember_sha256(found.files[0], found.sha256)
    return _model(wanted, note)


def _recorded(wanted: _Wanted) -> str | None:
    """The hash noted at the first download where none is published: later downloads are held to it."""
    note = read_note(wanted.folder / NOTE)
    if note is None or note.of_the_user or note.source not in map(str, wanted.sources):
        return None
    return note.sha256


def _remove_files(folder: Path) -> None:
    with local_io(folder):
        for path in folder.glob("*.gguf"):
            path.unlink()


@contextlib.contextmanager
def _held(wanted: _Wanted, on_event: Callable[[FetchEvent], None]) -> Iterator[None]:
    """Hold the model's directory against other processes; the system lets go if this one is killed."""
    from filelock import FileLock, Timeout

    with local_io(wanted.folder):
        wanted.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(wanted.folder / _LOCK)
    with local_io(wanted.folder):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_event(Waiting(wanted.name))
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
