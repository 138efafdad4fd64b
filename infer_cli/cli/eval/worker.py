"""What `infer eval` does in its worker processes: prepare all runs, then answer and score each."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

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
from infer_cli.evaluation.runs.facts import RunFacts, read_facts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.graders import grader_of
from infer_cli.evaluation.runs.judging import (
    JudgeTarget,
    judge_model,
    judge_request,
    write_judge_requests,
)
from infer_cli.evaluation.runs.requests import job_request
from infer_cli.evaluation.runs.rescoring import graded
from infer_cli.evaluation.runs.run_items import RunItems
from infer_cli.evaluation.runs.running_score import RunningScore
from infer_cli.evaluation.runs.task_groups import forget_groups
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
    from infer_cli.cli.eval.options import Bound, EvalCommand
    from infer_cli.evaluation.runs.layout import PlannedRun
    from infer_cli.evaluation.runs.source import ItemSource
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
    """Find all models, begin all runs: whatever is wrong is told before the first answer."""
    notices = Notices(quiet=command.quiet, stats=not command.quiet)
    with explained(worker), closed_at_end():
        for model in dict.fromkeys(command.models):
            find_model(model, offline=command.offline, quiet=command.quiet)
        harness = _open_harness(command, notices)
        runs = command.runs(None if harness is None else harness.groups)
        begun = [_begin(command, run, harness, notices) for run in runs]
        facts = [each.facts for each in begun]
        _check_bounds(command.bounds, begun)
    if all(each.task.kind != "generate" for each in facts):
        for name in _OF_REPLIES:
            if name in command.given:
                raise UsageError(
                    f"{_flag(command, name)} has no meaning for {facts[0].task.name}:"
                    f" a task of the kind {facts[0].task.kind} generates nothing",
                    "leave it out",
                )
    elif not any(each.selection.chat for each in facts):
        for name in _OF_CHATS:
            if name in command.given:
                raise UsageError(
                    f"{_flag(command, name)} has no meaning for {facts[0].task.name}: its prompts are"
                    " completed as they are",
                    "--chat puts them through the model's chat template",
                )
    return ExitStatus.OK


def _flag(command: EvalCommand, name: str) -> str:
    if name == "think" and command.asking.thinking.think is False:
        return "--no-think"
    return "--" + name.rstrip("_").replace("_", "-")


class _Begun(NamedTuple):
    facts: RunFacts
    metrics: tuple[str, ...]


def _check_bounds(bounds: Sequence[Bound], begun: Sequence[_Begun]) -> None:
    """Raises UsageError for a metric that none of the tasks has."""
    known = dict.fromkeys(name for each in begun for name in each.metrics)
    for bound in bounds:
        if bound.metric not in known:
            tasks = dict.fromkeys(each.facts.task.name for each in begun)
            has = "has" if len(tasks) == 1 else "have"
            raise UsageError(
                f"--fail-under: {', '.join(tasks)} {has} no metric {bound.metric!r}",
                f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}",
            )


def _open_harness(command: EvalCommand, notices: Notices) -> Harness | None:
    """With what names of groups stand for written down, as the next steps have processes of their own."""
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
    groups = harness.groups
    if any(members != (name.removeprefix(PREFIX),) for name, members in groups.members.items()):
        groups.write(command.output)
    else:
        forget_groups(command.output)
    return harness


def _begin(command: EvalCommand, run: PlannedRun, harness: Harness | None, notices: Notices) -> _Begun:
    notices.status(f"reading {run.task}")
    try:
        selection = replace(command.selection, data=command.data.get(run.task))
        source: ItemSource
        if harness is not None and is_harness_task(run.task):
            source = harness.task(run.task.removeprefix(PREFIX), run.task, selection)
        else:
            source = open_task(run.task, selection, allow_code=command.allow_code)
        folder, redo = RunFolder(run.folder), command.asking.redo
        facts = begin_run(folder, source, command.scoring, command.invocation, redo=redo)
    finally:
        notices.clear()
    request = job_request(folder, facts, command.asking)
    found = grader_of(folder, facts, request.n_samples, allow_code=command.allow_code, openers=OPENERS)
    if found.judges:
        judge = judge_model(found.judges, command.judge)
        find_model(judge, offline=command.offline, quiet=command.quiet)
    return _Begun(facts, tuple(metric.name for metric in found.grader.metrics))


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
