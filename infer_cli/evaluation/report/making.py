"""The report of a run, or of two: a function of their folders' files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from infer_cli.evaluation.comparing.matching import make_entries
from infer_cli.evaluation.comparing.picture import require_matplotlib
from infer_cli.evaluation.comparing.run_folder import read_comparable_run
from infer_cli.evaluation.report.blocks import Section
from infer_cli.evaluation.report.comparison_section import ComparisonPart, comparison_part
from infer_cli.evaluation.report.page import html_page
from infer_cli.evaluation.report.plots import Plots
from infer_cli.evaluation.report.run_sections import run_sections
from infer_cli.evaluation.report.shown_samples import shown_samples
from infer_cli.evaluation.runs.folder import RunFolder, check_inside
from infer_cli.evaluation.runs.reading import Run, read_run
from infer_cli.system.files import write_atomic


def write_report(folder: RunFolder) -> None:
    """`report.html` of a run, in its folder. Raises as `make_report`, OSError."""
    check_inside(folder.path, folder.report)
    write_atomic(folder.report, [make_report(folder.path)])


def make_report(path: Path, other: Path | None = None, *, allow_different: bool = False) -> bytes:
    """An HTML file. `other`: a run that is compared with the first.

    Raises UsageError where matplotlib is not installed, for a folder that is no run or has not ended, for
    damaged files, and for runs that can't be compared.
    """
    require_matplotlib()
    plots, first = Plots(), read_run(path)
    if other is None:
        sections = list(run_sections(first, "", plots))
        return html_page(_data([first], [""], sections, None, plots), plots.pictures)
    second = read_run(other)
    entries = make_entries((str(each), [read_comparable_run(each)]) for each in (path, other))
    compared = comparison_part((first, second), entries, plots, allow_different=allow_different)
    sections = [compared.section, *run_sections(first, "A", plots), *run_sections(second, "B", plots)]
    return html_page(_data([first, second], ["A", "B"], sections, compared, plots), plots.pictures)


def _data(
    runs: Sequence[Run],
    labels: Sequence[str],
    sections: Sequence[Section],
    compared: ComparisonPart | None,
    plots: Plots,
) -> Mapping[str, object]:
    samples = shown_samples(runs)
    names = [f"{run.results.task_name} with {run.results.model.name}" for run in runs]
    return {
        "title": names[0] if compared is None else f"{names[0]} and {runs[1].results.model.name}",
        "subtitle": "; ".join(_summary(run) for run in runs),
        "runs": labels,
        "sections": [section.as_json() for section in sections],
        "labels": plots.labels,
        "samples": {
            "rows": samples.rows,
            "left_out": samples.n_left_out,
            "most": samples.most,
        },
        "flips": None
        if compared is None
        else {
            "rows": compared.flips,
            "left_out": compared.n_flipped - len(compared.flips),
            "metric": compared.flipped_in,
        },
    }


def _summary(run: Run) -> str:
    results = run.results
    main = results.scores[0] if results.scores else None
    value = "" if main is None or main.score.value is None else f"{main.metric} {main.score.value:.4g}, "
    return f"{value}{results.n:,} items, {results.began_at[:10]}"
