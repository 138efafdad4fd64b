"""The report of a run that was scored, where it can be drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.picture import require_matplotlib
from infer_cli.evaluation.report.making import write_report

if TYPE_CHECKING:
    from infer_cli.cli.screen.terminal import Notices
    from infer_cli.evaluation.runs.folder import RunFolder


def report_run(folder: RunFolder, notices: Notices) -> None:
    """Write it into the run's folder; where matplotlib is not installed, say so and leave no old one.

    Raises UsageError for damaged files, OSError.
    """
    try:
        require_matplotlib()
    except UsageError as e:
        folder.report.unlink(missing_ok=True)
        notices.note(f"no {folder.report.name}: {e.in_full}")
        return
    notices.status("drawing the report")
    write_report(folder)
