"""What `infer batch` does in its worker process: a batch is planned, run and told."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from infer_cli.batch.measuring import try_f16
from infer_cli.batch.planning import (
    EngineChoice,
    LoadPlan,
    check_seed,
    job_of,
    may_try_f16,
    plan,
    plan_load,
    quicker_than_canonical,
)
from infer_cli.batch.preparing import Preparer
from infer_cli.batch.request import BatchRequest
from infer_cli.batch.run import BatchRun, Outcome
from infer_cli.batch.scan import Scan, scan
from infer_cli.batch.summary import Tally
from infer_cli.batch.target import FileTarget, JobSoFar, StreamTarget, Target
from infer_cli.cli.batch import report
from infer_cli.cli.batch.display import Display
from infer_cli.cli.batch.options import BatchOptions
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import wait_for
from infer_cli.errors import ExitStatus, InferError
from infer_cli.process.explain import explained
from infer_cli.process.worker import on_interrupt
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.runtime.calibration import rates_by_width
from infer_cli.runtime.session import Session

if TYPE_CHECKING:
    from infer_cli.batch.job import JobFile
    from infer_cli.models.installed import InstalledModel
    from infer_cli.process.worker import Worker
    from infer_cli.records.record import Record


def answer_all(options: BatchOptions, worker: Worker) -> int:
    """Answer one command line; returns the exit code. Raises InferError."""
    notices = Notices(quiet=options.quiet, stats=not options.quiet)
    try:
        with explained(worker), closed_at_end():
            batch = _Batch(options, worker, notices)
            return batch.dry_run() if options.dry_run else batch.run()
    finally:
        notices.clear()


class _BatchPlan(NamedTuple):
    """A batch that may begin. `begun` is the job that goes on; None: it is a new one."""

    begun: JobFile | None
    session: Session
    preparer: Preparer
    scanned: Scan
    choice: EngineChoice


class _Batch:
    """The steps of a batch, each with what the user is told of it."""

    def __init__(self, options: BatchOptions, worker: Worker, notices: Notices) -> None:
        self._options, self._worker, self._notices = options, worker, notices
        self._request = _request(options)

    def dry_run(self) -> ExitStatus:
        """Only count and measure."""
        planned = self._plan(None, JobSoFar.nothing())
        self._tell_mode(planned)
        loaded, policy = planned.session.loaded, planned.choice.policy
        return report.tell_dry_run(planned.scanned, loaded, policy, self._options.summary, self._notices)

    def run(self) -> ExitStatus:
        with closing(self._target()) as target:
            so_far = target.read()
            planned = self._plan(target, so_far)
            begun, session, preparer, scanned, choice = planned
            running = session.start(choice.window, choice.policy)
            job = job_of(
                self._request,
                begun,
                scanned,
                preparer,
                choice.width,
                session.loaded.window,
                running.provenance(),
            )
            so_far = target.begin(job, so_far, scanned.changed, redo=self._request.redo)
            self._tell_mode(planned)
            tally = Tally(scanned.n_mine, scanned.n_replies, running.policy.width)
            tally.take_over(so_far.answered)
            display = Display(tally, quiet=self._options.quiet)
            max_errors = self._options.max_errors
            run = BatchRun(
                job,
                self._request.input,
                running,
                preparer,
                target,
                so_far,
                tally,
                display.update,
                n_window=choice.window,
                max_failed=None if max_errors is None else max_errors.of(scanned.n_replies),
            )
            on_interrupt(lambda _signal_name: run.interrupt())
            try:
                outcome = run.run()
            finally:
                display.close()
            self._tell_end(planned, job, tally, outcome)
            return report.tell_status(tally, outcome, self._notices, resumes=target.resumes)

    # --- the plan ------------------------------------------------------------------------------

    def _target(self) -> Target:
        output = self._options.output
        if output is not None and (output.is_file() or not output.exists()):
            return FileTarget(output, retry_errors=self._options.retry_errors)
        self._notices.warn("a batch whose output is a pipe can't be resumed: -o FILE can")

        def open_stream() -> BinaryIO:
            return sys.stdout.buffer if output is None else open(output, "wb")

        return StreamTarget(open_stream)

    def _plan(self, target: Target | None, so_far: JobSoFar) -> _BatchPlan:
        """`target` None: nothing will be written, so nothing can be in the way of it."""
        request, begun, options = self._request, so_far.job, self._options
        load = plan_load(request, begun)
        model = find_model(options.model, offline=options.offline, quiet=options.quiet)
        session = self._open(model, load)
        preparer = request.preparer(session, request.run_seed(begun))
        scanned = self._scan(session, preparer, so_far)
        if target is not None:
            check_seed(request, begun, scanned)
            target.check_rows(scanned.changed, redo=request.redo)
        if may_try_f16(request, begun, scanned, session.loaded):
            session = self._with_quicker_weights(session, load)
        choice = self._choose_engine(session, begun, scanned)
        return _BatchPlan(begun, session, preparer, scanned, choice)

    def _open(self, model: InstalledModel, load: LoadPlan) -> Session:
        session = Session(model, load.engine, load.width, self._worker.native_fd)
        wait_for(session, self._notices)
        return session

    def _scan(self, session: Session, preparer: Preparer, so_far: JobSoFar) -> Scan:
        dry_run = self._options.dry_run

        def tell(n_rows: int) -> None:
            if n_rows % 100 == 0:
                self._notices.status(f"reading rows: {n_rows}")

        def tell_failure(index: int, error: InferError) -> None:
            if dry_run:  # otherwise its line in the output says so
                self._notices.warn(f"row {index}: {error.message}")

        try:
            return scan(
                self._request,
                preparer,
                so_far.answered,
                tell,
                tell_failure,
                count_distinct=dry_run or session.loaded.policy.mode == "fast",
            )
        finally:
            self._notices.clear()

    def _with_quicker_weights(self, session: Session, load: LoadPlan) -> Session:
        self._notices.status("looking whether F16 weights are quicker")
        expanded = LoadPlan(dataclasses.replace(load.engine, expand=True), load.width)
        trial = try_f16(session, lambda: self._open(session.model, expanded))
        (self._notices.warn if trial.failed else self._notices.note)(trial.why)
        return trial.session

    def _choose_engine(self, session: Session, begun: JobFile | None, scanned: Scan) -> EngineChoice:
        def measure(n_window: int, n_replies: int) -> Mapping[int, float]:
            self._notices.status("looking for the best width")
            return rates_by_width(session.loaded, n_window, n_replies)

        choice = plan(self._request, begun, scanned, session.loaded, measure)
        self._notices.clear()
        for note in choice.notes:
            self._notices.note(note)
        return choice

    # --- what is told --------------------------------------------------------------------------

    def _tell_mode(self, planned: _BatchPlan) -> None:
        """Say which mode it is where none was asked for."""
        policy, engine = planned.session.loaded.policy, self._request.engine
        if engine.fallback is None:
            return
        if planned.begun is not None:
            why = ", as the job was begun"
        elif policy.passed_over:
            why = f", not {engine.mode}: {policy.passed_over}"
        else:
            why = ", the default: what stands beside a reply does not change it"
        self._notices.note(f"mode {policy.mode}{why}")

    def _tell_end(self, planned: _BatchPlan, job: JobFile, tally: Tally, outcome: Outcome) -> None:
        """Tell what was done, and keep it."""
        options, loaded = self._options, planned.session.loaded
        quicker = quicker_than_canonical(planned.begun, planned.scanned, loaded)
        report.tell_end(
            job,
            tally,
            outcome.wall_s,
            loaded.policy,
            quicker,
            options.output,
            options.summary,
            self._notices,
        )
        if outcome.stopped == "interrupted" or options.no_record or not tally.n_done:
            return
        from infer_cli.batch.record import record_of_run
        from infer_cli.records.store import keep

        goes_on = planned.begun is not None and self._request.engine.fallback is not None
        settings = [
            setting._replace(
                value=loaded.policy.mode, origin="the job's beginning" if goes_on else setting.origin
            )
            if setting.name == "mode"
            else setting
            for setting in options.settings
        ]

        def records() -> Iterator[Record]:  # made by `keep`: a failure is a warning, the replies are out
            yield record_of_run(
                self._request,
                job,
                planned.session,
                planned.preparer,
                settings,
                tally,
                outcome.wall_s,
                options.output,
            )

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
        seed=None if seed is None else int(str(seed.value)),
        seed_is_for_this=seed is not None and seed.by_flag,
        n_samples=options.n_samples,
        max_tokens=options.max_tokens,
        stop=options.stop,
        n_logprobs=options.n_logprobs,
        deadline_s=options.deadline_s,
    )
