"""Changes the user's own `models.toml`: adds and removes entries, sets the default. Fetches nothing.

What is not changed stays as it was written, comments and layout included. A file is written only if it then
makes a whole catalogue.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_cli.errors import ModelNotFound, UnexpectedFailure, UsageError
from infer_cli.models.catalogue import check_user_text, is_name, load_catalogue, user_path
from infer_cli.models.sources import LocalFile, parse_hub_name, parse_source
from infer_cli.settings.config_file import read_settings
from infer_cli.system.files import not_a_file, write_atomic

if TYPE_CHECKING:
    from tomlkit.items import Table

_HEX64 = re.compile(r"[0-9a-f]{64}")


def add_entry(
    name: str, source: str, *, aliases: Sequence[str] = (), sha256: str | None = None, replace: bool = False
) -> Path:
    """Add an entry to the user's file and return the file's path.

    A relative path as `source` counts from the working directory. Raises UsageError for a bad name, source
    or hash and, without `replace`, where the file has an entry of that name; ModelNotFound for a path that is
    not there.
    """
    for text in (name, *aliases):
        if not is_name(text):
            raise UsageError(f"{text!r} cannot name a model", "a name has only a-z, 0-9, '.', '_' and '-'")
    if sha256 is not None and not _HEX64.fullmatch(sha256):
        raise UsageError(f"sha256 {sha256!r} is not 64 lower-case hex digits")
    parsed = parse_source(source)
    if isinstance(parsed, LocalFile):
        of_hub = None if os.path.lexists(source) else parse_hub_name(source)
        parsed = of_hub or LocalFile(parsed.path.absolute())
    if isinstance(parsed, LocalFile) and not parsed.path.is_file():
        raise ModelNotFound(not_a_file(parsed.path), "give the path of a .gguf file, or a source (hf:…)")
    entry: dict[str, Any] = {"name": name}
    if aliases:
        entry["aliases"] = list(aliases)
    entry["sources"] = [str(parsed)]
    if sha256 is not None:
        entry["sha256"] = sha256

    own = load_catalogue().own  # a file that is wrong already is named before anything is added
    text = _read()
    if name in own:
        if not replace:
            raise UsageError(f"{user_path()} has a model {name!r} already", "--replace replaces it")
        text = _without(text, name)
    _write(_with(text, entry))
    return user_path()


def is_own(name: str) -> bool:
    """Whether the user's file has an entry of this name. Raises UsageError where the file is wrong."""
    return name in load_catalogue().own


def remove_entry(name: str) -> None:
    """Remove an entry of the user's file. Raises UsageError where it has none of that name, or where the
    default would then name nothing."""
    check_removable(name)
    _write(_without(_read(), name))


def check_removable(name: str) -> None:
    """Raise UsageError where `remove_entry` would."""
    if not is_own(name):
        raise UsageError(
            f"{name!r} is no entry of {user_path()}", "only entries of your own models.toml can be removed"
        )
    try:
        check_user_text(_without(_read(), name))
    except UsageError as error:
        raise UsageError(
            f"{name!r} cannot be removed from {user_path()}: {error.message}",
            "`infer models default NAME` sets another default",
        ) from None


def set_default(name: str) -> str:
    """Make `name` (or what it is an alias of) the default; returns the entry's name.

    Raises ModelNotFound for a name that the catalogue does not have.
    """
    import tomlkit

    entry = load_catalogue().find(name)
    text = _read()
    document = tomlkit.parse(text)
    if "default" in document:
        document["default"] = entry.name
        _write(tomlkit.dumps(document))
    else:
        _write(tomlkit.dumps({"default": entry.name}) + ("\n" + text if text else ""))
    return entry.name


# --- the text -------------------------------------------------------------------------------------


def _read() -> str:
    """The user's file, which has been read as a catalogue already."""
    content = read_settings(user_path())
    return "" if content is None else content.decode()


def _write(text: str) -> None:
    """Replace the file. Raises UsageError where the catalogue would then be wrong."""
    check_user_text(text)
    path = user_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, [text.encode()])
    except OSError as error:
        raise UnexpectedFailure(f"cannot write {path}: {error.strerror}", "check its permissions") from error


def _with(text: str, entry: dict[str, Any]) -> str:
    """`text` and a new last entry."""
    import tomlkit
    from tomlkit.items import Array

    document = tomlkit.parse(text)
    if isinstance(entries := document.get("model"), Array):  # model = [{ name = … }]
        table = tomlkit.inline_table()
        table.update(entry)
        entries.append(table)
        return tomlkit.dumps(document)
    ended = text if not text or text.endswith("\n") else text + "\n"
    return ended + ("\n" if text.strip() else "") + tomlkit.dumps({"model": [entry]})


def _without(text: str, name: str) -> str:
    """`text` without the entry `name`. Comments between it and the next one stay."""
    import tomlkit
    from tomlkit.items import Array

    document = tomlkit.parse(text)
    entries = document["model"]
    number = next(i for i, entry in enumerate(entries) if entry["name"] == name)
    if isinstance(entries, Array):
        del entries[number]
        return tomlkit.dumps(document)
    rest = _comments_after(entries[number])
    if number + 1 < len(entries):
        trivia = entries[number + 1].trivia
        trivia.indent = rest + trivia.indent
        rest = ""
    del entries[number]
    if not entries:
        del document["model"]
    return tomlkit.dumps(document) + rest  # nothing can follow the last [[model]] but its own values


def _comments_after(table: Table) -> str:
    """Comments and empty lines after the last value of an entry, which tomlkit counts as the entry's own."""
    from tomlkit.items import Comment, Table, Whitespace

    body = table.value.body
    while body and isinstance(body[-1][1], Table):
        body = body[-1][1].value.body
    start = len(body)
    while start and isinstance(body[start - 1][1], (Comment, Whitespace)):
        start -= 1
    return "".join(item.as_string() for _, item in body[start:])
