"""A template's work, counted: every render has a finite allowance of it, which sizes are charged to.

Work is counted, never timed: a template fails on every machine or on none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from jinja2.exceptions import SecurityError

# A few seconds of Python at the very slowest; published chat templates need a hundredth of it.
BASE_ALLOWANCE = 2_000_000
# Charging a string costs 1 unit per this many characters (copying is that much cheaper than interpreting) ...
CHARS_PER_UNIT = 16
# ... so 16 units per character of input let a template pass over its input 256 times.
ALLOWANCE_PER_CHAR = 16
# A value of the input (a message, a key, a number) may cost this many evaluated expressions.
ALLOWANCE_PER_VALUE = 2_000
# Widths, precisions, counts given to filters and methods: nobody pads further.
MAX_WIDTH = 10_000
# Integers of a template are positions and dates; arithmetic on longer ones is not linear.
MAX_INT_BITS = 1024
# The output may be this long, and longer by this much for each character and each value of the input: markup
# around messages, and each text some times. What is longer would keep the tokenizer busy, not the template.
BASE_OUTPUT_CHARS = 1_000_000
OUTPUT_CHARS_PER_CHAR = 8
OUTPUT_CHARS_PER_VALUE = 10_000
# Forward searches of CPython compare at most this many characters at a place; backward ones all.
FORWARD_SEARCH = 100

VIEWS: Any = (type({}.keys()), type({}.values()), type({}.items()))
_CONTAINERS: Any = (list, tuple, set, frozenset, *VIEWS)
_SIZED: Any = (str, bytes, dict, range, *_CONTAINERS)
_PRINTF_SIZES = re.compile(r"[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?")
_PARENTHESES = re.compile("[()]")


class TooMuchWork(Exception):
    """The allowance is spent. Not a ValueError or TypeError: Jinja's filters swallow some of those."""


class Work:
    """The allowance of one render."""

    def __init__(self, units: int) -> None:
        self.left = units

    def spend(self, units: int) -> None:
        if not units >= 0:  # a template's own number, NaN included, must not give work back
            raise SecurityError("a size is not a number from 0 up")
        self.left -= units
        if self.left < 0:
            raise TooMuchWork

    def touch(self, value: Any) -> None:
        """Charge one pass over a string or over the top level of a container."""
        if isinstance(value, _SIZED):
            self.spend(1 + len(value) // CHARS_PER_UNIT)
        else:
            if isinstance(value, int):
                check_int(value)
            self.spend(1)

    def walk(self, *values: Any) -> None:
        """Charge a pass over everything inside: what comparing, hashing or printing costs.

        Shared parts count as often as they occur, as they do for `str` and `==`.
        """
        pending: list[Any] = list(values)
        while pending:
            value = pending.pop()
            if isinstance(value, dict):
                self.spend(1 + len(value))
                pending.extend(value.keys())
                pending.extend(value.values())
            elif isinstance(value, _CONTAINERS):
                self.spend(1 + len(value))
                pending.extend(value)
            else:
                self.touch(value)

    def counted(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.spend(4)  # drawing an item runs a filter, a test or an attribute look-up
            yield item

    def join(self, parts: Iterable[str]) -> str:
        kept: list[str] = []
        for part in parts:
            self.spend(1 + len(part) // CHARS_PER_UNIT)
            kept.append(part)
        return "".join(kept)

    def search(self, text: str, wanted: object, most: int = FORWARD_SEARCH) -> None:
        """Charge looking through `text`, at each place up to `most` characters of `wanted`."""
        size = min(len(wanted), most) if isinstance(wanted, str) else 1
        self.spend((1 + len(text) // CHARS_PER_UNIT) * (1 + size // CHARS_PER_UNIT))

    def received(self, value: Any) -> Any:
        """Charge a result; a generator is charged as it is drawn from."""
        if isinstance(value, Iterator):
            return self.counted(value)
        if isinstance(value, list):
            self.spend(len(value))  # its items were made too
        self.touch(value)
        return value


current_work: ContextVar[Work] = ContextVar("current_work")


class Size(NamedTuple):
    """How large an input is: values of every kind, keys included, and the characters of its strings."""

    n_values: int
    n_chars: int

    @property
    def allowance(self) -> int:
        """Units of work for a render over it."""
        return BASE_ALLOWANCE + ALLOWANCE_PER_VALUE * self.n_values + ALLOWANCE_PER_CHAR * self.n_chars

    @property
    def most_output(self) -> int:
        """Characters that a render over it may write."""
        return (
            BASE_OUTPUT_CHARS + OUTPUT_CHARS_PER_VALUE * self.n_values + OUTPUT_CHARS_PER_CHAR * self.n_chars
        )


def size_of(values: object) -> Size:
    """The size of an input of strings, numbers, lists and dicts with str keys."""
    n_values = n_chars = 0
    pending = [values]
    while pending:
        value = pending.pop()
        n_values += 1
        if isinstance(value, str):
            n_chars += len(value)
        elif isinstance(value, Mapping):
            pending.extend(value.keys())
            pending.extend(value.values())
        elif isinstance(value, (list, tuple)):
            pending.extend(value)
    return Size(n_values, n_chars)


def check_int(value: int) -> None:
    if value.bit_length() > MAX_INT_BITS:
        raise SecurityError(f"an integer of over {MAX_INT_BITS} bits")


def check_width(value: object) -> None:
    if isinstance(value, int) and abs(value) > MAX_WIDTH:
        raise SecurityError(
            f"the number {_short(value)} is too large for a filter or method (most: {MAX_WIDTH})"
        )


def without_generator(value: Any) -> Any:
    """The value, or what a generator gives, so that it can be charged before it is used."""
    return list(value) if isinstance(value, Iterator) else value


def _short(value: int) -> str:
    return str(value) if value.bit_length() <= 64 else f"of {value.bit_length()} bits"


def charge_replace(text: str, old: str, new: str, count: int | None = None) -> None:
    current_work.get().search(text, old)
    hits = text.count(old)
    if count is not None and count >= 0:
        hits = min(hits, count)
    current_work.get().spend(hits * (1 + len(new)) // CHARS_PER_UNIT)


def charge_strip(text: str, chars: str | None = None) -> None:
    if chars:
        current_work.get().spend((1 + len(text) // CHARS_PER_UNIT) * (1 + len(chars) // CHARS_PER_UNIT))


def charge_printf(text: str, values: object) -> None:
    """Charge `text % values`: each conversion may print all of `values`."""
    work = current_work.get()
    before = work.left
    work.walk(values)
    cost = before - work.left
    position = text.find("%")
    while position >= 0:
        start = _after_key(text, position + 1)
        sizes = _PRINTF_SIZES.match(text, start)
        assert sizes is not None  # it matches nothing, too
        chars = 0
        for digits in sizes.groups():
            if digits == "*":
                raise SecurityError("a width of '*' is not allowed in a format")
            if digits:
                size = int(digits.lstrip("0")[:9] or 0)
                check_width(size)
                chars += size
        work.spend(cost + chars // CHARS_PER_UNIT)
        # Past the kind of the conversion, so that the second half of `%%` does not begin another.
        position = text.find("%", sizes.end() + 1)


def _after_key(text: str, start: int) -> int:
    """Where the `(key)` of a conversion ends; parentheses nest in it, as in Python."""
    if not text.startswith("(", start):
        return start
    depth = 0
    for match in _PARENTHESES.finditer(text, start):
        depth += 1 if match.group() == "(" else -1
        if depth == 0:
            return match.end()
    return len(text)  # Python refuses it
