"""Scorers of JSON: fields that are equal, and schemas."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonpath_rfc9535 import find as library_find

from infer_cli.errors import UsageError
from infer_cli.evaluation.scorers.json_answers import (
    MOST_DEPTH,
    NotJson,
    json_as_text,
    json_values,
    parse_json,
)
from infer_cli.evaluation.scorers.json_path import JsonPath
from infer_cli.evaluation.scorers.scorer import ScorerFailed
from tests.evaluation.scorers.making import score, scorer_of, value

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text('ab{}[]"\\ \né', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
PROSE = st.text("ab {[(\n.'", max_size=12)


@given(PLAIN)
def test_json_is_read_and_written_as_python_does(plain: object) -> None:
    assert json.loads(json_as_text(parse_json(json.dumps(plain))) if not isinstance(plain, str) else "0") == (
        plain if not isinstance(plain, str) else 0
    )
    if isinstance(plain, str):
        assert json_as_text(parse_json(json.dumps(plain))) == plain


@given(PROSE, st.lists(PLAIN.filter(lambda plain: isinstance(plain, (dict, list))), min_size=1, max_size=3))
def test_values_are_found_among_words(before: str, plain: list[object]) -> None:
    text = f"{before}\n" + " and ".join(json.dumps(each) for each in plain) + "\nthat was it"
    found = [json.loads(json_as_text(each)) for each in json_values(text)]
    assert found[-len(plain) :] == plain


@given(
    PLAIN, st.sampled_from(["$", "$.a", "$.a.b", "$[0]", "$[-1].a", "$['b'][1]", "$.*", "$..a", "$[?@.a]"])
)
def test_paths_lead_where_the_librarys_do(plain: object, path: str) -> None:
    parsed = parse_json(json.dumps(plain))
    assert list(JsonPath(path).values(parsed)) == library_find(path, parsed).values()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["[NaN]", "[Infinity]", "[1e401]", f"[{'1' * 401}]", "[1e99999999999999999999]"]
)
def test_numbers_out_of_bounds_are_not_json(text: str) -> None:
    with pytest.raises(NotJson):
        parse_json(text)


def test_depth_is_bounded_whatever_called() -> None:
    def nested(depth: int) -> str:
        return "[" * depth + "]" * depth

    assert parse_json(nested(MOST_DEPTH))
    with pytest.raises(NotJson, match="nested too deeply"):
        parse_json(nested(MOST_DEPTH + 1))
    assert parse_json(json.dumps(["[" * 100, ["{" * 100] * 70]))  # in strings they are none
    assert list(json_values(nested(100_000))) == []


def test_fields() -> None:
    reference = '{"name": "Ada", "age": 36.0, "tags": ["x", 1]}'
    assert value("json_field", 'I say {"tags": ["x", 1.0], "age": 36, "name": "Ada"}', reference) == 1
    answer = '```json\n{"name": "Ada", "age": 37}\n```'
    assert value("json_field", answer, reference, fields=["name"]) == 1
    assert score("json_field", answer, reference, fields=["name", "age"]) == (0, "age: got 37, wanted 36.0")
    assert score("json_field", answer, reference, fields=["$.tags[0]"]) == (
        0,
        "$.tags[0]: got nothing, wanted x",
    )
    partial = score("json_field", answer, reference, fields=["name", "age", "tags"], partial=True)
    assert partial.value == pytest.approx(1 / 3) and partial.explanation == "age: got 37, wanted 36.0"
    assert value("json_field", answer, reference, '{"name": "Ada", "age": 37}') == 1  # any reference
    assert score("json_field", "none", reference) == (0, "no JSON")


def test_values_of_a_task() -> None:
    assert value("json_field", '{"ok": true, "n": 1.0}', values={"ok": True, "n": 1}) == 1
    for other in (
        '{"ok": 1, "n": 1}',
        '{"ok": "true", "n": 1}',
        '{"n": 1}',
        '{"ok": null, "n": 1}',
        "[true]",
    ):
        assert value("json_field", other, values={"ok": True, "n": 1}) == 0
    assert value("json_field", '{"a": {"b": []}}', values={"$.a.b": []}) == 1
    assert value("json_field", '{"a": {"b": {}}}', values={"$.a.b": []}) == 0


def test_a_reference_without_what_is_compared_is_the_datas_fault() -> None:
    with pytest.raises(ScorerFailed, match="has no age"):
        value("json_field", "{}", '{"name": 1}', fields=["age"])
    with pytest.raises(ScorerFailed, match="is not JSON"):
        value("json_field", "{}", "age: 36", fields=["age"])


SCHEMA = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "pattern": "^A"}}}


def test_schema() -> None:
    assert value("json_schema", 'Here: {"name": "Ada"}', schema=SCHEMA) == 1
    assert score("json_schema", '{"name": "Bo"}', schema=SCHEMA) == (0, "$.name: pattern")
    assert score("json_schema", "{}", schema=json.dumps(SCHEMA)) == (0, "$: required")
    assert score("json_schema", "none", schema=SCHEMA) == (0, "no JSON")
    assert score("json_schema", r'{"name": "\ud800"}', schema=SCHEMA).value == 0
    assert score("json_schema", "[1, 2.5]", schema={"items": {"type": "integer"}}) == (0, "$[1]: type")
    assert value("json_schema", "[1, 2.0]", schema={"items": {"type": "integer"}}) == 1
    refers = {"$defs": {"a/b": {"type": "integer"}}, "items": {"$ref": "#/$defs/a~1b"}}
    assert value("json_schema", "[1]", schema=refers) == 1
    assert value("json_schema", '["x"]', schema=refers) == 0
    # Names of the instance, and what is only data, are not keywords.
    assert value("json_schema", '{"$ref": 1}', schema={"const": {"$ref": 1}, "properties": {"$ref": {}}}) == 1


def doubling(n: int) -> dict[str, object]:
    """A schema that is small, and 2 to the power of n steps for any value."""
    parts: dict[str, object] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(n)}
    return {"$defs": {**parts, f"d{n}": {}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "strin"}, "is not a schema"),
        ({"pattern": "(?=a)"}, "is not a schema"),
        ({"pattern": "(a{1000}){1000}"}, "is not a schema"),
        ({"$ref": "https://example.com/schema.json"}, "only one that begins with #/"),
        ({"$ref": "file:///etc/passwd"}, "only one that begins with #/"),
        ({"$ref": "#"}, "only one that begins with #/"),
        ({"$schema": "https://example.com/meta.json"}, "is not a schema"),
        ({"$dynamicRef": "#/x"}, "has \\$dynamicRef"),
        ({"$ref": "#/$defs/x"}, "leads nowhere"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"items": {"$ref": "#/$defs/x"}}}}, "refers to itself"),
        (doubling(40), "more than 10000 parts"),
        ("[1]", "is not a JSON object"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_schemas_that_can_not_be_used(schema: object, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        scorer_of("json_schema", schema=schema)
    assert caught.value.message.startswith("t.toml: [[scorer]] 1 schema ")


def test_a_schema_that_doubles_a_little_is_used() -> None:
    assert value("json_schema", "1", schema=doubling(8)) == 1


def test_values_that_json_has_not() -> None:
    for wrong in (math.nan, 10**500):
        with pytest.raises(UsageError, match="values"):
            scorer_of("json_field", values={"a": wrong})
