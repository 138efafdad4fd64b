"""JSON in a reply: the reply itself, or values that stand in it, in a block of code or in a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import NoReturn

MOST_DEPTH = 64  # arrays and objects in one another
MOST_DIGITS = 400  # of a number, and of its exponent's value

# A string, closed or not; JSON has none over two lines.
_MARK = re.compile(r'"(?:[^"\\\n]|\\.)*"?|[][{}]')
_BRACKET = re.compile(r"[][{}]")
_WHITE_SPACE = " \t\r\n"
_BEGINNINGS = frozenset('{["-0123456789tfn')  # of JSON
_CLOSES = {"}": "{", "]": "["}


class NotJson(ValueError):
    """A text is not JSON. The message says why."""


def parse_json(text: str) -> object:
    """The value of a text that is JSON and nothing else; numbers are Decimal, as they are written.

    Raises NotJson, for NaN, infinities, numbers of more than `MOST_DIGITS` and what is nested more than
    `MOST_DEPTH` deep too.
    """
    if text.count("[") + text.count("{") > MOST_DEPTH and _depth(text) > MOST_DEPTH:
        raise NotJson("it is nested too deeply")
    try:
        return json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_refuse)
    except ValueError as e:
        raise NotJson(str(e)) from None


def json_values(text: str) -> Iterator[object]:
    """The text as JSON where it is; else the outermost objects and arrays in it, in their order."""
    if text.lstrip(_WHITE_SPACE)[:1] in _BEGINNINGS:
        try:
            yield parse_json(text)
            return
        except NotJson:
            pass
    for start, end in _outermost(text):
        try:
            value = parse_json(text[start:end])
        except NotJson:
            continue
        yield value


def json_as_text(value: object) -> str:
    """A string is itself; anything else is JSON in its shortest form, numbers as they were written."""
    return value if isinstance(value, str) else "".join(_written(value))


def _written(value: object) -> Iterator[str]:
    if isinstance(value, Decimal):
        yield str(value)
    elif isinstance(value, dict):
        yield "{"
        for n, (key, each) in enumerate(value.items()):
            yield f"{',' if n else ''}{json.dumps(key, ensure_ascii=False)}:"
            yield from _written(each)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for n, each in enumerate(value):
            if n:
                yield ","
            yield from _written(each)
        yield "]"
    else:
        yield json.dumps(value, ensure_ascii=False)


def _number(text: str) -> Decimal:
    # What follows would take memory by the number's size, not by its text's.
    if len(text) > MOST_DIGITS or len(text.lower().partition("e")[2]) > 5:
        raise NotJson("it has a number of too many digits")
    number = Decimal(text)
    if abs(number.adjusted()) > MOST_DIGITS:
        raise NotJson("it has a number of too many digits")
    return number


def _refuse(constant: str) -> NoReturn:
    raise NotJson(f"{constant} is not JSON")


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in _MARK.finditer(text):
        if mark[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark[0] in "]}":
            depth -= 1
    return deepest


def _outermost(text: str) -> list[tuple[int, int]]:
    """Where brackets that belong together begin and end, without those that are within others.

    A bracket that nothing closes does not hide what follows it. One that is closed by another kind of
    bracket ends whatever was open.
    """
    open_at: list[int] = []
    pairs: list[tuple[int, int]] = []
    place = 0
    while mark := (_MARK if open_at else _BRACKET).search(text, place):
        place = mark.end()
        if mark[0] in "[{":
            open_at.append(mark.start())
        elif mark[0] in "]}":
            if open_at and text[open_at[-1]] == _CLOSES[mark[0]]:
                start = open_at.pop()
                while pairs and pairs[-1][0] > start:
                    pairs.pop()
                pairs.append((start, place))
            else:
                open_at.clear()
    return pairs
