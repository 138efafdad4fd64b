"""Whatever a reply is: no extraction and no scorer raises, and none takes time beyond the text's length.

A step that is quadratic takes minutes for these texts, and the time limit of the tests ends it. Where work
can be counted it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.evaluation.scorers import json_answers, linear_regex
from infer_cli.evaluation.scorers.extraction import Extractor
from infer_cli.evaluation.scorers.json_path import JsonPath
from infer_cli.evaluation.scorers.registry import make_scorers
from infer_cli.evaluation.scorers.scorer import Answer, ScorerFailed
from infer_cli.evaluation.tasks.task import Extraction, ScorerSpec
from tests.evaluation.scorers.making import find, scorer_of, task_with

EXTRACTIONS = [
    Extraction("whole"),
    Extraction("regex", pattern=r"(x+x+)+y|(\w+)"),
    Extraction("regex", pattern=r"(?:a*)*(b)"),
    Extraction("last_number"),
    Extraction("json_path", path="$.a.b"),
    Extraction("json_path", path="$..a[?@.b == 1 && length(@.a) > 2]"),
    Extraction("code_block", language="py"),
    Extraction("letter"),
]
SPECS = [
    ScorerSpec("exact", "exact", {"ignore_case": True}),
    ScorerSpec("normalized", "normalized"),
    ScorerSpec("contains", "contains", {"ignore_case": True}),
    ScorerSpec("regex", "regex", {"pattern": "(x+x+)+y"}),
    ScorerSpec("f1", "f1"),
    ScorerSpec("number", "number", {"relative": 0.1, "percent_is_hundredth": True}),
    ScorerSpec("choice", "choice", {"choices": "choices"}),
    ScorerSpec("json_field", "fields", {"values": {"a": 1, "$..b": 2}}),
    ScorerSpec(
        "json_schema",
        "schema",
        {"schema": {"additionalProperties": {"pattern": "(x+x+)+y", "multipleOf": 0.01}}},
    ),
    ScorerSpec("length", "length", {"max": 3, "unit": "words"}),
    ScorerSpec("not_empty", "not_empty"),
    ScorerSpec("ended", "ended"),
]
EXTRACTORS = [
    Extractor([replace(extraction, first=first)]) for extraction in EXTRACTIONS for first in (False, True)
]
SCORERS = make_scorers(task_with(*SPECS), allow_code=False)
DOC = {"choices": ["Rome", "Paris"]}

N = 200_000
HOSTILE = {
    "nothing": "",
    "nul": "\0" * N,
    "surrogates": "\ud800" * N,
    "digits": "9" * 1_000_000,
    "spaces": " " * N,
    "x": "x" * N,
    "words": "x " * (N // 2),
    "thousands": "1,111" * (N // 5),
    "fractions": "1/" * (N // 2),
    "long fractions": ("1" * 1000 + "/") * (N // 1000),
    "numbers in words": "Q3 " * (N // 3),
    "exponents": "1e" * (N // 2),
    "signs": "-$" * (N // 2),
    "answers": "answer is " * (N // 10),
    "answer and spaces": "answer" + " " * N + "B",
    "answers and spaces": ("answer" + " " * 400) * (N // 406),
    "boxed": r"\boxed{" * (N // 7),
    "letters": "A b" * (N // 3),
    "parentheses": "((((" * (N // 4),
    "stars": "*" * N,
    "open": "[" * N,
    "close": "]" * N,
    "deep": "[" * (N // 2) + "]" * (N // 2),
    "deep objects": '{"a":' * (N // 5) + "1" + "}" * (N // 5),
    "quotes": '{"' + '\\"' * (N // 2),
    "quotes in brackets": '["' * (N // 2),
    "backslashes": '["' + "\\" * N,
    "many objects": '{"a":1}' * (N // 7),
    "large array": "[" + "1," * (N // 2) + "1]",
    "large number": '{"a": ' + "9" * N + "}",
    "large exponent": '{"a": 1e999999999, "b": 1e-999999999}',
    "duplicate keys": "{" + '"a":1,' * (N // 6) + '"a":{"b":2}}',
    "fences": "```\n" * (N // 4),
    "fence": "`" * N,
    "tildes": "~~~py\n" * (N // 6),
    "lines": "\n" * N,
    "controls": "\x1b[31m\x07" * (N // 6),
    "articles": "a an the " * (N // 9),
    "combining": "e\u0301" * (N // 2),
}


def attack(text: str) -> None:
    for extractor in EXTRACTORS:
        found = extractor.find(text)
        assert found is None or isinstance(found, str)
    for scorer in SCORERS:
        for references in (("1", "B"), (text,)):
            try:
                score = scorer.score(Answer(text, text, references, DOC, "stop"))
            except ScorerFailed as e:
                assert len(str(e)) < 400
            else:
                assert math.isfinite(score.value) and len(score.explanation) < 400


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_is_too_much(name: str) -> None:
    attack(HOSTILE[name])


PIECES = st.sampled_from(
    [
        *("answer", " is ", ":", "(", ")", "B", "a", "*", "\\boxed{", "}", "{", "[", "]", '"', "\\", ","),
        *("1", ".5", "-", "$", "/", "%", "e9", "```", "~~~py", "\n", " ", "\0", "\ud800", "\udfff", "é", "𝄞"),
        *("null", '"a":', "\x1b["),
    ]
)


@settings(max_examples=150)
@given(st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=40))
def test_nothing_raises(text: str) -> None:
    attack(text)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many characters lie before RE2 in each search."""
    found: list[int] = []
    compiled: Any = re2._Regexp

    def counted(self: Any, anchor: object, text: str, *place: int) -> Iterator[Any]:
        for match in iterate(self, anchor, text, *place):
            found.append(len(text))
            yield match

    iterate = compiled._match
    monkeypatch.setattr(compiled, "_match", counted)
    return found


