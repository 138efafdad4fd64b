"""A job over rows in a worker process, which is started again where it crashes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.cli.batch.job_command import JobCommand
from infer_cli.process.supervisor import supervise
from infer_cli.process.worker import Worker

if TYPE_CHECKING:
    from infer_cli.errors import InferError, NativeCrash, OutOfMemory


def run_job(command: JobCommand, *, verbose: bool) -> int:
    """Do a job; returns the exit code."""
    if command.request.input.name == "-":
        _make_stdin_a_file(command.flags.output)
    crash: list[InferError] = []

    def work(worker: Worker) -> int:
        from infer_cli.cli.batch.worker import answer_all

        return answer_all(command, worker)

    def on_crash(error: NativeCrash | OutOfMemory) -> bool:
        output, quiet = command.flags.output, command.flags.quiet
        if output is None or not tell_suspects(error, output, quiet=quiet):
            return False
        crash.append(error)
        return True

    while True:
        n_crashes = len(crash)
        status = supervise(work, verbose=verbose, on_crash=on_crash)
        if len(crash) == n_crashes:
            return status


def tell_suspects(error: NativeCrash | OutOfMemory, output: Path, *, quiet: bool) -> bool:
    """Write down which rows were under way at a crash, for the next worker; False where there were none."""
    from infer_cli.batch.in_flight import note_crash
    from infer_cli.batch.job import counted_rows, flight_path
    from infer_cli.errors import OutOfMemory
    from infer_cli.text.sanitize import single_line

    suspects = note_crash(flight_path(output), killed=isinstance(error, OutOfMemory))
    if not suspects.to_try and not suspects.given_up:
        return False
    parts = [f"warning: {single_line(error.message)}"]
    if suspects.to_try:
        parts.append(f"tried again alone: {counted_rows(suspects.to_try)}")
    if suspects.given_up:
        parts.append(f"given up: {counted_rows(suspects.given_up)}")
    if sys.stderr is not None and not quiet:
        print("; ".join(parts), file=sys.stderr)
    return True


def _make_stdin_a_file(output: Path | None) -> None:
    """Copy a piped stdin to a file that has no name: it is read twice, and again after a crash."""
    import stat
    import tempfile

    if stat.S_ISREG(os.fstat(0).st_mode):
        return
    with tempfile.TemporaryFile(dir=None if output is None else output.parent) as file:
        while chunk := os.read(0, 1 << 20):
            file.write(chunk)
        file.flush()
        os.dup2(file.fileno(), 0)
