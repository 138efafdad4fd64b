"""The grader of a run, made of the task's copy in its folder."""

from __future__ import annotations

from typing import NamedTuple

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.facts import RunFacts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.grader import TaskGrader
from infer_cli.evaluation.runs.grading import Grader
from infer_cli.evaluation.runs.judging import judges_of, with_judges
from infer_cli.evaluation.scorers.judge import Judge
from infer_cli.evaluation.scorers.registry import make_scorers
from infer_cli.evaluation.tasks.loading import load_task


class FolderGrader(NamedTuple):
    """`task_sha256` is that of the copy, which may have been edited since the run began. `judges` are the
    scorers that need a model."""

    grader: Grader
    task_sha256: str
    judges: tuple[Judge, ...] = ()


def grader_of(
    folder: RunFolder, facts: RunFacts, n_samples: int, *, allow_code: bool, by_rule_alone: bool = False
) -> FolderGrader:
    """`by_rule_alone`: without the scorers that run code or need a judge. Raises UsageError for a copy that
    can't be used, and for code that is not allowed."""
    if facts.task.source != "task":
        raise UsageError(
            f"{folder.facts}: task.source {facts.task.source!r} is unknown", "use the version that wrote it"
        )
    path = folder.task
    task = load_task(str(path), allow_code=allow_code)
    scorers = make_scorers(task, allow_code=allow_code)
    judges = tuple(judges_of(scorers))
    if by_rule_alone:
        scorers = [scorer for scorer in scorers if not scorer.is_code and not isinstance(scorer, Judge)]
    return FolderGrader(TaskGrader(task, with_judges(folder, scorers), n_samples), task.sha256, judges)
