"""A run that is begun again: nobody else may answer it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infer_cli.batch.job import lock_path
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.beginning import Invocation, begin_run
from infer_cli.evaluation.runs.facts import RunFacts, Scoring
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.task_source import TaskSource, open_task
from infer_cli.evaluation.tasks.item import Item
from infer_cli.evaluation.tasks.selection import Selection
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.system.files import lock
from tests.evaluation.runs.run_helpers import evaluate, write_sums

INVOCATION = Invocation(("infer", "eval"), "1")


def test_the_run_is_locked_while_it_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, data = write_sums(tmp_path)
    folder = RunFolder(tmp_path / "run")
    refused: list[UsageError] = []

    def begin(limit: int) -> RunFacts:
        source = open_task(str(task), Selection(data=str(data), limit=limit), allow_code=False)
        return begin_run(folder, source, Scoring(), INVOCATION, redo=True)

    def items(source: TaskSource) -> Iterator[Item]:
        with pytest.raises(UsageError, match="another process is writing") as told:
            lock(lock_path(folder.replies), folder.replies).release()
        refused.append(told.value)
        yield from read(source)

    with closed_at_end():
        assert begin(2).n_items == 2
        read = TaskSource.items
        monkeypatch.setattr(TaskSource, "items", items)
        assert begin(3).n_items == 3
    assert len(refused) == 1
    lock(lock_path(folder.replies), folder.replies).release()


def test_scores_of_what_was_begun_before_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, data = write_sums(tmp_path)
    folder = RunFolder(tmp_path / "run")
    assert evaluate(task, "--data", data, "-o", folder.path).code == 0
    assert folder.results.exists() and folder.samples.exists()

    def items(source: TaskSource) -> Iterator[Item]:
        raise UsageError("the power fails")

    monkeypatch.setattr(TaskSource, "items", items)
    with closed_at_end(), pytest.raises(UsageError, match="the power fails"):
        source = open_task(str(task), Selection(data=str(data), limit=1), allow_code=False)
        begin_run(folder, source, Scoring(), INVOCATION, redo=True)
    assert not folder.results.exists() and not folder.samples.exists() and not folder.report.exists()
