"""The values of a command line, read by name as the checks of each command want them. Knows no command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from infer_cli.errors import UsageError
from infer_cli.settings.durations import parse_duration
from infer_cli.settings.origins import Given, Setting

T = TypeVar("T")
Word = TypeVar("Word", bound=str)


def check_between(n: int, least: int, most: int, origin: str) -> int:
    """Raises UsageError for a number that is out of its bounds."""
    if not least <= n <= most:
        raise UsageError(f"{origin} {n} is not between {least} and {most}")
    return n


def variables_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """`--var KEY=VALUE` arguments. Raises UsageError."""
    variables = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--var {pair!r} is not KEY=VALUE")
        variables[name] = value
    return variables


class Values:
    """What the user gave, in the types that the command's signature says.

    Checks raise UsageError, naming the flag, variable or setting that is wrong.
    """

    def __init__(self, given: Mapping[str, Given]) -> None:
        self._given = given

    def given(self, name: str) -> Given | None:
        return self._given.get(name)

    def is_set(self, name: str) -> bool:
        """It was given, and is neither false nor empty."""
        return name in self._given and bool(self._given[name].value)

    def origin(self, name: str, otherwise: str = "default") -> str:
        return self._given[name].origin if name in self._given else otherwise

    def by_flag(self) -> frozenset[str]:
        """Names of the parameters that were given by flag."""
        return frozenset(name for name, given in self._given.items() if given.by_flag)

    def text(self, name: str) -> str | None:
        """None where it was not given, as of all that follow."""
        return self._typed(name, str)

    def argument(self, name: str) -> str:
        """One that the command is not called without."""
        text = self.text(name)
        if text is None:
            raise KeyError(name)
        return text

    def texts(self, name: str) -> tuple[str, ...]:
        """Empty where it was not given."""
        return self._typed(name, tuple) or ()

    def whole(self, name: str) -> int | None:
        return self._typed(name, int)

    def number(self, name: str, least: int, most: int) -> int | None:
        n = self.whole(name)
        return None if n is None else check_between(n, least, most, self.origin(name))

    def truth(self, name: str) -> bool | None:
        return self._typed(name, bool)

    def real(self, name: str) -> float | None:
        return self._typed(name, float)

    def one_of(self, name: str, known: Sequence[Word]) -> Word | None:
        value = self.text(name)
        if value is None:
            return None
        for word in known:
            if word == value:
                return word
        raise UsageError(f"{self.origin(name)} {value!r} is not {', '.join(known[:-1])} or {known[-1]}")

    def seconds(self, name: str) -> float | None:
        text = self.text(name)
        return None if text is None else parse_duration(text, self.origin(name))

    def exclude(self, pairs: Iterable[tuple[str, str]]) -> None:
        """None of these pairs may be given together."""
        for one, other in pairs:
            if self.is_set(one) and self.is_set(other):
                raise UsageError(f"{self.origin(one)} and {self.origin(other)} exclude each other")

    def setting(self, name: str, used: object) -> Setting:
        """The value in use, and where it came from."""
        return Setting(name, used, self.origin(name))

    def _typed(self, name: str, kind: type[T]) -> T | None:
        value = self._given[name].value if name in self._given else None
        if value is None or isinstance(value, kind):
            return value
        raise TypeError(f"{name} is {value!r}: the signature says otherwise")
