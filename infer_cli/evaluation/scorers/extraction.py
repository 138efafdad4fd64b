"""What is looked for in a reply: the answer within its text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from infer_cli.errors import UsageError
from infer_cli.evaluation.scorers.last import last_of
from infer_cli.evaluation.scorers.options import close_name
from infer_cli.evaluation.tasks.task import Extraction

T = TypeVar("T")
Find = Callable[[str], str | None]


class Extractor:
    """A task's extractions, tried in their order; without any, the whole reply.

    Raises UsageError that names `path` (the task's file), table and key of what can't be used. `table` is
    theirs, where they have none of their own.
    """

    def __init__(self, extractions: Iterable[Extraction], path: str = "", table: str = "") -> None:
        where = f"{path}: " if path else ""
        self._finders = [
            _finder(extraction, where + (table or f"[[extraction]] {n}"))
            for n, extraction in enumerate(extractions or (Extraction(),), start=1)
        ]

    def find(self, text: str) -> str | None:
        """The answer without white space around it. None: nothing was found; no text raises."""
        for find in self._finders:
            found = find(text)
            if found is not None:
                return found.strip()
        return None


def _finder(extraction: Extraction, place: str) -> Find:
    make = _MAKERS.get(extraction.kind)
    if make is None:
        raise UsageError(
            f"{place} kind is {extraction.kind!r}, which is none", close_name(extraction.kind, _MAKERS)
        )
    return make(extraction, place)


def _whole(extraction: Extraction, place: str) -> Find:
    return str.strip


def _regex(extraction: Extraction, place: str) -> Find:
    from infer_cli.evaluation.scorers.linear_regex import (
        PATTERN_HINT,
        LinearPattern,
        PatternError,
        TextTooLong,
    )

    if extraction.pattern is None:
        raise _missing(place, "pattern", 'the regular expression, such as "#### (.+)"')
    try:
        pattern = LinearPattern(extraction.pattern)
    except PatternError as e:
        raise UsageError(f"{place} pattern {e}", PATTERN_HINT) from None
    # Without a group, what the whole pattern matches.
    group = extraction.group if pattern.n_groups else 0
    if not 0 <= group <= pattern.n_groups:
        raise UsageError(
            f"{place} group is {extraction.group}, and the pattern has {pattern.n_groups}",
            "give a group that it has, or 0 for all that it matches",
        )

    def find(text: str) -> str | None:
        try:
            return _end_of(pattern.matches(text, group), extraction.first)
        except TextTooLong:
            return None

    return find


def _last_number(extraction: Extraction, place: str) -> Find:
    from infer_cli.evaluation.scorers.numbers import first_number, last_number

    return first_number if extraction.first else last_number


def _json_path(extraction: Extraction, place: str) -> Find:
    from infer_cli.evaluation.scorers.json_answers import json_as_text, json_values
    from infer_cli.evaluation.scorers.json_path import JsonPath, PathError

    if extraction.path is None:
        raise _missing(place, "path", 'the JSON path, such as "$.answer"')
    try:
        path = JsonPath(extraction.path)
    except PathError as e:
        raise UsageError(f"{place} path {e}", "write a simpler path, such as $.answer") from None

    def find(text: str) -> str | None:
        nodes = ((node,) for value in json_values(text) for node in path.values(value))
        found = _end_of(nodes, extraction.first)
        return None if found is None else json_as_text(found[0])

    return find


def _code_block(extraction: Extraction, place: str) -> Find:
    from infer_cli.evaluation.scorers.code_blocks import blocks_of

    return lambda text: _end_of(blocks_of(text, extraction.language), extraction.first)


def _letter(extraction: Extraction, place: str) -> Find:
    from infer_cli.evaluation.scorers.letters import LetterRules

    try:
        rules = LetterRules(extraction.letters)
    except ValueError as e:
        raise UsageError(f"{place} letters {e}", 'write them as "ABCD"') from None
    return rules.first if extraction.first else rules.last


_MAKERS: dict[str, Callable[[Extraction, str], Find]] = {
    "whole": _whole,
    "regex": _regex,
    "last_number": _last_number,
    "json_path": _json_path,
    "code_block": _code_block,
    "letter": _letter,
}


def _missing(place: str, key: str, what: str) -> UsageError:
    return UsageError(f"{place} {key} is missing", f"write {what}")


def _end_of(found: Iterable[T], first: bool) -> T | None:
    return next(iter(found), None) if first else last_of(found)
