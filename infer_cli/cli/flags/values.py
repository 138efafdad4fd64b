"""The values of a command line, read by name as the checks of each command want them. Knows no command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from infer_cli.errors import UsageError
from infer_cli.settings.durations import parse_duration
from infer_cli.settings.origins import Given, Setting


class Values:
    """What the user gave. Checks raise UsageError, naming the flag, variable or setting that is wrong."""

    def __init__(self, given: Mapping[str, Given]) -> None:
        self._given = given

    def get(self, name: str) -> object:
        """None where it was not given."""
        return self._given[name].value if name in self._given else None

    def origin(self, name: str, otherwise: str = "default") -> str:
        return self._given[name].origin if name in self._given else otherwise

    def text(self, name: str) -> str | None:
        value = self.get(name)
        return None if value is None else str(value)

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(str(value) for value in cast("list[object]", self.get(name) or []))

    def number(self, name: str, least: int, most: int) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        n = int(str(value))
        if not least <= n <= most:
            raise UsageError(f"{self.origin(name)} {n} is not between {least} and {most}")
        return n

    def one_of(self, name: str, *known: str) -> str | None:
        value = self.get(name)
        if value is not None and value not in known:
            listed = f"{', '.join(known[:-1])} or {known[-1]}"
            raise UsageError(f"{self.origin(name)} {value!r} is not {listed}")
        return value

    def seconds(self, name: str) -> float | None:
        text = self.text(name)
        return None if text is None else parse_duration(text, self.origin(name))

    def stop(self) -> tuple[str, ...]:
        """The stop strings."""
        stop = self.texts("stop")
        if "" in stop:
            raise UsageError("--stop: a stop string is empty")
        return stop

    def exclude(self, pairs: Iterable[tuple[str, str]]) -> None:
        """None of these pairs may be given together."""
        for one, other in pairs:
            if self.get(one) and self.get(other):
                raise UsageError(f"{self.origin(one)} and {self.origin(other)} exclude each other")

    def setting(self, name: str, used: object) -> Setting:
        """The value in use, and where it came from."""
        return Setting(name, used, self.origin(name))
