"""docs/scorers.md names every kind with its keys, and its tables can be read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infer_cli.evaluation.scorers import code_execution
from infer_cli.evaluation.scorers.options import ScorerOptions
from infer_cli.evaluation.scorers.registry import SCORER_KINDS, make_scorers
from infer_cli.evaluation.tasks.loading import read_task
from infer_cli.evaluation.tasks.task import ScorerSpec, TaskFunctions
from infer_cli.evaluation.tasks.task_file import _OF_EXTRACTION
from tests.evaluation.scorers.making import task_with
from tests.project.test_docs import blocks, quoted, rows

TAKE = ScorerOptions.take
PAGE = "docs/scorers.md"
NEEDED: dict[str, dict[str, object]] = {
    "regex": {"pattern": "x"},
    "length": {"min": 1, "max": 2},
    "json_schema": {"schema": "{}"},
    "code": {"program": "x"},
    "judge": {"prompt": "x", "min": 1, "max": 2},
}
TASK = """
name = "t"
version = "1"
kind = "generate"
[data]
path = "d.jsonl"
[prompt]
text = "{{ question }}"
[answer]
references = ["{{ answer }}"]
"""


def test_every_extraction_has_its_keys() -> None:
    table = {quoted(row[0])[0]: set(quoted(row[2])) for row in rows(PAGE) if len(row) == 3 and quoted(row[0])}
    assert table == {kind: set(keys) for kind, keys in _OF_EXTRACTION.items()}


def test_every_scorer_has_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {quoted(row[0])[0]: set(quoted(row[2])) for row in rows(PAGE) if len(row) == 4 and quoted(row[0])}
    assert table.keys() == SCORER_KINDS.keys()
    for kind in table:
        asked: set[str] = set()

        def noted(self: ScorerOptions, key: str, asked: set[str] = asked) -> object:
            asked.add(key)
            return TAKE(self, key)

        with monkeypatch.context() as patch:
            patch.setattr(ScorerOptions, "take", noted)
            make_scorers(
                replace(
                    task_with(ScorerSpec(kind, kind, NEEDED.get(kind, {}))),
                    functions=TaskFunctions(score=lambda text, doc: 0),
                ),
                allow_code=True,
            )
        assert asked == table[kind], kind


def test_tables_of_the_page_are_a_tasks() -> None:
    shown = [block.body for block in blocks(PAGE) if block.info == "toml"]
    assert len(shown) == 4
    for body in shown:
        task = read_task(TASK + body, "t.toml")
        assert make_scorers(task, allow_code='"code"' in body)


@pytest.fixture(autouse=True)
def no_sandbox_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run here."""
    monkeypatch.setattr(code_execution, "find_sandbox", object)
