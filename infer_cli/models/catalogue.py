"""The catalogue of models: the shipped `models.toml` merged with the user's own. Knows no files of models.

The user's file has the same form; its entries replace shipped ones of the same name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from infer_cli.errors import ModelNotFound, UsageError
from infer_cli.models.sources import LocalFile, Source, parse_source
from infer_cli.settings.config_file import read_settings
from infer_cli.settings.toml_file import parse_toml
from infer_cli.system.paths import config_dir
from infer_cli.types import SamplingParams

_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_SAMPLING_TYPES: dict[str, type] = {f.name: type(f.default) for f in fields(SamplingParams)}


@dataclass(frozen=True)
class ModelEntry:
    """One model of the catalogue.

    `sources` are in order of preference and hold the same bytes. `sha256` (hex) is of the whole file, parts
    of a split GGUF in order; None where none is published. `size` is in bytes and may be rounded. `context`
    is in tokens, `cache` in bytes of keys and values for each of them. `sampling` holds recommended values,
    keyed and typed as the fields of `SamplingParams`. `suggested`: in place of the default, where it fits.
    """

    name: str
    sources: tuple[Source, ...]
    aliases: tuple[str, ...] = ()
    sha256: str | None = None
    size: int | None = None
    licence: str | None = None
    context: int | None = None
    sampling: Mapping[str, Any] | None = None
    notes: str | None = None
    purpose: str | None = None
    cache: int | None = None
    suggested: bool = False

    def memory(self, window: int) -> int | None:
        """Bytes of the weights and of the keys and values of so many tokens, about; None where these are not
        known, or the model was trained for fewer."""
        if self.size is None or self.cache is None or (self.context or window) < window:
            return None
        return self.size + self.cache * window


@dataclass(frozen=True)
class Catalogue:
    """All known entries by name, and the name of the default one."""

    entries: Mapping[str, ModelEntry]
    names: Mapping[str, str]  # every name and alias -> name
    default: str
    own: frozenset[str] = frozenset()  # names of the entries in the user's file

    def find(self, name: str) -> ModelEntry:
        """The entry of a name or an alias. Raises ModelNotFound, which names close matches."""
        found = self.get(name)
        if found is None:
            from difflib import get_close_matches

            close = self.of_family(name)[:3] or get_close_matches(name.lower(), self.names, n=3)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise ModelNotFound(
                f"no model named {name!r}",
                hint + "`infer models list` shows the names; a path or a source (hf:…, https:…) works too",
            )
        return found

    def of_family(self, word: str) -> list[str]:
        """What `-m` takes for entries that a word such as `llama3` or `smollm2:135m` stands for, the smallest
        first, but `qwen3-…` before `qwen3.5-…`.

        Of an entry it is the shortest of its name and aliases that begins with the word, punctuation aside.
        """
        beginning = _letters(word)
        begin: dict[str, str] = {}
        for name, entry in sorted(self.names.items(), key=lambda pair: len(pair[0])):
            if beginning and _letters(name).startswith(beginning):
                begin.setdefault(entry, name)
        ends_there = f"{word.lower()}-"
        order = sorted(
            begin.items(),
            key=lambda pair: (not pair[1].startswith(ends_there), self.entries[pair[0]].size or math.inf),
        )
        return [name for _, name in order]

    def get(self, name: str) -> ModelEntry | None:
        key = self.names.get(name.lower())
        return self.entries[key] if key else None


def shipped_path() -> Path:
    """The catalogue that came with this package: inside it in a wheel, above it in a source checkout."""
    here = Path(__file__).resolve().parents[1]
    inside = here / "models.toml"
    return inside if inside.is_file() else here.parent / "models.toml"


def user_path() -> Path:
    return config_dir() / "models.toml"


def load_catalogue() -> Catalogue:
    """Read both files. Raises UsageError naming file, table and key of the first thing that is wrong."""
    content = read_settings(user_path())
    return _merged(_File(user_path(), {}, None) if content is None else _parse(user_path(), content))


def check_user_text(text: str) -> Catalogue:
    """The catalogue with `text` as the user's file. Raises UsageError as `load_catalogue`."""
    return _merged(_parse(user_path(), text.encode()))


def _letters(name: str) -> str:
    """Without what one spelling of a name has and another has not."""
    return "".join(c for c in name.lower() if c.isalnum())


def is_name(text: str) -> bool:
    """Whether `text` may name an entry: never mistaken for a path or a source."""
    plain = bool(text) and _NAME_CHARS.issuperset(text)
    return plain and text[0] not in ".-" and not text.endswith(".gguf")


def _merged(user: _File) -> Catalogue:
    shipped = _parse(shipped_path(), shipped_path().read_bytes())
    entries = {**shipped.entries, **user.entries}
    names: dict[str, str] = {}
    for source in (shipped, user):  # the user's aliases win
        for entry in source.entries.values():
            if entries[entry.name] is entry:
                names.update(dict.fromkeys(entry.aliases, entry.name))
    names.update({name: name for name in entries})
    default, where = (user.default, user.path) if user.default else (shipped.default, shipped.path)
    if default is None or default.lower() not in names:
        raise UsageError(
            f"{where}: default names no model of the catalogue: {default!r}",
            "name an entry, or an alias of one",
        )
    return Catalogue(entries, names, names[default.lower()], frozenset(user.entries))


