"""`infer merge`: the outputs of a batch's shards as one, or the folders of an evaluation's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from infer_cli.batch.merging import Merge


def merge(
    outputs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="Outputs or folders of `--shard`.")],
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="ALL", help="The file or folder to write; `-` is stdout."),
    ],
    quiet: Annotated[bool, typer.Option("--quiet", help="No warnings.")] = False,
) -> int:
    """Put the outputs of shards together, in input order. Exit code 8 where rows failed or are missing."""
    from infer_cli.batch import merging

    target = None if output == "-" else Path(output)
    if target is not None and target.exists():
        raise UsageError(f"{target} is there already", "remove it, or name another file with -o")
    if target is not None and not target.parent.is_dir():
        raise UsageError(f"no directory {target.parent}")
    notices = Notices(quiet=quiet, stats=not quiet)
    if any(output.is_dir() for output in outputs):
        return _merge_runs(outputs, target, notices)
    merged = merging.merge(outputs)
    if target is None:
        sys.stdout.buffer.writelines(merged.lines())
        sys.stdout.buffer.flush()
    else:
        merged.write(target)
    return _tell(merged, notices)


def _merge_runs(folders: list[Path], target: Path | None, notices: Notices) -> int:
    """Runs of `infer eval`, which are scored then."""
    if target is None:
        raise UsageError("a run is a folder, which standard output is none", "name one with -o DIR")
    from infer_cli.cli.eval.report import report_run
    from infer_cli.cli.eval.view import print_results
    from infer_cli.evaluation.runs.merging import merge_runs
    from infer_cli.evaluation.runs.rescoring import rescore

    merged = merge_runs(folders, target)
    status = _tell(merged.merge, notices)
    try:
        results = rescore(merged.folder, allow_code=False).results
        report_run(merged.folder, notices)
        print_results([results], notices)
    except UsageError as e:  # the task is code, or runs some
        notices.warn(f"{target} is not scored yet: {e.message}; `infer rescore --allow-code` does it")
    return status


def _tell(merged: Merge, notices: Notices) -> int:
    from infer_cli.batch.job import counted_rows

    if merged.missing:
        rows = counted_rows(merged.missing)
        notices.warn(f"{merged.n_missing} of {merged.job.n_rows} rows are missing: {rows}")
    failed = f", {merged.n_failed} rows failed" if merged.n_failed else ""
    of = "to" if merged.job.kind == "replies" else "of"
    notices.note(f"{len(merged.places)} {merged.job.kind} {of} {merged.job.n_rows} rows{failed}")
    return ExitStatus.SOME_ROWS_FAILED if merged.missing or merged.n_failed else ExitStatus.OK
