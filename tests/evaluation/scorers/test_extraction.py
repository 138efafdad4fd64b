"""What is found in a reply, by each kind of extraction, and what a task may not ask for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.errors import UsageError
from infer_cli.evaluation.scorers.extraction import Extractor
from infer_cli.evaluation.tasks.task import Extraction
from tests.evaluation.scorers.making import find

REPLY = "First 12.\n#### 72\nor rather\n#### 73 \n"


def test_without_extractions_the_whole_reply_without_white_space_around_it() -> None:
    assert Extractor(()).find("\n a b \t") == "a b"
    assert Extractor(()).find("") == ""


def test_the_first_that_finds_something_decides() -> None:
    both = Extractor([Extraction("regex", pattern="#### (.+)"), Extraction("last_number")])
    assert both.find("#### x\n7") == "x"
    assert both.find("so 7") == "7"
    assert both.find("so") is None


@pytest.mark.parametrize(
    ("pattern", "group", "first", "wanted"),
    [
        ("#### (.+)", 1, False, "73"),
        ("#### (.+)", 1, True, "72"),
        ("#### .+", 1, True, "#### 72"),
        ("(####) (.+)", 2, False, "73"),
        ("(####) (.+)", 0, False, "#### 73"),
        ("#### (?P<number>.+)", 1, False, "73"),
        ("(?m)^(First)|^(or)", 1, False, "First"),  # a match in which the group has no part does not count
        ("nothing", 1, False, None),
        ("", 1, False, ""),
    ],
)
def test_regex(pattern: str, group: int, first: bool, wanted: str | None) -> None:
    assert find(REPLY, kind="regex", pattern=pattern, group=group, first=first) == wanted


@given(
    st.text("ab1 \né𝄞", max_size=40), st.sampled_from([r"a+(b*)", r"(\w)", r"[^a]é?", r"(?s)1(.)", "b|(a)"])
)
def test_matches_are_those_of_pythons_re(text: str, pattern: str) -> None:
    group = min(1, re.compile(pattern).groups)
    ours = re.compile(pattern, re.ASCII)  # RE2's \w is of ASCII
    found = [match[group] for match in ours.finditer(text) if match[group] is not None]
    assert find(text, kind="regex", pattern=pattern) == (found[-1].strip() if found else None)
    assert find(text, kind="regex", pattern=pattern, first=True) == (found[0].strip() if found else None)


def test_half_a_surrogate_pair_is_a_character_that_is_none() -> None:
    assert find("a\ud800é72\udfff", kind="regex", pattern="é([0-9]+)(.)") == "72"
    assert find("a\ud800b", kind="regex", pattern="a(.)b") == "\ud800"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"kind": "regex", "pattern": "(?=a)b"}, r"pattern has look-ahead, \(\?="),
        ({"kind": "regex", "pattern": "(?!a)b"}, "pattern has look-ahead"),
        ({"kind": "regex", "pattern": "(?<=a)b"}, r"pattern has look-behind, \(\?<="),
        ({"kind": "regex", "pattern": "(?<!a)b"}, "pattern has look-behind"),
        ({"kind": "regex", "pattern": r"(a)\1"}, r"pattern has a back-reference, \\1"),
        ({"kind": "regex", "pattern": "(?P<n>a)(?P=n)"}, "pattern has a back-reference"),
        ({"kind": "regex", "pattern": "(?>a)"}, "pattern has an atomic group"),
        ({"kind": "regex", "pattern": "a++"}, "pattern has a possessive quantifier"),
        ({"kind": "regex", "pattern": "(a"}, "pattern is not a regular expression of RE2: missing"),
        ({"kind": "regex", "pattern": "((a{100}){100}){100}"}, "repetition size"),
        ({"kind": "regex", "pattern": "\ud800"}, "half of a surrogate pair"),
        ({"kind": "regex", "pattern": "(a)", "group": 2}, "group is 2, and the pattern has 1"),
        ({"kind": "regex"}, "pattern is missing"),
        ({"kind": "json_path"}, "path is missing"),
        ({"kind": "json_path", "path": "answer"}, "path is not a JSON path"),
        (
            {"kind": "json_path", "path": "$[?search(@.a, '(a+)+')]"},
            "path uses a function that is not allowed",
        ),
        ({"kind": "json_path", "path": "$[?match(@.a, 'x')]"}, "path uses a function that is not allowed"),
        ({"kind": "json_path", "path": "$..a..b"}, r"path has \.\. more than once"),
        ({"kind": "json_path", "path": "$[*,*]"}, "several selectors"),
        ({"kind": "json_path", "path": "$[?$.a == 1]"}, r"path has \$ in a filter"),
        ({"kind": "json_path", "path": "$[?@..a]"}, "more than names and places in a filter"),
        ({"kind": "json_path", "path": "$[?count(@.*) > 1]"}, "more than names and places in a filter"),
        (
            {"kind": "json_path", "path": "$[?!(@.a == 1 || @[?@.b])]"},
            "more than names and places in a filter",
        ),
        ({"kind": "json_path", "path": "$" + ".a" * 1000}, "more than 1000 characters"),
        ({"kind": "letter", "letters": "A B"}, "letters must be letters or digits"),
        ({"kind": "letter", "letters": "Aa"}, "letters has a letter twice"),
        ({"kind": "letter", "letters": ""}, "letters must be letters or digits"),
        ({"kind": "leter"}, "kind is 'leter', which is none"),
    ],
)
def test_what_a_task_may_not_ask_for(keys: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        Extractor([Extraction(), Extraction(**keys)], "tasks/t.toml")  # type: ignore[arg-type]
    assert caught.value.message.startswith("tasks/t.toml: [[extraction]] 2 ")
    assert caught.value.hint and "\n" not in caught.value.in_full


CODE = (
    "Text ```no block``` here\n```python\nx = 1\n\n  y\n```\n"
    "~~~~ Sql more\n```\nq\n~~~~\n```\nplain\n```\nend"
)


@pytest.mark.parametrize(
    ("text", "language", "first", "wanted"),
    [
        (CODE, None, False, "plain"),
        (CODE, None, True, "x = 1\n\n  y"),
        (CODE, "python", False, "x = 1\n\n  y"),
        (CODE, "Python", False, "x = 1\n\n  y"),
        (CODE, "sql", False, "```\nq"),
        (CODE, "rust", False, "plain"),  # no block says rust, one says nothing
        ("```python\nx\n```", "rust", False, None),
        ("```\r\na\r\nb\r\n```", None, False, "a\nb"),
        ("```py\nprint(1)", "py", False, "print(1)"),  # not closed: to the end, as in CommonMark
        ("a\u2028```\nno\n```\nx", None, False, "x"),
        ("no block", None, False, None),
        ("    ```\n    indented code\n    ```", None, False, None),
    ],
)
def test_code_block(text: str, language: str | None, first: bool, wanted: str | None) -> None:
    assert find(text, kind="code_block", language=language, first=first) == wanted


@pytest.mark.parametrize(
    ("text", "path", "wanted"),
    [
        ('{"answer": 7}', "$.answer", "7"),
        ('{"answer": 1.50}', "$.answer", "1.50"),
        ('{"answer": "a \\u00e9"}', "$.answer", "a é"),
        ('{"answer": null}', "$.answer", "null"),
        ('{"answer": [true, {"b": "é"}]}', "$.answer", '[true,{"b":"é"}]'),
        ("7", "$", "7"),
        ('Here:\n```json\n{"answer": 7}\n```\nDone.', "$.answer", "7"),
        ('So {"answer": 7}.', "$.answer", "7"),
        ('{"answer": 6}, no: {"answer": 7}, see [1]', "$.answer", "7"),
        ('{ unclosed "brace\n{"answer": "}"}', "$.answer", "}"),
        ('(a] {"answer": 7}', "$.answer", "7"),
        ('{"a": [{"id": 1, "v": "x"}, {"id": 2, "v": "y"}]}', "$.a[?@.id == 1].v", "x"),
        ('{"a": [{"id": 1, "v": "x"}, {"id": 2, "v": "y"}]}', "$.a[?length(@.v) > 3].v", None),
        ('{"a": [{"id": 1, "v": "x"}, {"id": 2, "v": "y"}]}', "$.a[*].v", "y"),
        ('{"a": [{"id": 1, "v": "x"}, {"id": 2, "v": "y"}]}', "$..v", "y"),
        ('{"a": [3, 4, 5]}', "$.a[-2]", "4"),
        ('{"a": [3, 4, 5]}', "$['a'][0]", "3"),
        ('{"a": [3, 4, 5]}', "$.a[3]", None),
        ('{"a": [3, 4, 5]}', "$.a.b", None),
        ('{"a": "text"}', "$.a[0]", None),
        ('{"answer": NaN}', "$.answer", None),
        ('{"answer": 7', "$.answer", None),
        ('{"answer": 1e9999}', "$.answer", None),
        ("", "$", None),
    ],
)
def test_json_path(text: str, path: str, wanted: str | None) -> None:
    assert find(text, kind="json_path", path=path) == wanted


def test_the_first_of_json() -> None:
    assert find('{"a": [1, 2]} {"a": [3]}', kind="json_path", path="$.a[*]", first=True) == "1"