@dataclass(frozen=True)
class _File:
    path: Path
    entries: dict[str, ModelEntry]
    default: str | None


def _parse(path: Path, content: bytes) -> _File:
    top = _Table(path, "top level", parse_toml(content, path))
    default = top.take("default", str)
    tables = top.take("model", list) or []
    top.done()
    entries: dict[str, ModelEntry] = {}
    owner: dict[str, str] = {}
    for number, table in enumerate(tables, 1):
        if not isinstance(table, dict):
            raise UsageError(
                f"{path}: model number {number} is not a table", "write [[model]] above each entry"
            )
        entry = _entry(path, number, table)
        for name in (entry.name, *entry.aliases):
            if name in owner:
                raise UsageError(f"{path}: {name!r} is the name of both {owner[name]!r} and {entry.name!r}")
            owner[name] = entry.name
        entries[entry.name] = entry
    return _File(path, entries, default)


class _Table:
    """One TOML table; keys are taken by name and type, and what is left over is an error."""

    def __init__(self, path: Path, name: str, data: dict[str, Any]) -> None:
        self.path = path
        self.name = name
        self.data = dict(data)

    def take(self, key: str, kind: type) -> Any:
        value = self.data.pop(key, None)
        if value is None or _is(value, kind):
            return value
        raise self.error(key, f"must be {_KIND_NAMES[kind]}, not {value!r}")

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.take(key, list) or []
        if not all(isinstance(value, str) for value in values):
            raise self.error(key, "must be an array of strings")
        return tuple(values)

    def only(self, known: Collection[str]) -> None:
        """Refuse any other key."""
        for key in self.data:
            if key not in known:  # said first: what is misspelt would seem to be missing
                from difflib import get_close_matches

                close = get_close_matches(key, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise self.error(key, f"is not a key that is known here{hint}")

    def done(self) -> None:
        self.only(())

    def error(self, key: str, what: str) -> UsageError:
        return UsageError(f"{self.path}: {self.name}: {key} {what}", "correct or remove it")


_KIND_NAMES: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    list: "an array",
    dict: "a table",
    bool: "true or false",
}


def _is(value: object, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:  # TOML's booleans are Python ints
        return isinstance(value, bool) and kind is bool
    if isinstance(value, float) and not math.isfinite(value):  # TOML has them
        return False
    if isinstance(value, int) and abs(value) >= 2**63:  # nothing here has as many bytes or tokens
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _entry(path: Path, number: int, data: dict[str, Any]) -> ModelEntry:
    table = _Table(path, f"model number {number}", data)
    name = table.take("name", str)
    if not name:
        raise table.error("name", "is missing")
    table.name = f"model {name!r}"
    table.only([field.name for field in fields(ModelEntry)])
    aliases = table.texts("aliases")
    for text in (name, *aliases):
        if not is_name(text):
            raise table.error(
                "name" if text is name else "aliases",
                f"{text!r}: only a-z, 0-9, '.', '_' and '-' are allowed",
            )
    sources = tuple(_source(table, text) for text in table.texts("sources"))
    if not sources:
        raise table.error("sources", "is missing or empty")
    sha256 = table.take("sha256", str)
    if sha256 is not None and not (len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")):
        raise table.error("sha256", "must be 64 lower-case hex digits")
    entry = ModelEntry(
        name=name,
        sources=sources,
        aliases=aliases,
        sha256=sha256,
        size=_positive(table, "size"),
        licence=table.take("licence", str),
        context=_positive(table, "context"),
        sampling=_sampling(path, name, table.take("sampling", dict)),
        notes=table.take("notes", str),
        purpose=table.take("purpose", str),
        cache=_positive(table, "cache"),
        suggested=bool(table.take("suggested", bool)),
    )
    return entry


def _source(table: _Table, text: str) -> Source:
    try:
        source = parse_source(text)
    except UsageError as error:
        raise UsageError(f"{table.path}: {table.name}: sources: {error.message}", error.hint) from None
    if isinstance(source, LocalFile):  # relative to the file that names it
        return LocalFile(table.path.parent / source.path)
    return source


def _positive(table: _Table, key: str) -> int | None:
    value: int | None = table.take(key, int)
    if value is not None and value <= 0:
        raise table.error(key, f"must be above 0, not {value}")
    return value


def _sampling(path: Path, name: str, data: dict[str, Any] | None) -> Mapping[str, Any] | None:
    if data is None:
        return None
    table = _Table(path, f"model {name!r}, sampling", data)
    table.only(_SAMPLING_TYPES)
    values = {key: table.take(key, kind) for key, kind in _SAMPLING_TYPES.items()}
    return {key: value for key, value in values.items() if value is not None}
