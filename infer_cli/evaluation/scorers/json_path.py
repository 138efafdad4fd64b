"""JSON paths (RFC 9535) of tasks, of those forms whose work grows with the value and not faster."""

from __future__ import annotations

from collections.abc import Iterator

from jsonpath_rfc9535 import JSONPathEnvironment
from jsonpath_rfc9535.exceptions import JSONPathError, JSONPathNameError
from jsonpath_rfc9535.filter_expressions import (
    ComparisonExpression,
    Expression,
    FilterExpression,
    FilterQuery,
    FunctionExtension,
    LogicalExpression,
    PrefixExpression,
    RootFilterQuery,
)
from jsonpath_rfc9535.query import JSONPathQuery
from jsonpath_rfc9535.segments import JSONPathRecursiveDescentSegment
from jsonpath_rfc9535.selectors import FilterSelector, IndexSelector, NameSelector

MOST_CHARACTERS = 1_000
_NOTHING = object()


class PathError(ValueError):
    """A path that can't be used. The message says why."""


class JsonPath:
    """A path, compiled once. Raises PathError if it can't be.

    Not allowed is what multiplies the work: `..` twice, several selectors in one pair of brackets, and in a
    filter anything but names and places below `@`. `match` and `search` are not: their patterns backtrack.
    """

    def __init__(self, path: str) -> None:
        if len(path) > MOST_CHARACTERS:
            raise PathError(f"has more than {MOST_CHARACTERS} characters")
        environment = JSONPathEnvironment()
        del environment.function_extensions["match"], environment.function_extensions["search"]
        try:
            self._query = environment.compile(path)
        except JSONPathNameError as e:
            raise PathError(f"uses a function that is not allowed: {e}") from None
        except (JSONPathError, ValueError, RecursionError) as e:
            raise PathError(f"is not a JSON path: {e}") from None
        _refuse_costly(self._query)
        self._steps = _steps(self._query)

    def values(self, value: object) -> Iterator[object]:
        """What the path leads to, in its order. `value` is nested less than 100 deep."""
        if self._steps is None:
            yield from (node.value for node in self._query.finditer(value))  # type: ignore[arg-type]
            return
        for step in self._steps:
            if isinstance(value, dict):
                value = value.get(step, _NOTHING)
            elif isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value):
                value = value[step]
            else:
                return
            if value is _NOTHING:
                return
        yield value


def _steps(query: JSONPathQuery) -> list[str | int] | None:
    """Names and places of a path that has nothing else. To follow them is faster than the library."""
    steps: list[str | int] = []
    for segment in query.segments:
        selector = segment.selectors[0]
        if isinstance(segment, JSONPathRecursiveDescentSegment):
            return None
        if isinstance(selector, NameSelector):
            steps.append(selector.name)
        elif isinstance(selector, IndexSelector):
            steps.append(selector.index)
        else:
            return None
    return steps


def _refuse_costly(query: JSONPathQuery) -> None:
    if sum(isinstance(segment, JSONPathRecursiveDescentSegment) for segment in query.segments) > 1:
        raise PathError("has .. more than once")
    for segment in query.segments:
        if len(segment.selectors) > 1:
            raise PathError("has several selectors in one pair of brackets")
        for selector in segment.selectors:
            if isinstance(selector, FilterSelector):
                _refuse_costly_filter(selector.expression)


def _refuse_costly_filter(expression: Expression) -> None:
    if isinstance(expression, RootFilterQuery):
        raise PathError("has $ in a filter")
    if isinstance(expression, FilterQuery) and not expression.query.singular_query():
        raise PathError("has more than names and places in a filter")
    for part in _parts(expression):
        _refuse_costly_filter(part)


def _parts(expression: Expression) -> list[Expression]:
    if isinstance(expression, FilterExpression):
        return [expression.expression]
    if isinstance(expression, PrefixExpression):
        return [expression.right]
    if isinstance(expression, (LogicalExpression, ComparisonExpression)):
        return [expression.left, expression.right]
    return list(expression.args) if isinstance(expression, FunctionExtension) else []
