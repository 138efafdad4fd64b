"""What a check has found of a run, in its results: `verified` of `results.json`. A function of the check,
without a clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from infer_cli import __version__
from infer_cli.checking.verify_request import VerifyReport
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.results import Results, read_results
from infer_cli.evaluation.verification.run_files import RunFiles
from infer_cli.system.files import write_atomic


def verdict(
    files: RunFiles, fraction: float, replies: VerifyReport, judge: VerifyReport | None
) -> Mapping[str, object]:
    """Of a run that holds. `judge` None: a judge's replies, where there are any, were not checked."""
    judged: Mapping[str, object] | None = None
    if files.judge_job is not None:
        judged = {"checked": False} if judge is None else {"checked": True, **_of(judge)}
    return {
        "fraction": fraction,
        **_of(replies),
        "data": {"compared": files.made_of == "data"},
        "judge": judged,
        "infer": __version__,
    }


def _of(report: VerifyReport) -> Mapping[str, object]:
    return {
        "check": report.check,
        "rows": report.n_rows_drawn,
        "rows_in_all": report.n_rows,
        "replies": report.n_drawn,
        "same": report.n_same,
        "challenge": report.challenge,
    }


def mark_verified(folder: RunFolder, checked: Results, found: Mapping[str, object]) -> None:
    """Write a verdict into the results that were checked. Raises UsageError where they are others by now,
    OSError."""
    if not read_results(folder.results).is_same(checked):
        raise UsageError(f"{folder.results} was changed during the check", "verify it again")
    _write(folder, replace(checked, verified=found))


def unmark_verified(folder: RunFolder) -> bool:
    """Take back what an earlier check has found; False where there is nothing of it. Raises OSError."""
    try:
        results = read_results(folder.results)
    except UsageError:  # they are none, and so say nothing
        return False
    if results.verified is None:
        return False
    _write(folder, replace(results, verified=None))
    return True


def _write(folder: RunFolder, results: Results) -> None:
    # Not `durable`: two checks may end at once, and each needs a temporary file of its own.
    write_atomic(folder.results, [results.as_bytes()])
