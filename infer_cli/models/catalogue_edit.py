"""Changes the user's own `models.toml`: adds and removes entries, sets the default. Fetches nothing.

The file is edited as text, so that its comments and layout stay, and written only if it then says exactly
what was meant: the outcome is parsed and compared first.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infer_cli.errors import ModelNotFound, UnexpectedFailure, UsageError
from infer_cli.models.catalogue import check_user_text, is_name, load_catalogue, user_path
from infer_cli.models.sources import LocalFile, parse_source
from infer_cli.settings.config_file import read_settings, toml_text
from infer_cli.settings.toml_file import parse_toml
from infer_cli.system.files import not_a_file, write_atomic

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HEX64 = re.compile(r"[0-9a-f]{64}")
_ENTRY_LINE = re.compile(r"\s*\[\[\s*model\s*\]\]\s*(#.*)?")
_TABLE_LINE = re.compile(r"\s*\[")
_SUBTABLE_LINE = re.compile(r"\s*\[+\s*model\s*\.")
_DEFAULT_LINE = re.compile(r"(\s*default\s*=\s*)(?:\"[^\"]*\"|'[^']*')(.*)")


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
        parsed = LocalFile(parsed.path.absolute())
        if not parsed.path.is_file():
            raise ModelNotFound(not_a_file(parsed.path), "give the path of a .gguf file, or a source (hf:…)")
    entry: dict[str, Any] = {"name": name}
    if aliases:
        entry["aliases"] = list(aliases)
    entry["sources"] = [str(parsed)]
    if sha256 is not None:
        entry["sha256"] = sha256

    load_catalogue()  # a file that is wrong already is named before anything is added
    text = _read()
    if any(table.get("name") == name for table in _tables(text)):
        if not replace:
            raise UsageError(f"{user_path()} has a model {name!r} already", "--replace replaces it")
        text = _without(text, name)
    expected = _parsed(text)
    expected["model"] = [*expected.get("model", []), entry]
    lines = ["[[model]]", *(f"{key} = {toml_text(value)}" for key, value in entry.items())]
    gap = "\n" if text.strip() else ""
    _write(_ended(text) + gap + "\n".join(lines) + "\n", expected)
    return user_path()


def is_own(name: str) -> bool:
    """Whether the user's file has an entry of this name. Raises UsageError where the file is wrong."""
    return name in load_catalogue().own


def remove_entry(name: str) -> None:
    """Remove an entry of the user's file. Raises UsageError where it has none of that name, or where the
    default would then name nothing."""
    check_removable(name)
    text = _without(_read(), name)
    _write(text, _parsed(text))


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
    entry = load_catalogue().find(name)
    text = _read()
    line = f"default = {toml_text(entry.name)}"
    lines = text.splitlines(keepends=True)
    top = next((i for i, each in enumerate(lines) if _TABLE_LINE.match(each)), len(lines))
    for i, each in enumerate(lines[:top]):
        if match := _DEFAULT_LINE.fullmatch(each.rstrip("\r\n")):
            ending = each[len(each.rstrip("\r\n")) :]
            lines[i] = match[1] + toml_text(entry.name) + match[2] + ending
            break
    else:
        gap = "\n" if lines else ""
        lines.insert(0, line + "\n" + gap)
    _write("".join(lines), {**_parsed(text), "default": entry.name})
    return entry.name


# --- the text -------------------------------------------------------------------------------------


def _read() -> str:
    content = read_settings(user_path())
    if content is None:
        return ""
    parse_toml(content, user_path())  # what is wrong is named before anything is changed
    return content.decode()


def _write(text: str, expected: dict[str, Any]) -> None:
    """Replace the file. Raises UsageError unless `text` means `expected` and makes a whole catalogue."""
    if not _means(text, expected):
        raise _not_editable()
    check_user_text(text)
    path = user_path().resolve()  # a link stays a link
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise UnexpectedFailure(f"cannot write {path}: {error.strerror}", "check its permissions") from error


def _without(text: str, name: str) -> str:
    """`text` without the entry `name`: from its [[model]] to its last value. Comments after it stay."""
    tables = _tables(text)
    number = next(i for i, table in enumerate(tables) if table.get("name") == name)
    expected = _parsed(text)
    expected["model"] = [*tables[:number], *tables[number + 1 :]]
    lines = text.splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if _ENTRY_LINE.fullmatch(line.rstrip("\r\n"))]
    if len(starts) != len(tables):
        raise _not_editable()
    start = starts[number]
    end = start + 1
    while end < len(lines) and not (_TABLE_LINE.match(lines[end]) and not _SUBTABLE_LINE.match(lines[end])):
        end += 1
    while lines[end - 1].lstrip()[:1] in ("", "#"):
        end -= 1
    kept = "".join(lines[:start] + lines[end:])
    if not _means(kept, expected):
        raise _not_editable()
    return kept


def _means(text: str, expected: dict[str, Any]) -> bool:
    """Whether `text` says `expected`, no entries being the same as none mentioned."""
    try:
        found = _parsed(text)
    except tomllib.TOMLDecodeError:
        return False
    return {"model": [], **found} == {"model": [], **expected}


def _not_editable() -> UsageError:
    return UsageError(
        f"{user_path()} is laid out in a way that cannot be edited from here", "edit it with a text editor"
    )


def _parsed(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def _tables(text: str) -> list[dict[str, Any]]:
    tables: list[dict[str, Any]] = _parsed(text).get("model", [])
    return tables


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"
