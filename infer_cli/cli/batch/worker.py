"""What `infer batch` and `infer score` do in their worker process: a job is planned, run and told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO

from infer_cli.batch.engine_choice import LoadPlan
from infer_cli.batch.planning import BatchPlan, Load, plan_batch
from infer_cli.batch.request import BatchRequest, JobRequest
from infer_cli.batch.run import BatchRun, Outcome
from infer_cli.batch.target import FileTarget, JobSoFar, StreamTarget, Target
from infer_cli.cli.batch import messages
from infer_cli.cli.batch.display import Display
from infer_cli.cli.batch.job_command import JobCommand, JobFlags
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import switched, wait_for, warn_of_unused
from infer_cli.errors import ExitStatus
from infer_cli.process.explain import explained
from infer_cli.process.worker import on_interrupt
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.prompt.thinking import NO_BUDGET
from infer_cli.runtime.session import Session
from infer_cli.text.reasoning import pairs_of
from infer_cli.types import TEMPLATE_DECIDES

if TYPE_CHECKING:
    from infer_cli.process.worker import Worker
    from infer_cli.records.record import Record


def answer_all(command: JobCommand, worker: Worker) -> int:
    """Answer one command line; returns the exit code. Raises InferError."""
    notices = Notices(quiet=command.flags.quiet, stats=not command.flags.quiet)
    try:
        with explained(worker), closed_at_end():
            batch = _Batch(command, worker, notices)
            return batch.dry_run() if command.flags.dry_run else batch.run()
    finally:
        notices.clear()


class _Batch:
    """The steps of a job, each with what the user is told of it."""

    def __init__(self, command: JobCommand, worker: Worker, notices: Notices) -> None:
        self._command, self._flags, self._request = command, command.flags, command.request
        self._worker, self._notices = worker, notices

    def dry_run(self) -> ExitStatus:
        """Only count and measure."""
        plan = plan_batch(
            self._request,
            None,
            JobSoFar.nothing(),
            loader(self._flags, self._request, self._worker, self._notices),
            self._notices,
        )
        messages.tell_mode(plan, self._request, self._notices)
        loaded, policy = plan.session.loaded, plan.choice.policy
        return messages.tell_dry_run(
            self._request, plan.scanned, loaded, policy, self._flags.summary, self._notices
        )

    def run(self) -> ExitStatus:
        with closing(self._target()) as target:
            so_far = target.read()
            plan = plan_batch(
                self._request,
                target,
                so_far,
                loader(self._flags, self._request, self._worker, self._notices),
                self._notices,
            )
            most = self._flags.max_errors
            max_failed = None if most is None else most.of(plan.scanned.n_replies)
            with closing(BatchRun(self._request, target, so_far, plan, max_failed)) as run:
                return self._answer(plan, run, resumes=target.resumes)

    def _answer(self, plan: BatchPlan, run: BatchRun, *, resumes: bool) -> ExitStatus:
        messages.tell_mode(plan, self._request, self._notices)
        display = Display(run.tally, quiet=self._flags.quiet)
        on_interrupt(lambda _signal_name: run.interrupt())
        try:
            outcome = run.run(display.update)
        finally:
            display.close()
        messages.tell_end(plan, run, outcome, self._flags.output, self._flags.summary, self._notices)
        keep_record(self._command, plan, run, outcome, self._notices)
        return messages.tell_status(run.tally, outcome, self._notices, resumes=resumes)

    def _target(self) -> Target:
        output = self._flags.output
        if output is not None and (output.is_file() or not output.exists()):
            return FileTarget(output, retry_errors=self._flags.retry_errors)
        self._notices.warn("a batch whose output is a pipe can't be resumed: -o FILE can")

        def open_stream() -> BinaryIO:
            return sys.stdout.buffer if output is None else open(output, "wb")

        return StreamTarget(open_stream)


def loader(flags: JobFlags, request: JobRequest, worker: Worker, notices: Notices) -> Load:
    """Finds the model, fetched if need be; what it returns loads it and tells how far that is."""
    model = find_model(flags.model, offline=flags.offline, quiet=flags.quiet)

    is_told = False

    def load(plan: LoadPlan) -> Session:
        nonlocal is_told
        session = Session(model, plan.engine, plan.width, worker.native_fd)
        wait_for(session, notices)
        if not is_told:  # a model is loaded again with other weights
            is_told = True
            _tell_template(session, request, notices)
        return session

    return load


def _tell_template(session: Session, request: JobRequest, notices: Notices) -> None:
    """Warn of what was given to the chat template and has no use there. Raises UsageError where reasoning
    can't be turned off."""
    variables, file = request.variables, request.chat_template
    thinking = request.thinking if isinstance(request, BatchRequest) else TEMPLATE_DECIDES
    if not (variables or thinking != TEMPLATE_DECIDES) or not (file or session.own_template):
        return
    template = session.chat_template(file)
    warn_of_unused(template, variables, notices)
    switched(template, thinking.think, variables, notices)
    if thinking.budget is not None and not pairs_of(template.source):
        notices.warn(f"--reasoning-budget: {NO_BUDGET}")


def keep_record(
    command: JobCommand, plan: BatchPlan, run: BatchRun, outcome: Outcome, notices: Notices
) -> None:
    """Keep what was done. The replies are out: a failure is a warning."""
    flags = command.flags
    if outcome.stopped == "interrupted" or flags.no_record or not run.tally.n_done:
        return
    from infer_cli.batch.record import record_of_run
    from infer_cli.records.store import keep

    def records() -> Iterator[Record]:
        yield record_of_run(command.request, plan, run, outcome, command.settings, flags.output)

    keep(records(), notices.warn)
