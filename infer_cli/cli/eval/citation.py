"""What `infer eval --cite` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infer_cli.errors import ExitStatus, UsageError
from infer_cli.evaluation.runs.citing import bibtex, methods_paragraph
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.reading import run_folders
from infer_cli.evaluation.runs.results import read_results


def print_citation(paths: Sequence[Path]) -> int:
    """A paragraph for each run, then the entries of all. Raises UsageError for what has no results."""
    found = []
    for path in paths:
        folders = run_folders(path)
        if not folders:
            raise UsageError(f"{path} has no run of `infer eval`", "name the folder after -o")
        found += [read_results(RunFolder(folder).results) for folder in folders]
    for results in found:
        print(methods_paragraph(results), end="\n\n")
    print(bibtex(found))
    return ExitStatus.OK
