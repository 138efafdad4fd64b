"""The end of a run, whoever comes to it: its answers are scored, and other programs' files are written."""

from __future__ import annotations

from infer_cli.evaluation.formats.writing import write_formats
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.graders import OURS_ONLY, Openers
from infer_cli.evaluation.runs.rescoring import Rescored, rescore


def score_run(folder: RunFolder, *, allow_code: bool, openers: Openers = OURS_ONLY) -> Rescored:
    """Raises UsageError as `rescore`, OSError."""
    rescored = rescore(folder, allow_code=allow_code, openers=openers)
    write_formats(folder)
    return rescored
