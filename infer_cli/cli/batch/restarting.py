"""A worker process that answers rows, started again where one of them crashes it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.process.supervisor import supervise
from infer_cli.process.worker import Worker

if TYPE_CHECKING:
    from infer_cli.errors import NativeCrash, OutOfMemory


def supervise_rows(work: Callable[[Worker], int], output: Path | None, *, quiet: bool, verbose: bool) -> int:
    """Have rows answered to `output`, again as long as a crash leaves rows to blame; None: once. Returns the
    exit code."""
    n_crashes = 0

    def on_crash(error: NativeCrash | OutOfMemory) -> bool:
        nonlocal n_crashes
        if output is None or not _tell_suspects(error, output, quiet=quiet):
            return False
        n_crashes += 1
        return True

    while True:
        n_before = n_crashes
        status = supervise(work, verbose=verbose, on_crash=on_crash)
        if n_crashes == n_before:
            return status


def _tell_suspects(error: NativeCrash | OutOfMemory, output: Path, *, quiet: bool) -> bool:
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
