"""JSON Schema of tasks: checked in bounded time, and without fetching anything."""

from __future__ import annotations

from collections.abc import Mapping

import jsonschema_rs

from infer_cli.evaluation.scorers.json_answers import NotJson, parse_json

# Parts of a schema, each counted as often as `$ref` leads to it: what a value costs is no more than this
# many steps for each of its own parts.
MOST_PARTS = 10_000
MOST_PATTERN = 1 << 18  # bytes of a compiled regular expression
_DATA_KEYWORDS = frozenset(("const", "default", "enum", "examples"))
_FREE_REFERENCES = ("$dynamicRef", "$recursiveRef")


class SchemaError(ValueError):
    """A schema that can't be used. The message says why."""


class SchemaValidator:
    """A schema, compiled once: a table, or a text of JSON. Raises SchemaError if it can't be."""

    def __init__(self, schema: Mapping[str, object] | str) -> None:
        if isinstance(schema, str):
            try:
                parsed = parse_json(schema)
            except NotJson as e:
                raise SchemaError(f"is not JSON: {e}") from None
            if not isinstance(parsed, dict):
                raise SchemaError("is not a JSON object")
            schema = parsed
        _PartCounter(schema).count(schema)
        try:
            self._validator = jsonschema_rs.validator_for(
                dict(schema),
                pattern_options=jsonschema_rs.RegexOptions(size_limit=MOST_PATTERN),
                offline=True,
            )
        except ValueError as e:
            message = e.message if isinstance(e, jsonschema_rs.ValidationError) else str(e)
            raise SchemaError(f"is not a schema that can be used: {message[:200]}") from None

    def problem(self, value: object) -> str:
        """Where `value` is not valid, and which keyword says so; empty where it is."""
        try:
            if self._validator.is_valid(value):
                return ""
            error = next(iter(self._validator.iter_errors(value)))
        except UnicodeEncodeError:
            return "a text with half of a surrogate pair"
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        return f"${place[:60]}: {error.kind.name}"


class _PartCounter:
    """How many parts a schema has once each `$ref` is put in its place."""

    def __init__(self, root: Mapping[str, object]) -> None:
        self._root = root
        self._counts: dict[str, int] = {}
        self._open: set[str] = set()

    def count(self, part: object) -> int:
        """Raises SchemaError for a schema that is too large, refers to itself or to another document."""
        n = 1
        if isinstance(part, Mapping):
            for key, each in part.items():
                if key in _FREE_REFERENCES:
                    raise SchemaError(f"has {key}, which is not known here")
                if key == "$ref" and isinstance(each, str):
                    n += self._target(each)
                elif key not in _DATA_KEYWORDS:
                    n += self.count(each)
        elif isinstance(part, (list, tuple)):
            n += sum(map(self.count, part))
        if n > MOST_PARTS:
            raise SchemaError(f"has more than {MOST_PARTS} parts, with those that $ref leads to")
        return n

    def _target(self, reference: str) -> int:
        if reference in self._open:
            raise SchemaError(f"refers to itself: {reference!r}")
        if reference not in self._counts:
            self._open.add(reference)
            self._counts[reference] = self.count(self._found(reference))
            self._open.remove(reference)
        return self._counts[reference]

    def _found(self, reference: str) -> object:
        if not reference.startswith("#/"):
            raise SchemaError(f"has $ref {reference!r}: only one that begins with #/ is followed")
        place: object = self._root
        for step in reference[2:].split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(place, Mapping) and name in place:
                place = place[name]
            elif isinstance(place, (list, tuple)) and name.isdecimal() and int(name) < len(place):
                place = place[int(name)]
            else:
                raise SchemaError(f"has $ref {reference!r}, which leads nowhere")
        return place
