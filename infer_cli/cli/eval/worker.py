"""What `infer eval` does in its worker processes: prepare all runs, then answer and score each."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from infer_cli.batch.planning import plan_batch
from infer_cli.batch.request import JobRequest
from infer_cli.batch.run import BatchRun
from infer_cli.cli.batch import messages
from infer_cli.cli.batch.display import Display
from infer_cli.cli.batch.job_command import JobCommand, JobFlags
from infer_cli.cli.batch.worker import keep_record, loader
from infer_cli.cli.eval.other_programs import OPENERS
from infer_cli.cli.eval.report import report_run
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import ExitStatus, UsageError
from infer_cli.evaluation.runs.beginning import begin_run
from infer_cli.evaluation.runs.facts import read_facts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.graders import grader_of
from infer_cli.evaluation.runs.judging import (
    JudgeTarget,
    judge_model,
    judge_request,
    write_judge_requests,
)
from infer_cli.evaluation.runs.requests import check_asking, job_request
from infer_cli.evaluation.runs.rescoring import graded
from infer_cli.evaluation.runs.run_items import RunItems
from infer_cli.evaluation.runs.running_score import RunningScore
from infer_cli.evaluation.runs.task_groups import GROUPS_FILE
from infer_cli.evaluation.runs.task_source import open_task
from infer_cli.evaluation.runs.watched_target import WatchedTarget
from infer_cli.evaluation.scoring import score_run
from infer_cli.integrations.lm_eval.evaluation import open_harness
from infer_cli.integrations.lm_eval.names import PREFIX, is_harness_task
from infer_cli.process.explain import explained
from infer_cli.process.worker import on_interrupt
from infer_cli.prompt.renderer import closed_at_end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from infer_cli.batch.target import FileTarget
    from infer_cli.cli.eval.options import EvalCommand
    from infer_cli.evaluation.runs.facts import RunFacts
    from infer_cli.evaluation.runs.layout import PlannedRun
    from infer_cli.evaluation.runs.source import ItemSource
    from infer_cli.evaluation.runs.task_groups import TaskGroups
    from infer_cli.integrations.lm_eval.harness import Harness
    from infer_cli.process.worker import Worker

# What has no meaning where nothing is generated.
_OF_REPLIES = (
    "temperature", "seed", "seeds", "samples", "max_tokens", "stop", "top_k", "top_p", "min_p",
    "repeat_penalty", "frequency_penalty", "presence_penalty", "set_", "system", "parallel",
    "think", "reasoning_budget",
)  # fmt: skip
# What has no meaning where no chat template is applied.
_OF_CHATS = ("think", "reasoning_budget")


def prepare(command: EvalCommand, worker: Worker) -> int:
    """Find all models, begin all runs: whatever is wrong is told before the first answer, and what of the
    command line is wrong before anything is written."""
    notices = Notices(quiet=command.quiet, stats=not command.quiet)
    with explained(worker), closed_at_end():
        for model in dict.fromkeys(command.models):
            find_model(model, offline=command.offline, quiet=command.quiet)
        harness = _open_harness(command, notices)
        runs = command.runs(None if harness is None else harness.groups)
        sources = {
            task: _open(command, task, harness, notices) for task in dict.fromkeys(run.task for run in runs)
        }
        _check(command, list(sources.values()))
        if harness is not None:
            _write_groups(command, harness.groups)
        for run in runs:
            _begin(command, run, sources[run.task], notices)
    return ExitStatus.OK


def _check(command: EvalCommand, sources: Sequence[ItemSource]) -> None:
    """Raises UsageError for a flag that has no meaning for any of the tasks, or lacks one beside it."""
    name = sources[0].task.name
    if all(source.task.kind != "generate" for source in sources):
        for flag in _OF_REPLIES:
            if flag in command.given:
                raise UsageError(
                    f"{_flag(command, flag)} has no meaning for {name}:"
                    f" a task of the kind {sources[0].task.kind} generates nothing",
                    "leave it out",
                )
    elif not any(source.selection.chat for source in sources):
        for flag in _OF_CHATS:
            if flag in command.given:
                raise UsageError(
                    f"{_flag(command, flag)} has no meaning for {name}:"
                    " its prompts are completed as they are",
                    "--chat puts them through the model's chat template",
                )
    for source in sources:
        check_asking(source, command.asking)
    _check_bounds(command, sources)
    judges = dict.fromkeys(judge_model(source.judges, command.judge) for source in sources if source.judges)
    for judge in judges:
        find_model(judge, offline=command.offline, quiet=command.quiet)


def _flag(command: EvalCommand, name: str) -> str:
    if name == "think" and command.asking.thinking.think is False:
        return "--no-think"
    return "--" + name.rstrip("_").replace("_", "-")


def _check_bounds(command: EvalCommand, sources: Sequence[ItemSource]) -> None:
    """Raises UsageError for a metric that none of the tasks has."""
    if not command.bounds:
        return
    n_samples = command.asking.n_samples
    known = dict.fromkeys(metric.name for source in sources for metric in source.metrics(n_samples))
    for bound in command.bounds:
        if bound.metric not in known:
            tasks = dict.fromkeys(source.task.name for source in sources)
            has = "has" if len(tasks) == 1 else "have"
            raise UsageError(
                f"--fail-under: {', '.join(tasks)} {has} no metric {bound.metric!r}",
                f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}",
            )


def _open_harness(command: EvalCommand, notices: Notices) -> Harness | None:
    names = command.harness_tasks
    if not names:
        return None
    notices.status("reading the tasks of lm-evaluation-harness")
    try:
        harness = open_harness(
            names, command.lm_include, allow_code=command.allow_code, offline=command.offline
        )
    finally:
        notices.clear()
    return harness


def _write_groups(command: EvalCommand, groups: TaskGroups) -> None:
    """What names of groups stand for, as the next steps have processes of their own."""
    if any(members != (name.removeprefix(PREFIX),) for name, members in groups.members.items()):
        groups.write(command.output)
    else:
        (command.output / GROUPS_FILE).unlink(missing_ok=True)


def _open(command: EvalCommand, task: str, harness: Harness | None, notices: Notices) -> ItemSource:
    notices.status(f"reading {task}")
    try:
        selection = replace(command.selection, data=command.data.get(task))
        if harness is not None and is_harness_task(task):
            return harness.task(task.removeprefix(PREFIX), task, selection)
        return open_task(task, selection, allow_code=command.allow_code)
    finally:
        notices.clear()


def _begin(command: EvalCommand, run: PlannedRun, source: ItemSource, notices: Notices) -> None:
    notices.status(f"writing the items of {run.task}")
    try:
        begin_run(
            RunFolder(run.folder), source, command.scoring, command.invocation, redo=command.asking.redo
        )
    finally:
        notices.clear()


def do_run(command: EvalCommand, run: PlannedRun, worker: Worker) -> int:
    """Answer what is left of one run, then score it."""
    notices = Notices(quiet=command.quiet, stats=not command.quiet)
    folder = RunFolder(run.folder)
    try:
        with explained(worker), closed_at_end():
            facts = read_facts(folder.facts)
            status = _answer(command, run, folder, facts, worker, notices)
            if status not in (ExitStatus.OK, ExitStatus.SOME_ROWS_FAILED):
                return status
            on_interrupt()
            if command.asking.shard.of > 1:
                return status
            if not _ask_judges(command, folder, facts):
                notices.status("scoring")
                score_run(folder, allow_code=command.allow_code, openers=OPENERS)
                report_run(folder, notices)
            return status
    finally:
        notices.clear()


def have_judged(command: EvalCommand, run: PlannedRun, worker: Worker) -> int:
    """Have the answers of one run judged, what is left of them, then score it."""
    notices = Notices(quiet=command.quiet, stats=not command.quiet)
    folder = RunFolder(run.folder)
    try:
        with explained(worker), closed_at_end():
            judges = grader_of(
                folder, read_facts(folder.facts), 1, allow_code=command.allow_code, openers=OPENERS
            ).judges
            asking = command.asking
            request = judge_request(folder, asking.engine, parallel=asking.parallel, redo=asking.redo)
            flags = _job_flags(command, judge_model(judges, command.judge), folder.judge_replies, request)
            with closing(JudgeTarget(folder, retry_errors=command.retry_errors)) as target:
                status = _do_job(JobCommand(request, flags, command.settings), target, worker, notices)
            if status in (ExitStatus.OK, ExitStatus.SOME_ROWS_FAILED):
                on_interrupt()
                notices.status("scoring")
                score_run(folder, allow_code=command.allow_code, openers=OPENERS)
                report_run(folder, notices)
            return status
    finally:
        notices.clear()


def _ask_judges(command: EvalCommand, folder: RunFolder, facts: RunFacts) -> bool:
    """Write down what is to be asked of a model that judges; whether there is anything."""
    folder.judge_requests.unlink(missing_ok=True)
    found = grader_of(folder, facts, 1, allow_code=command.allow_code, openers=OPENERS, by_rule_alone=True)
    if not found.judges:
        return False
    if write_judge_requests(folder, graded(folder, found.grader), found.judges):
        return True
    folder.judge_requests.unlink()
    return False


def _answer(
    command: EvalCommand,
    run: PlannedRun,
    folder: RunFolder,
    facts: RunFacts,
    worker: Worker,
    notices: Notices,
) -> ExitStatus:
    request = job_request(folder, facts, command.asking)
    job = JobCommand(request, _job_flags(command, run.model, folder.replies, request), command.settings)
    grader = grader_of(
        folder, facts, request.n_samples, allow_code=command.allow_code, openers=OPENERS, by_rule_alone=True
    ).grader
    with RunItems(folder) as items:
        score = RunningScore(items, grader, facts.scoring, request.n_samples)
        target = WatchedTarget(folder.replies, score.answered, retry_errors=command.retry_errors)
        with closing(target):
            return _do_job(job, target, worker, notices, lambda: score.text)


def _do_job(
    job: JobCommand,
    target: FileTarget,
    worker: Worker,
    notices: Notices,
    score: Callable[[], str] = lambda: "",
) -> ExitStatus:
    """Answer what is left. `score` is shown beside the progress."""
    request, so_far = job.request, target.read()
    load = loader(job.flags, request, worker, notices)
    plan = plan_batch(request, target, so_far, load, notices)
    with closing(BatchRun(request, target, so_far, plan)) as batch:
        messages.tell_mode(plan, request, notices)
        display = Display(batch.tally, quiet=job.flags.quiet, score=score)
        on_interrupt(lambda _signal_name: batch.interrupt())
        try:
            outcome = batch.run(display.update)
        finally:
            display.close()
        for line in batch.tally.in_words(outcome.wall_s)[:2]:  # counts and speed
            notices.note(line)
        if truncated := batch.tally.truncated():
            notices.warn(truncated)
        keep_record(job, plan, batch, outcome, notices)
        return messages.tell_status(batch.tally, outcome, notices, resumes=True)


def _job_flags(command: EvalCommand, model: str | None, output: Path, request: JobRequest) -> JobFlags:
    return JobFlags(
        model=model,
        offline=command.offline,
        quiet=command.quiet,
        no_record=command.no_record,
        input=request.input,
        output=output,
        ordered=False,
        shard=request.shard,
        max_errors=None,
        retry_errors=command.retry_errors,
        redo=request.redo,
        dry_run=False,
        summary=None,
    )