def test_matches_that_each_read_to_the_end_are_bounded(searches: list[int]) -> None:
    """After each `x` RE2 looks for the `y` that there is not, to the end of the text."""
    assert find("x" * N, kind="regex", pattern="(x*y|x)") is None
    assert sum(searches) <= linear_regex.MOST_WORK
    assert len(searches) > 100


def test_the_last_of_many_words_is_found(searches: list[int]) -> None:
    words = [f"w{n}" for n in range(5_000)]
    assert find(" ".join(words), kind="regex", pattern=r"(\w+)") == words[-1]
    assert len(searches) == len(words)


def test_a_pattern_too_large_for_a_text_is_a_failed_scorer() -> None:
    scorer = scorer_of("regex", pattern=r"\pL{9}")
    answer = Answer("", "x" * 1_000_000, (), {})
    with pytest.raises(ScorerFailed, match="1000000 characters are too many for the pattern"):
        scorer.score(answer)


@pytest.mark.parametrize(
    "name", ["many objects", "deep objects", "quotes in brackets", "large array", "open"]
)
def test_json_is_parsed_at_most_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as a whole, then its parts, which do not overlap."""
    parsed: list[int] = []
    parse = json_answers.parse_json

    def counted(text: str) -> object:
        parsed.append(len(text))
        return parse(text)

    monkeypatch.setattr(json_answers, "parse_json", counted)
    list(json_answers.json_values(HOSTILE[name]))
    assert 0 < sum(parsed) <= 2 * len(HOSTILE[name])


def test_paths_visit_each_value_once() -> None:
    """Of what is allowed: a path's results are never more than the values that there are."""
    value: object = 1
    for _ in range(json_answers.MOST_DEPTH - 1):
        value = {"a": value, "b": [1, 2]}
    n_values = 4 * json_answers.MOST_DEPTH
    for path in ("$..*", "$..[?@.a]", "$..a", "$.*.*.*.*", "$..b[*]"):
        assert len(list(JsonPath(path).values(value))) <= n_values
