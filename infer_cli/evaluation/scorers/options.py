"""A scorer's table, read key by key: whatever is wrong with it is one line that names it."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import TypeVar

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.task import ScorerSpec

T = TypeVar("T")

_SHOWN = 60  # characters of a wrong value


def close_name(name: str, known: Collection[str]) -> str:
    """The hint that names what was meant, else what there is."""
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"


class ScorerOptions:
    """What the table of one scorer says. `place` names the task's file and the table, `score_name` is the key
    of its score. Every method raises UsageError naming place and key."""

    def __init__(self, place: str, spec: ScorerSpec) -> None:
        self.score_name = spec.name
        self._place = place
        self._left = dict(spec.options)
        self._known: list[str] = []

    def flag(self, key: str, default: bool) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"must be true or false, not {_shown(value)}")
        return value

    def text(self, key: str) -> str | None:
        value = self._take(key, None)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, f"must be a string, not {_shown(value)}")
        return value

    def needed_text(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            raise self.missing(key)
        return value

    def one_of(self, key: str, words: Collection[str], default: str) -> str:
        value = self._take(key, default)
        if not isinstance(value, str) or value not in words:
            raise self.wrong(key, f"must be {' or '.join(words)}, not {_shown(value)}")
        return value

    def whole(self, key: str, default: int | None, least: int, most: int) -> int | None:
        value = self._take(key, None)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(key, f"must be a whole number between {least} and {most}, not {_shown(value)}")
        return value

    def number(self, key: str, default: float) -> float:
        """A finite number from 0."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise self.wrong(key, f"must be a number from 0, not {_shown(value)}")
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """An array of strings, at least one."""
        value = self._take(key, None)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
            raise self.wrong(key, f"must be an array of strings, not {_shown(value)}")
        if not value:
            raise self.wrong(key, "is empty")
        return tuple(value)

    def values(self, key: str) -> dict[str, object] | None:
        """A table of anything, at least one."""
        value = self._take(key, None)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, f"must be a table, not {_shown(value)}")
        if value is not None and not value:
            raise self.wrong(key, "is empty")
        return value

    def text_or_values(self, key: str) -> str | dict[str, object] | None:
        return self.text(key) if isinstance(self._left.get(key), str) else self.values(key)

    def end(self) -> None:
        """Refuse the keys that nobody asked for."""
        for key in self._left:
            hint = close_name(key, self._known) if self._known else "it takes none"
            raise UsageError(f"{self._place}: {key} is not an option of this scorer", hint)

    def wrong(self, key: str, what: str, hint: str = "correct it in the task's file") -> UsageError:
        return UsageError(f"{self._place}: {key} {what}", hint)

    def missing(self, key: str) -> UsageError:
        close = get_close_matches(key, self._left, n=1)
        hint = f"is it meant by {close[0]}?" if close else "the scorer needs it"
        return UsageError(f"{self._place}: {key} is missing", hint)

    def _take(self, key: str, default: T) -> object | T:
        self._known.append(key)
        return self._left.pop(key, default)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
