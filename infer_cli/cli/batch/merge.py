"""`infer merge`: the outputs of a batch's shards as one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import ExitStatus, UsageError


def merge(
    outputs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="Outputs of `--shard`.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="ALL", help="The file to write; `-` is stdout.")
    ],
    quiet: Annotated[bool, typer.Option("--quiet", help="No warnings.")] = False,
) -> int:
    """Put the outputs of shards together, in input order. Exit code 8 where rows failed or are missing."""
    from infer_cli.batch import merging
    from infer_cli.batch.job import counted_rows

    target = None if output == "-" else Path(output)
    if target is not None and target.exists():
        raise UsageError(f"{target} is there already", "remove it, or name another file with -o")
    if target is not None and not target.parent.is_dir():
        raise UsageError(f"no directory {target.parent}")
    merged = merging.merge(outputs)
    if target is None:
        sys.stdout.buffer.writelines(merged.lines())
        sys.stdout.buffer.flush()
    else:
        merged.write(target)
    notices = Notices(quiet=quiet, stats=not quiet)
    if merged.missing:
        rows = counted_rows(merged.missing)
        notices.warn(f"{merged.n_missing} of {merged.job.n_rows} rows are missing: {rows}")
    failed = f", {merged.n_failed} rows failed" if merged.n_failed else ""
    of = "to" if merged.job.kind == "replies" else "of"
    notices.note(f"{len(merged.places)} {merged.job.kind} {of} {merged.job.n_rows} rows{failed}")
    return ExitStatus.SOME_ROWS_FAILED if merged.missing or merged.n_failed else ExitStatus.OK
