"""A table of a task's file: each key is asked for once, checked, and none may be left."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TypeVar

from infer_cli.errors import UsageError

L = TypeVar("L", bound=str)

_SHOWN = 60  # characters of a wrong value


class Table:
    """The values of one table. `name` as the file writes it (`[data]`, `[[scorer]] 2`), empty for the top of
    the file. Every method raises UsageError naming file, table and key."""

    def __init__(self, file: str, name: str, values: object) -> None:
        self.file, self.name = file, name
        if not isinstance(values, Mapping):
            raise UsageError(f"{file}: {name} is {_kind(values)}, not a table")
        for key in values:
            if not isinstance(key, str):
                raise UsageError(f"{file}: {self._of(repr(key))} is not the name of a key")
        self._values = dict(values)
        self._known: list[str] = []

    def has(self, key: str) -> bool:
        self._known.append(key)
        return key in self._values

    def take(self, key: str) -> object:
        """A value of any kind, None where there is none."""
        self._known.append(key)
        return self._values.pop(key, None)

    def text(self, key: str, *, empty: bool = True) -> str | None:
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong(key, f"must be a string, not {_shown(value)}")
        if not value and not empty:
            raise self.wrong(key, "is empty")
        return value

    def needed_text(self, key: str, hint: str = "") -> str:
        value = self.text(key, empty=False)
        if value is None:
            raise self.missing(key, hint)
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """An array of strings."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
            raise self.wrong(key, f"must be an array of strings, not {_shown(value)}")
        if not value:
            raise self.wrong(key, "is empty")
        return tuple(value)

    def text_or_texts(self, key: str) -> str | tuple[str, ...] | None:
        if isinstance(self._values.get(key), (list, tuple)):
            return self.texts(key)
        return self.text(key, empty=False)

    def whole(self, key: str, default: int, least: int, most: int) -> int:
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(key, f"must be a whole number between {least} and {most}, not {_shown(value)}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, f"must be true or false, not {_shown(value)}")
        return value

    def one_of(self, key: str, words: Collection[L], default: L | None = None) -> L:
        value = self.take(key)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.missing(key, f"it is {_listed(words)}")
        for word in words:
            if word == value:
                return word
        raise self.wrong(key, f"must be {_listed(words)}, not {_shown(value)}")

    def table(self, key: str) -> Table | None:
        value = self.take(key)
        return None if value is None else Table(self.file, f"[{key}]", value)

    def tables(self, key: str) -> list[Table]:
        """An array of tables; empty where there is none."""
        value = self.take(key)
        if value is None:
            return []
        if not isinstance(value, (list, tuple)):
            raise self.wrong(key, f"must be an array of tables, as in [[{key}]], not {_shown(value)}")
        whole = f"{self.name.strip('[]')}.{key}" if self.name else key
        return [Table(self.file, f"[[{whole}]] {i}", each) for i, each in enumerate(value, 1)]

    def rest(self) -> dict[str, object]:
        """All keys that were not asked for: they are somebody else's to check. Values are what JSON has."""
        rest, self._values = self._values, {}
        for key, value in rest.items():
            if not _is_plain(value):
                raise self.wrong(key, f"can't be {_shown(value)}")
        return rest

    def end(self) -> None:
        """No key may be left."""
        for key in self._values:
            known = ", ".join(sorted(set(self._known)))
            raise UsageError(f"{self.file}: {self._of(key)} is no key that there is", f"keys are {known}")

    def wrong(self, key: str, what: str, hint: str = "") -> UsageError:
        return UsageError(f"{self.file}: {self._of(key)} {what}", hint)

    def missing(self, key: str, hint: str = "") -> UsageError:
        return UsageError(f"{self.file}: {self._of(key)} is missing", hint)

    def _of(self, key: str) -> str:
        return f"{self.name} {key}" if self.name else key


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def _listed(words: Collection[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _kind(value: object) -> str:
    kinds: dict[type, str] = {list: "an array", tuple: "an array", str: "a string", bool: "true or false"}
    return kinds.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


def _shown(value: object) -> str:
    if isinstance(value, (str, bool, int, float)):
        text = repr(value) if not isinstance(value, bool) else str(value).lower()
        return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return (
        _kind(value)
        if isinstance(value, (list, tuple))
        else "a table"
        if isinstance(value, Mapping)
        else type(value).__name__
    )
