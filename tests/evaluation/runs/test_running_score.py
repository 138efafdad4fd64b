"""The score while answers come."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from infer_cli.evaluation.runs.facts import Scoring
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.grader import TaskGrader
from infer_cli.evaluation.runs.run_items import RunItems
from infer_cli.evaluation.runs.running_score import RunningScore
from infer_cli.evaluation.scorers.registry import make_scorers
from infer_cli.evaluation.tasks.item_file import write_items
from infer_cli.evaluation.tasks.task import ScorerSpec, Task, TaskKind
from tests.evaluation.runs.run_helpers import item, likelihood, reply

_OPEN: list[RunItems] = []


@pytest.fixture(autouse=True)
def closed_at_end() -> Iterator[None]:
    yield
    while _OPEN:
        _OPEN.pop().__exit__(None, None, None)


def opened(run: RunFolder) -> RunItems:
    """Closed when the test has ended."""
    _OPEN.append(RunItems(run))
    return _OPEN[-1]


ERROR = {"code": 5, "message": "it does not fit"}


def running(
    folder: Path,
    n: int,
    *,
    n_rows: int = 1,
    n_samples: int = 1,
    kind: TaskKind = "generate",
    exclude_errors: bool = False,
) -> RunningScore:
    run = RunFolder(folder)
    write_items([item(i, rows=n_rows, references=("4",)) for i in range(n)], run.items, run.requests)
    task = Task("t", "1", kind, "t", "", "", scorers=(ScorerSpec("exact", "exact"),))
    scorers = make_scorers(task, allow_code=False) if kind == "generate" else []
    return RunningScore(
        opened(run), TaskGrader(task, scorers, n_samples), Scoring(exclude_errors=exclude_errors), n_samples
    )


def told(score: RunningScore, answers: Sequence[tuple[int, dict[str, object]]]) -> str:
    for row, line in answers:
        score.answered(row, line)
    return score.text


def test_it_is_that_of_the_items_that_are_answered(tmp_path: Path) -> None:
    score = running(tmp_path, 10)
    assert score.text == ""
    assert told(score, [(3, reply("4")), (0, reply("5"))]) == "exact 0.5 (0.0945 to 0.905)"
    assert told(score, [(1, reply("4")), (2, reply("4"))]) == "exact 0.75 (0.301 to 0.954)"


def test_an_item_counts_when_all_its_rows_and_samples_are_there(tmp_path: Path) -> None:
    score = running(tmp_path, 4, n_rows=2, n_samples=2)
    answers = [(row, reply("4", sample=k)) for row in range(8) for k in range(2)]
    random.Random(0).shuffle(answers)
    for row, line in answers[:-1]:
        score.answered(row, line)
    assert len(score._open) == 1
    assert told(score, answers[-1:]).startswith("exact 1 ")
    assert not score._open  # nothing is held of what is done


def test_a_row_that_could_not_be_asked_is_whole_with_one_line(tmp_path: Path) -> None:
    score = running(tmp_path, 4, n_samples=3)
    failed = reply(None, error=ERROR, tokens=[])
    assert told(score, [(0, failed)]).startswith("exact 0")
    assert not score._open
    assert running(tmp_path, 4, exclude_errors=True).text == ""
    left_out = running(tmp_path, 4, exclude_errors=True)
    assert told(left_out, [(0, failed), (1, reply("4"))]).startswith("exact 1 ")


@pytest.mark.parametrize(("kind", "shown"), [("minimal_pairs", "acc 1 (0.342 to 1)"), ("choice", "acc 0.5")])
def test_likelihoods_are_compared_item_by_item(tmp_path: Path, kind: TaskKind, shown: str) -> None:
    score = running(tmp_path, 2, n_rows=2, kind=kind)
    second = -3.0 if kind == "minimal_pairs" else -0.5
    answers = [(1, likelihood(-2.0)), (0, likelihood(-1.0)), (2, likelihood(-1.0)), (3, likelihood(second))]
    assert told(score, answers).startswith(shown)


def test_a_perplexity_is_that_of_the_sums(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    rows = tuple({"context": "", "continuation": text} for text in ("abcd", "efgh"))
    write_items([replace(item(i), rows=(row,)) for i, row in enumerate(rows)], run.items, run.requests)
    grader = TaskGrader(Task("t", "1", "perplexity", "t", "", ""), ())
    score = RunningScore(opened(run), grader, Scoring(), 1)
    assert told(score, [(0, likelihood(-2.772588722239781)), (1, likelihood(0.0))]) == "bits_per_byte 0.5"
