"""The runs of one command line, each in a worker process of its own, which is started again where it crashes.

A process can hold one mode (`runtime.llama_environment`), and models may have different ones.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from infer_cli.cli.batch.restarting import supervise_rows
from infer_cli.cli.eval.options import EvalCommand
from infer_cli.errors import ExitStatus
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.task_groups import read_groups
from infer_cli.process.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_cli.evaluation.runs.layout import PlannedRun

# Which step a worker has that is this command line run again.
_STEP_VARIABLE = "_INFER_EVAL_STEP"
_GOES_ON = (ExitStatus.OK, ExitStatus.SOME_ROWS_FAILED)


def run_all(command: EvalCommand, *, verbose: bool) -> int:
    """Do all runs, show their scores; returns the exit code."""
    first, statuses = int(os.environ.pop(_STEP_VARIABLE, "0")), set[int]()
    if not first:
        os.environ[_STEP_VARIABLE] = "0"
        status = _run_step(command, 0, [], verbose=verbose)
        if status not in _GOES_ON:
            return status
        statuses.add(status)
    runs = command.runs(read_groups(command.output) if command.harness_tasks else None)
    for step in range(max(first, 1), 2 * len(runs) + 1):
        if step > len(runs) and not _is_judged(command, runs[step - len(runs) - 1]):
            continue
        os.environ[_STEP_VARIABLE] = str(step)
        status = _run_step(command, step, runs, verbose=verbose)
        if status not in _GOES_ON:
            return status
        statuses.add(status)
    os.environ.pop(_STEP_VARIABLE, None)
    from infer_cli.cli.eval.view import show_runs

    show_runs(command, runs)
    return max(statuses)


def _is_judged(command: EvalCommand, run: PlannedRun) -> bool:
    """Whether a run is whole, and a model is to judge it."""
    return command.asking.shard.of == 1 and RunFolder(run.folder).judge_requests.exists()


def _run_step(command: EvalCommand, step: int, runs: Sequence[PlannedRun], *, verbose: bool) -> int:
    """Step 0 prepares all runs, then come the runs, then those that are judged."""
    run = runs[(step - 1) % len(runs)] if runs else None
    is_judging = step > len(runs)

    def work(worker: Worker) -> int:
        from infer_cli.cli.eval.worker import do_run, have_judged, prepare

        if run is None:
            return prepare(command, worker)
        return (have_judged if is_judging else do_run)(command, run, worker)

    output = None
    if run is not None:
        folder = RunFolder(run.folder)
        output = folder.judge_replies if is_judging else folder.replies
    return supervise_rows(work, output, quiet=command.quiet, verbose=verbose)
