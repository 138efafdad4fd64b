"""The runs of one command line, each in a worker process of its own, which is started again where it crashes.

A process can hold one mode (`runtime.llama_environment`), and models may have different ones.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from infer_cli.cli.batch.supervised import tell_suspects
from infer_cli.cli.eval.options import EvalCommand
from infer_cli.errors import ExitStatus
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.process.supervisor import supervise
from infer_cli.process.worker import Worker

if TYPE_CHECKING:
    from infer_cli.errors import InferError, NativeCrash, OutOfMemory

# Which step a worker has that is this command line run again.
_STEP_VARIABLE = "_INFER_EVAL_STEP"
_GOES_ON = (ExitStatus.OK, ExitStatus.SOME_ROWS_FAILED)


def run_all(command: EvalCommand, *, verbose: bool) -> int:
    """Do all runs, show their scores; returns the exit code."""
    first, statuses = int(os.environ.pop(_STEP_VARIABLE, "0")), set[int]()
    for step in range(first, len(command.runs) + 1):
        os.environ[_STEP_VARIABLE] = str(step)
        status = _run_step(command, step, verbose=verbose)
        if status not in _GOES_ON:
            return status
        statuses.add(status)
    os.environ.pop(_STEP_VARIABLE, None)
    from infer_cli.cli.eval.view import show_runs

    show_runs(command)
    return max(statuses)


def _run_step(command: EvalCommand, step: int, *, verbose: bool) -> int:
    """Step 0 prepares all runs, the others are the runs."""
    crash: list[InferError] = []

    def work(worker: Worker) -> int:
        from infer_cli.cli.eval.worker import do_run, prepare

        return do_run(command, command.runs[step - 1], worker) if step else prepare(command, worker)

    def on_crash(error: NativeCrash | OutOfMemory) -> bool:
        replies = RunFolder(command.runs[step - 1].folder).replies
        if not step or not tell_suspects(error, replies, quiet=command.quiet):
            return False
        crash.append(error)
        return True

    while True:
        n_crashes = len(crash)
        status = supervise(work, verbose=verbose, on_crash=on_crash)
        if len(crash) == n_crashes:
            return status
