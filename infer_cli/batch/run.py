"""A batch at work: rows in, lines out, until all are answered or it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.batch.answer_loop import AnswerLoop, Stop
from infer_cli.batch.kind import Origin
from infer_cli.batch.planning import BatchPlan, job_of
from infer_cli.batch.request import JobRequest
from infer_cli.batch.room import Room
from infer_cli.errors import UsageError
from infer_cli.prompt.renderer import shared

if TYPE_CHECKING:
    from infer_cli.batch.rows import Row
    from infer_cli.batch.target import JobSoFar, Target


class Outcome(NamedTuple):
    """`stopped` None: all is answered. `n_failed` replies failed since the command was given, also before a
    crash that it went on after."""

    wall_s: float
    stopped: Stop | None
    n_failed: int


class BatchRun:
    """One run of a batch that was planned. What comes is counted in `tally`; `job` is what it is a run of.

    `so_far` is what the target had when it was planned. More than `max_failed` failures stop it; None: any
    number may fail. Raises UsageError where the target has another job, OutOfMemory, OSError.
    """

    def __init__(
        self,
        request: JobRequest,
        target: Target,
        so_far: JobSoFar,
        plan: BatchPlan,
        max_failed: float | None = None,
    ) -> None:
        _, session, preparer, scanned, choice = plan
        self._input, self._target = request.input, target
        self._running = request.start(session, choice, scanned)
        came_from = self._running.provenance()
        self.job = job_of(request, plan, came_from)
        try:
            so_far = target.begin(self.job, so_far, scanned.changed, redo=request.redo)
        except UsageError:
            self.close()
            raise
        policy = self._running.policy
        self.tally = request.new_tally(scanned, policy.width)
        self.tally.take_over(so_far.answered)
        self._flight = target.open_flight()
        self._output = target.open(so_far, ordered=self.job.ordered)
        self._loop = AnswerLoop(
            self._running,
            preparer,
            Origin(self.job.id, policy.mode, policy.promise, came_from),
            self._output,
            self.job.output_format,
            self.tally,
            self._flight,
            so_far.written.has,
            Room(choice.window, scanned.n_score_window),
            request.ahead,
            max_failed,
        )

    def interrupt(self) -> None:
        """End soon, without the replies that are under way. Safe in a signal handler."""
        self._loop.stop("interrupted")
        shared().cancel()

    def run(self, on_progress: Callable[[int], None] = lambda n_live: None) -> Outcome:
        """Answer all rows that are left; those first, each alone, that may have crashed the engine. Once.

        `on_progress` is called often, with the number of requests that the engine has. Raises OSError where
        the output can't be written.
        """
        began = time.perf_counter()
        try:
            if self._flight is not None and self._flight.crashes:
                suspects = frozenset(self._flight.crashes)
                alone = (row for row in self._rows() if row.index in suspects)
                self._loop.run_alone(alone, on_progress)
            self._loop.run(self._rows(), on_progress)
        finally:
            self._output.close()
            if self._flight is not None:
                self._flight.close()
        wall_s = time.perf_counter() - began
        self.tally.n_decode_rows, self.tally.n_dummy_rows = self._running.service.decode_rows
        if self._loop.stopped is None:
            self._target.finish()
        return Outcome(wall_s, self._loop.stopped, self._loop.n_failed)

    def close(self) -> None:
        """Give the engine's memory back."""
        self._running.close()

    def _rows(self) -> Iterator[Row]:
        """Of this shard."""
        return (row for row in self._input.rows() if self.job.shard.has(row.index))
