"""What a run's files show without a model: that they belong together, and that the score is the replies'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from infer_cli.batch.job import JobFile
from infer_cli.batch.job_reading import read_job
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.beginning import file_sha256
from infer_cli.evaluation.runs.facts import GenerationFacts, RunFacts, TaskFacts, read_facts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.graders import FolderGrader, Openers, grader_of
from infer_cli.evaluation.runs.judging import judge_rows
from infer_cli.evaluation.runs.rescoring import graded
from infer_cli.evaluation.runs.results import Results
from infer_cli.evaluation.runs.task_source import template_sha256
from infer_cli.evaluation.tasks.loading import load_task
from infer_cli.evaluation.tasks.shipped_tasks import shipped_path
from infer_cli.evaluation.tasks.task import Task
from infer_cli.evaluation.verification.finding import Finding, first_of
from infer_cli.evaluation.verification.rendered import MadeOf, check_items
from infer_cli.evaluation.verification.rescored import Scored, check_scores
from infer_cli.system.files import open_regular


@dataclass(frozen=True)
class RunFiles:
    """What was found of a run's files. `is_shipped`: the task is one that comes with this program, to the
    byte; `results` are scored here, None where a finding says why they can't be."""

    facts: RunFacts
    job: JobFile
    judge_job: JobFile | None
    findings: Sequence[Finding]
    made_of: MadeOf
    is_shipped: bool
    results: Results | None
    code_scorers: Sequence[str]

    @property
    def scores(self) -> Sequence[Mapping[str, object]]:
        """As results.json has them, scored here."""
        return [] if self.results is None else [score.as_json() for score in self.results.scores]


def check_files(folder: RunFolder, *, allow_code: bool, data: str | None, openers: Openers) -> RunFiles:
    """`data`: where the task's data are here. Raises UsageError for a folder that is no run, data that can't
    be read, and code that is not allowed."""
    facts, job = read_facts(folder.facts), read_job(folder.replies)
    if job is None:
        raise folder.no_job()
    if job.shard.of > 1:
        raise UsageError(
            f"{folder.path} is part {job.shard} of a run, and has no score",
            f"`infer merge` puts the parts together; `infer verify {folder.replies}` checks its replies",
        )
    found = grader_of(folder, facts, 1, allow_code=allow_code, openers=openers, by_rule_alone=True)
    is_ours = facts.task.source not in openers
    task = load_task(str(folder.task), allow_code=allow_code) if is_ours else None
    findings = [*_hashes(folder, facts), *_asked(folder, facts, job)]
    findings += _copy(folder, facts, found) if task is None else _task(folder, facts, task)
    made_of: MadeOf = "nothing" if task is None else "folder"
    scored = Scored([], None, ())
    try:
        if task is not None:
            rendered = check_items(folder, facts, task, data)
            made_of = rendered.made_of
            findings += rendered.findings
        scored = check_scores(folder, facts, job, allow_code=allow_code, openers=openers)
        findings += scored.findings
        if found.judges:
            rows = judge_rows(folder, graded(folder, found.grader), found.judges)
            findings += first_of(
                folder.judge_requests.name, _unlike(folder, rows), lambda n: f"{n} more lines differ"
            )
    except UsageError as e:  # files that are none of a run's: that is a finding, not a wrong command line
        findings.append(Finding(folder.path.name, e.message))
    except OSError as e:
        findings.append(Finding(folder.path.name, f"{e.filename} can't be read: {e.strerror}"))
    return RunFiles(
        facts=facts,
        job=job,
        judge_job=read_job(folder.judge_replies) if found.judges else None,
        findings=findings,
        made_of=made_of,
        is_shipped=task is not None and _is_shipped(task),
        results=scored.results,
        code_scorers=scored.code_scorers,
    )


def _hashes(folder: RunFolder, facts: RunFacts) -> Iterator[Finding]:
    """Files that are not those that the run was begun with."""
    for path in (folder.items, folder.requests, folder.examples):
        if not path.is_file():
            yield Finding(path.name, "it is missing")
        elif (sha256 := file_sha256(path)) != facts.files.get(path.name):
            yield Finding(path.name, f"its hash is {sha256}, {folder.facts.name} has another")


def _copy(folder: RunFolder, facts: RunFacts, found: FolderGrader) -> Iterator[Finding]:
    """Another program's task that is not what the run was begun with."""
    if found.task_sha256 != facts.task.sha256:
        yield Finding(
            folder.task.name,
            f"it, or code of its, has the hash {found.task_sha256}, {folder.facts.name} another",
        )


def _task(folder: RunFolder, facts: RunFacts, task: Task) -> Iterator[Finding]:
    """What the run says of its task, and the copy does not."""
    copy = folder.task.name
    if task.sha256 != facts.task.sha256:
        yield Finding(copy, f"its hash is {task.sha256}, {folder.facts.name} has another")
    now = TaskFacts(
        name=task.name,
        version=task.version,
        kind=task.kind,
        sha256=facts.task.sha256,
        template_sha256=template_sha256(task),
        given=facts.task.given,
        description=task.description,
        is_code=task.is_code,
        licence=task.licence,
        citation=task.citation,
        source=facts.task.source,
    )
    for name, value in vars(now).items():
        if value != getattr(facts.task, name):
            yield Finding(
                folder.facts.name, f"its task.{name} is {getattr(facts.task, name)!r:.60}, {copy} has another"
            )
    made = task.generation
    if facts.generation != GenerationFacts(dict(made.sampling), made.max_tokens, made.stop):
        yield Finding(folder.facts.name, f"its generation is not that of {copy}")


def _asked(folder: RunFolder, facts: RunFacts, job: JobFile) -> Iterator[Finding]:
    """A job that is not over the run's requests, in the way that the run says."""
    name = f"{folder.replies.name}.job"
    kind = "replies" if facts.task.kind == "generate" else "likelihoods"
    if job.kind != kind:
        yield Finding(name, f"it is one of {job.kind}, the task wants {kind}")
    elif kind == "replies" and bool(job.params.get("raw")) == facts.selection.chat:
        yield Finding(name, "it applies the chat template, or does not, as the run does not say")
    n_rows = _n_lines(folder)
    if job.n_rows != n_rows:
        yield Finding(name, f"it has {job.n_rows} rows, {folder.requests.name} has {n_rows}")


def _n_lines(folder: RunFolder) -> int:
    try:
        with open_regular(folder.requests) as file:
            return sum(1 for _ in file)
    except OSError:
        return 0


def _unlike(folder: RunFolder, rows: Iterator[bytes]) -> Iterator[str]:
    """Questions to a judge that are not what the answers ask."""
    if not folder.judge_requests.is_file():
        if next(rows, None) is not None:
            yield "it is missing"
        return
    with open_regular(folder.judge_requests) as file:
        for number, (was, now) in enumerate(zip_longest(file, rows), 1):
            if was != now:
                yield f"line {number} is not what is asked of the answers"


def _is_shipped(task: Task) -> bool:
    path = shipped_path(task.name)
    return path is not None and file_sha256(path) == task.sha256
