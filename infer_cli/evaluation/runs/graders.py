"""The grader of a run, made of the task's copy in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.facts import OWN_SOURCE, RunFacts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.grader import TaskGrader
from infer_cli.evaluation.runs.grading import Corpus, Grader
from infer_cli.evaluation.runs.judging import judges_of, with_judges
from infer_cli.evaluation.scorers.judge import Judge
from infer_cli.evaluation.scorers.registry import make_scorers
from infer_cli.evaluation.tasks.loading import load_task


class FolderGrader(NamedTuple):
    """`task_sha256` is that of the copy, which may have been edited since the run began. `judges` are the
    scorers that need a model. `corpus` are the functions of the metrics whose aggregation is `corpus`."""

    grader: Grader
    task_sha256: str
    judges: tuple[Judge, ...] = ()
    corpus: Mapping[str, Corpus] = MappingProxyType({})


class GraderOpener(Protocol):
    """Makes the grader of a run of another program's task."""

    def __call__(
        self, folder: RunFolder, *, allow_code: bool, by_rule_alone: bool = False
    ) -> FolderGrader: ...


# By `TaskFacts.source`. What reads another program's tasks is above this package, and passed in.
Openers = Mapping[str, GraderOpener]
OURS_ONLY: Openers = MappingProxyType({})


def grader_of(
    folder: RunFolder,
    facts: RunFacts,
    n_samples: int,
    *,
    allow_code: bool,
    openers: Openers = OURS_ONLY,
    by_rule_alone: bool = False,
) -> FolderGrader:
    """`by_rule_alone`: without the scorers that run code or need a judge. Raises UsageError for a copy that
    can't be used, and for code that is not allowed."""
    if (opener := openers.get(facts.task.source)) is not None:
        return opener(folder, allow_code=allow_code, by_rule_alone=by_rule_alone)
    if facts.task.source != OWN_SOURCE:
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
