"""`infer report`: a page about a run of `infer eval`, or about two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import UsageError

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045


def report(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder, or one that holds some.")],
    other: Annotated[
        Optional[Path],
        typer.Argument(metavar="[DIR]", help="A second run's folder: the page compares it with the first."),
    ] = None,
    output: Annotated[
        Optional[str],
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where the page goes; `-` is standard output (report.html in the run's folder).",
        ),
    ] = None,
    allow_different: Annotated[
        bool,
        typer.Option(
            "--allow-different",
            help="Compare the items that both have where data or prompts are not the same.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Don't say what was written.")] = False,
) -> None:
    """Write a page about runs of evaluations. Needs the extra `report`."""
    if other is not None and output is None:
        raise UsageError("-o says where a page about two runs goes", f"infer report {run} {other} -o FILE")
    if other is None and allow_different:
        raise UsageError("--allow-different is of two runs", "name a second one")

    from infer_cli.evaluation.comparing.run_folder import find_runs
    from infer_cli.evaluation.report.making import make_report, write_report
    from infer_cli.evaluation.runs.folder import RunFolder
    from infer_cli.system.files import write_atomic

    notices = Notices(quiet=quiet, stats=not quiet)
    found = find_runs(run)
    if output is None:
        for each in found:
            folder = RunFolder(each)
            write_report(folder)
            notices.note(str(folder.report))
        return
    second = None if other is None else _only(other, find_runs(other))
    page = make_report(_only(run, found), second, allow_different=allow_different)
    if output == "-":
        sys.stdout.write(page.decode())
        return
    path = Path(output)
    if not path.parent.is_dir():
        raise UsageError(f"no directory {path.parent}")
    write_atomic(path, [page])
    notices.note(output)


def _only(given: Path, found: list[Path]) -> Path:
    if len(found) > 1:
        raise UsageError(f"{given} has {len(found)} runs, a page is about one or two", f"such as {found[0]}")
    return found[0]
