"""`infer rescore`: a run's answers scored again, without a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from infer_cli.errors import ExitStatus, UsageError
from infer_cli.process.supervisor import supervise
from infer_cli.process.worker import Worker


def rescore(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of `infer eval`, or folders of such.")
    ],
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run a Python task's code, and what a scorer runs.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The results, as one JSON array.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No warnings.")] = False,
) -> int:
    """Score the answers of a run again. Needs no model."""

    def work(worker: Worker) -> int:
        return _rescore(folders, allow_code=allow_code, json=json, quiet=quiet)

    return supervise(work, verbose=False)


def _rescore(folders: list[Path], *, allow_code: bool, json: bool, quiet: bool) -> int:
    from infer_cli.cli.eval.other_programs import OPENERS
    from infer_cli.cli.eval.report import report_run
    from infer_cli.cli.eval.view import print_results
    from infer_cli.cli.flags.lists import print_objects
    from infer_cli.cli.screen.terminal import Notices
    from infer_cli.evaluation.formats.writing import write_formats
    from infer_cli.evaluation.runs.folder import RunFolder
    from infer_cli.evaluation.runs.reading import run_folders
    from infer_cli.evaluation.runs.rescoring import rescore as rescore_run
    from infer_cli.evaluation.runs.task_groups import score_groups
    from infer_cli.prompt.renderer import closed_at_end

    notices = Notices(quiet=quiet, stats=not quiet)
    folders_of_runs, found, groups = [], [], []
    with closed_at_end():
        for given in folders:
            runs = run_folders(given)
            if not runs:
                raise UsageError(f"{given} has no run of `infer eval`", "name the folder after -o")
            for run in runs:
                notices.status(f"scoring {run}")
                try:
                    folder = RunFolder(run)
                    rescored = rescore_run(folder, allow_code=allow_code, openers=OPENERS)
                finally:
                    notices.clear()
                if rescored.code_scorers:
                    notices.note(f"{run}: ran code again: {', '.join(rescored.code_scorers)}")
                notices.note(
                    f"{run}: {'scores or samples have changed' if rescored.changed else 'unchanged'}"
                )
                folders_of_runs.append(folder)
                found.append(rescored.results)
            groups += score_groups(given, found[-len(runs) :])
    if json:
        print_objects((results.as_json() for results in found), lines=False)
    else:
        print_results(found, notices, groups)
        sys.stdout.flush()  # what follows takes longer than the scores
    for folder in folders_of_runs:
        notices.status(f"writing the files of other programs into {folder.path}")
        try:
            write_formats(folder)
            if folder.report.exists():
                report_run(folder, notices)
        finally:
            notices.clear()
    return ExitStatus.OK
