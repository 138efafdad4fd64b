"""A job over rows in a worker process, which is started again where it crashes."""

from __future__ import annotations

import os
from pathlib import Path

from infer_cli.cli.batch.job_command import JobCommand
from infer_cli.cli.batch.restarting import supervise_rows
from infer_cli.process.worker import Worker


def run_job(command: JobCommand, *, verbose: bool) -> int:
    """Do a job; returns the exit code."""
    if command.request.input.name == "-":
        _make_stdin_a_file(command.flags.output)

    def work(worker: Worker) -> int:
        from infer_cli.cli.batch.worker import answer_all

        return answer_all(command, worker)

    return supervise_rows(work, command.flags.output, quiet=command.flags.quiet, verbose=verbose)


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
