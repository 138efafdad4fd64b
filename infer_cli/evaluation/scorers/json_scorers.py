"""Scorers of answers in JSON: `json_field` and `json_schema`."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING

from infer_cli.evaluation.scorers.json_answers import NotJson, json_as_text, json_values, parse_json
from infer_cli.evaluation.scorers.options import ScorerOptions
from infer_cli.evaluation.scorers.rule import RIGHT, Rule, references_of, shown, wrong
from infer_cli.evaluation.scorers.scorer import Answer, Score, ScorerFailed

if TYPE_CHECKING:
    from infer_cli.evaluation.scorers.json_path import JsonPath

_NO_JSON = wrong("no JSON")
_NOTHING = object()


class JsonFields(Rule):
    """1 for an answer whose fields are those of the reference, or of `values`; without `fields` and `values`,
    whose JSON is the reference's. With `partial`, the share of the fields that are."""

    def __init__(self, options: ScorerOptions) -> None:
        self._partial = options.flag("partial", False)
        super().__init__(options.score_name, is_proportion=not self._partial)
        values = options.values("values")
        fields = options.texts("fields")
        if values is not None and fields:
            raise options.wrong("fields", "and values can't both be given", "leave one out")
        self._values = None if values is None else {key: _as_json(values[key], options) for key in values}
        self._fields = {field: _Field(field, options) for field in values or fields or ("$",)}

    def score(self, answer: Answer) -> Score:
        wanted = [self._values] if self._values is not None else self._of_references(answer)
        value = _last_json(answer.extracted)
        if value is _NOTHING:
            return _NO_JSON
        got = {name: field.of(value) for name, field in self._fields.items()}
        return max(self._compared(got, each) for each in wanted)

    def _of_references(self, answer: Answer) -> list[dict[str, object]]:
        found = []
        for reference in references_of(answer):
            try:
                value = parse_json(reference)
            except NotJson as e:
                raise ScorerFailed(f"the reference {shown(reference)} is not JSON: {e}") from None
            fields = {name: field.of(value) for name, field in self._fields.items()}
            for name, each in fields.items():
                if each is _NOTHING:
                    raise ScorerFailed(f"the reference {shown(reference)} has no {name}")
            found.append(fields)
        return found

    def _compared(self, got: dict[str, object], wanted: dict[str, object]) -> Score:
        differing = [name for name in self._fields if not _same(got[name], wanted[name])]
        if not differing:
            return RIGHT
        name = differing[0]
        explanation = f"{name}: got {_shown_json(got[name])}, wanted {_shown_json(wanted[name])}"
        return Score(1 - len(differing) / len(self._fields) if self._partial else 0.0, explanation)


class JsonSchema(Rule):
    """1 for an answer whose JSON is valid by `schema`, a table or JSON in a string."""

    def __init__(self, options: ScorerOptions) -> None:
        from infer_cli.evaluation.scorers.json_schema import SchemaError, SchemaValidator

        super().__init__(options.score_name)
        schema = options.text_or_values("schema")
        try:
            self._validator = SchemaValidator(schema)
        except SchemaError as e:
            raise options.wrong("schema", str(e), "correct it, or leave it out") from None

    def score(self, answer: Answer) -> Score:
        value = _last_json(answer.extracted)
        if value is _NOTHING:
            return _NO_JSON
        problem = self._validator.problem(value)
        return wrong(problem) if problem else RIGHT


class _Field:
    """A field of a JSON value: the name of an object's key, or a JSON path where it begins with `$`."""

    def __init__(self, name: str, options: ScorerOptions) -> None:
        self._name = name
        self._path: JsonPath | None = None
        if name != "$" and name.startswith("$"):
            from infer_cli.evaluation.scorers.json_path import JsonPath, PathError

            try:
                self._path = JsonPath(name)
            except PathError as e:
                raise options.wrong(
                    "fields", f"has {name!r}, which {e}", "write a name, or a simple path"
                ) from None

    def of(self, value: object) -> object:
        """The first that the path leads to."""
        if self._path is not None:
            return next(self._path.values(value), _NOTHING)
        if self._name == "$":
            return value
        return value.get(self._name, _NOTHING) if isinstance(value, dict) else _NOTHING


def _as_json(value: object, options: ScorerOptions) -> object:
    try:
        return parse_json(json.dumps(value))
    except (TypeError, NotJson):
        raise options.wrong("values", f"has {value!r}, which JSON has not", "correct it") from None


def _last_json(text: str) -> object:
    values = deque(json_values(text), maxlen=1)
    return values[0] if values else _NOTHING


def _same(one: object, other: object) -> bool:
    """Equal in JSON: 1 is 1.0, and neither is true. What is missing is not equal to anything."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(each, other[key]) for key, each in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if one is _NOTHING or isinstance(one, bool) is not isinstance(other, bool):
        return False
    return type(one) is type(other) and one == other


def _shown_json(value: object) -> str:
    return "nothing" if value is _NOTHING else shown(json_as_text(value))
