"""A batch at work: rows in, lines out, until all are answered or it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.batch.answer_loop import AnswerLoop, Stop
from infer_cli.batch.replies import Origin
from infer_cli.prompt.renderer import shared

if TYPE_CHECKING:
    from infer_cli.batch.job import JobFile
    from infer_cli.batch.preparing import Preparer
    from infer_cli.batch.rows import Input, Row
    from infer_cli.batch.summary import Tally
    from infer_cli.batch.target import JobSoFar, Target
    from infer_cli.runtime.running import Running


class Outcome(NamedTuple):
    """`stopped` None: all is answered. `n_failed` replies failed since the command was given, also before a
    crash that it went on after."""

    wall_s: float
    stopped: Stop | None
    n_failed: int


class BatchRun:
    """One run of a job: `input` has its rows, `so_far` what need not be answered again, `n_window` is the
    tokens of a slot. What comes is counted in `tally`; `on_progress` is called often, with the number of
    requests that the engine has. More than `max_failed` failures stop it; None: any number may fail.
    """

    def __init__(
        self,
        job: JobFile,
        input: Input,
        running: Running,
        preparer: Preparer,
        target: Target,
        so_far: JobSoFar,
        tally: Tally,
        on_progress: Callable[[int], None],
        *,
        n_window: int,
        max_failed: float | None = None,
    ) -> None:
        self._job, self._input, self._running = job, input, running
        self._target, self._tally = target, tally
        self._flight = target.open_flight()
        self._output = target.open(so_far, ordered=job.ordered)
        self._loop = AnswerLoop(
            running,
            preparer,
            Origin(job.id, running.policy.mode, running.policy.promise, running.provenance()),
            self._output,
            job.output_format,
            tally,
            self._flight,
            so_far.written.has,
            n_window,
            max_failed,
            on_progress,
        )

    def interrupt(self) -> None:
        """End soon, without the replies that are under way. Safe in a signal handler."""
        self._loop.stop("interrupted")
        shared().cancel()

    def run(self) -> Outcome:
        """Answer all rows that are left; those first, each alone, that may have crashed the engine. Once.

        Raises OSError where the output can't be written.
        """
        began = time.perf_counter()
        try:
            if self._flight is not None and self._flight.crashes:
                suspects = frozenset(self._flight.crashes)
                self._loop.run_alone(row for row in self._rows() if row.index in suspects)
            self._loop.run(self._rows())
        finally:
            self._output.close()
            if self._flight is not None:
                self._flight.close()
        wall_s = time.perf_counter() - began
        self._tally.n_decode_rows, self._tally.n_dummy_rows = self._running.service.decode_rows
        if self._loop.stopped is None:
            self._target.finish()
        return Outcome(wall_s, self._loop.stopped, self._loop.n_failed)

    def _rows(self) -> Iterator[Row]:
        """Of this shard."""
        return (row for row in self._input.rows() if self._job.shard.has(row.index))
