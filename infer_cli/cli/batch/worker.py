"""What `infer batch` does in its worker process: a batch is planned, run and told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO

from infer_cli.batch.engine_choice import LoadPlan
from infer_cli.batch.planning import BatchPlan, Load, plan_batch
from infer_cli.batch.request import BatchRequest
from infer_cli.batch.run import BatchRun, Outcome
from infer_cli.batch.target import FileTarget, JobSoFar, StreamTarget, Target
from infer_cli.cli.batch import messages
from infer_cli.cli.batch.display import Display
from infer_cli.cli.batch.options import BatchOptions
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import wait_for, warn_of_unused
from infer_cli.errors import ExitStatus
from infer_cli.process.explain import explained
from infer_cli.process.worker import on_interrupt
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.runtime.session import Session

if TYPE_CHECKING:
    from infer_cli.process.worker import Worker
    from infer_cli.records.record import Record


def answer_all(options: BatchOptions, worker: Worker) -> int:
    """Answer one command line; returns the exit code. Raises InferError."""
    notices = Notices(quiet=options.quiet, stats=not options.quiet)
    try:
        with explained(worker), closed_at_end():
            batch = _BatchCommand(options, worker, notices)
            return batch.dry_run() if options.dry_run else batch.run()
    finally:
        notices.clear()


class _BatchCommand:
    """The steps of a batch, each with what the user is told of it."""

    def __init__(self, options: BatchOptions, worker: Worker, notices: Notices) -> None:
        self._options, self._worker, self._notices = options, worker, notices
        self._request = _request(options)

    def dry_run(self) -> ExitStatus:
        """Only count and measure."""
        plan = plan_batch(self._request, None, JobSoFar.nothing(), self._loader(), self._notices)
        messages.tell_mode(plan, self._request.engine, self._notices)
        loaded, policy = plan.session.loaded, plan.choice.policy
        return messages.tell_dry_run(plan.scanned, loaded, policy, self._options.summary, self._notices)

    def run(self) -> ExitStatus:
        with closing(self._target()) as target:
            so_far = target.read()
            plan = plan_batch(self._request, target, so_far, self._loader(), self._notices)
            most = self._options.max_errors
            max_failed = None if most is None else most.of(plan.scanned.n_replies)
            with closing(BatchRun(self._request, target, so_far, plan, max_failed)) as run:
                return self._answer(plan, run, resumes=target.resumes)

    def _answer(self, plan: BatchPlan, run: BatchRun, *, resumes: bool) -> ExitStatus:
        messages.tell_mode(plan, self._request.engine, self._notices)
        display = Display(run.tally, quiet=self._options.quiet)
        on_interrupt(lambda _signal_name: run.interrupt())
        try:
            outcome = run.run(display.update)
        finally:
            display.close()
        messages.tell_end(plan, run, outcome, self._options.output, self._options.summary, self._notices)
        self._record(plan, run, outcome)
        return messages.tell_status(run.tally, outcome, self._notices, resumes=resumes)

    def _target(self) -> Target:
        output = self._options.output
        if output is not None and (output.is_file() or not output.exists()):
            return FileTarget(output, retry_errors=self._options.retry_errors)
        self._notices.warn("a batch whose output is a pipe can't be resumed: -o FILE can")

        def open_stream() -> BinaryIO:
            return sys.stdout.buffer if output is None else open(output, "wb")

        return StreamTarget(open_stream)

    def _loader(self) -> Load:
        options = self._options
        model = find_model(options.model, offline=options.offline, quiet=options.quiet)

        def load(plan: LoadPlan) -> Session:
            session = Session(model, plan.engine, plan.width, self._worker.native_fd)
            wait_for(session, self._notices)
            if options.variables and not options.raw and (options.chat_template or session.own_template):
                template = session.chat_template(options.chat_template)
                warn_of_unused(template, options.variables, self._notices)
            return session

        return load

    def _record(self, plan: BatchPlan, run: BatchRun, outcome: Outcome) -> None:
        """Keep what was done. The replies are out: a failure is a warning."""
        options = self._options
        if outcome.stopped == "interrupted" or options.no_record or not run.tally.n_done:
            return
        from infer_cli.batch.record import record_of_run
        from infer_cli.records.store import keep

        def records() -> Iterator[Record]:
            yield record_of_run(self._request, plan, run, outcome, options.settings, options.output)

        keep(records(), self._notices.warn)


def _request(options: BatchOptions) -> BatchRequest:
    seed = options.seed
    return BatchRequest(
        input=options.input,
        engine=options.engine,
        parallel=options.parallel,
        shard=options.shard,
        output_format=options.output_format,
        ordered=options.ordered,
        redo=options.redo,
        system=options.system,
        raw=options.raw,
        variables=options.variables,
        chat_template=options.chat_template,
        overflow=options.overflow,
        sampling=options.sampling,
        seed=None if seed is None else seed.value,
        seed_is_for_this=seed is not None and seed.by_flag,
        n_samples=options.n_samples,
        max_tokens=options.max_tokens,
        stop=options.stop,
        n_logprobs=options.n_logprobs,
        deadline_s=options.deadline_s,
    )
