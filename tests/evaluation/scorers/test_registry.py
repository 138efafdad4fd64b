"""A task's scorers, and what its tables may not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.scorers.registry import SCORER_KINDS, make_scorers
from infer_cli.evaluation.scorers.scorer import Answer, ScorerFailed
from infer_cli.evaluation.tasks.task import ScorerSpec, TaskCodeFailed, TaskFunctions
from tests.evaluation.scorers.making import task_with


def test_scorers_are_made_in_the_tasks_order_with_its_names() -> None:
    task = task_with(ScorerSpec("f1", "overlap"), ScorerSpec("exact", "right", {"ignore_case": True}))
    assert [scorer.name for scorer in make_scorers(task, allow_code=False)] == ["overlap", "right"]


@pytest.mark.parametrize(
    ("kind", "options", "says", "hint"),
    [
        ("exat", {}, "kind is 'exat', which is no scorer", "did you mean exact?"),
        ("zzz", {}, "kind is 'zzz', which is no scorer", "there are choice, "),
        ("exact", {"ignore_cas": True}, "ignore_cas is no key", "ignore_case"),
        ("exact", {"ignore_case": "yes"}, "ignore_case must be true or false", ""),
        ("contains", {"which": "some"}, "which must be any or all", ""),
        ("contains", {"values": []}, "values is empty", ""),
        ("contains", {"values": ["a", 1]}, "values must be an array of strings", ""),
        ("regex", {}, "pattern is missing", ""),
        ("regex", {"pattern": "(?<!a)b"}, r"pattern has look-behind, \(\?<!", "RE2"),
        ("number", {"absolute": -1}, "absolute must be a number from 0", ""),
        ("number", {"relative": True}, "relative must be a number from 0", ""),
        ("number", {"absolute": float("inf")}, "absolute must be a number from 0", ""),
        ("choice", {"letters": "AA"}, "letters has a letter twice", "ABCD"),
        ("length", {}, "min is missing", "max"),
        ("length", {"min": 3, "max": 2}, "min is more than max", ""),
        ("length", {"min": 1.5}, "min must be a whole number", ""),
        ("length", {"min": 1, "unit": "bytes"}, "unit must be characters or words", ""),
        ("json_field", {"fields": ["a"], "values": {"a": 1}}, "fields and values can't both be given", ""),
        ("json_field", {"fields": ["$..a..b"]}, r"fields has '\$..a..b', which has .. more than once", ""),
        ("json_field", {"values": {}}, "values is empty", ""),
        ("json_field", {"values": 3}, "values must be a table", ""),
        ("json_schema", {}, "schema is missing", ""),
        ("json_schema", {"schema": 3}, "schema must be a table", ""),
        ("not_empty", {"min": 1}, "min is no key", ""),
    ],
)
def test_what_a_table_may_not_say(kind: str, options: dict[str, object], says: str, hint: str) -> None:
    task = task_with(ScorerSpec("exact", "exact"), ScorerSpec(kind, "other", options))
    with pytest.raises(UsageError, match=says) as caught:
        make_scorers(task, allow_code=False)
    assert caught.value.message.startswith("t.toml: [[scorer]] 2 ")
    assert hint in caught.value.hint and "\n" not in caught.value.in_full


def half(extracted: str, doc: Mapping[str, object]) -> float:
    if not extracted:
        raise TaskCodeFailed("t.py: score() raised ValueError: empty")
    return 0.5


def test_the_function_of_a_python_task() -> None:
    task = replace(task_with(ScorerSpec("function", "half")), functions=TaskFunctions(score=half))
    (scorer,) = make_scorers(task, allow_code=True)
    assert (scorer.name, scorer.is_code, scorer.is_proportion) == ("half", True, False)
    assert scorer.score(Answer("x", "x", (), {})).value == 0.5
    with pytest.raises(ScorerFailed, match="score\\(\\) raised"):
        scorer.score(Answer("", "", (), {}))
    with pytest.raises(UsageError, match="kind is function, which runs code") as caught:
        make_scorers(task, allow_code=False)
    assert "--allow-code" in caught.value.hint
    with pytest.raises(UsageError, match="the task has no score"):
        make_scorers(task_with(ScorerSpec("function", "half")), allow_code=True)


def test_what_runs_code_says_so() -> None:
    """A kind whose scorers are code can't be made without leave."""
    assert SCORER_KINDS["function"].is_code
    for name, kind in SCORER_KINDS.items():
        if kind.is_code:
            with pytest.raises(UsageError, match="runs code"):
                make_scorers(task_with(ScorerSpec(name, name)), allow_code=False)
