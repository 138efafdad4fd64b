"""`infer compare`: runs of `infer eval` over the same items, each against the first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from infer_cli.cli.flags.lists import AsJson, AsJsonl, print_objects, wants_json
from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from infer_cli.evaluation.comparing.comparisons import RunComparison
    from infer_cli.evaluation.comparing.picture import PictureFormat

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045

_FLIPS = 5  # items that are shown of one comparison; of several none, unless they are asked for


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="A B...", help="Folders of runs, or files of lm_eval or inspect."),
    ],
    metric: Annotated[
        Optional[list[str]],
        typer.Option("--metric", metavar="NAME", help="Compare this metric (the main one); repeat for more."),
    ] = None,
    all_metrics: Annotated[bool, typer.Option("--all-metrics", help="Compare all metrics.")] = False,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Compare each run with each, not only with the first.")
    ] = False,
    allow_different: Annotated[
        bool,
        typer.Option(
            "--allow-different",
            help="Compare the items that both have where data or prompts are not the same.",
        ),
    ] = False,
    flips: Annotated[
        Optional[int],
        typer.Option(
            "--flips",
            metavar="N",
            min=0,
            help=f"Show N items of which the scores differ ({_FLIPS}; of several comparisons 0).",
        ),
    ] = None,
    plot: Annotated[
        Optional[Path],
        typer.Option(
            "--plot", metavar="FILE", help="Draw the differences to a .svg or .png (extra: report)."
        ),
    ] = None,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit code 9 where a run is told apart as worse.")
    ] = False,
    margin: Annotated[
        Optional[float],
        typer.Option(
            "--margin",
            metavar="POINTS",
            help="With --fail-if-worse: exit code 9 unless a run is shown to be less than this much worse.",
        ),
    ] = None,
    as_json: AsJson = False,
    as_jsonl: AsJsonl = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No warnings.")] = False,
) -> None:
    """Compare runs of evaluations item by item. Each difference has an interval and a test."""
    in_json = wants_json(as_json, as_jsonl)
    if len(runs) < 2:
        raise UsageError("two runs are needed, at least", "infer compare RUN OTHER_RUN")
    if metric and all_metrics:
        raise UsageError("--metric and --all-metrics exclude each other")
    if margin is not None and not fail_if_worse:
        raise UsageError("--margin says when --fail-if-worse fails", "give both")
    if margin is not None and not 0 < margin < float("inf"):
        raise UsageError(f"--margin {margin:g} is not above 0")
    format_ = None if plot is None else _format_of(plot)

    from infer_cli.cli.compare.view import show
    from infer_cli.evaluation.comparing.any_runs import read_runs
    from infer_cli.evaluation.comparing.comparisons import (
        Question,
        compare_entries,
        incomparable,
        unlike_conditions,
    )
    from infer_cli.evaluation.comparing.matching import make_entries

    notices = Notices(quiet=quiet, stats=False)
    entries = make_entries((str(path), read_runs(path)) for path in runs)
    question = Question(tuple(metric or ()), all_metrics, all_pairs, allow_different)
    found = compare_entries(entries, question)
    if unlike := unlike_conditions(entries):
        notices.warn(f"the runs were not made alike: {'; '.join(unlike)}")
    if all_metrics and (lacking := incomparable(entries)):
        notices.warn(f"metrics that are left out: {'; '.join(lacking)}")
    n_flips = flips if flips is not None else _FLIPS if len(found) == 1 else 0
    if in_json:
        print_objects((each.as_json(n_flips) for each in found), lines=as_jsonl)
    else:
        show(entries, found, n_flips)
    if plot is not None and format_ is not None:
        _draw(plot, format_, found)
    if fail_if_worse:
        _check(found, margin)


def _format_of(plot: Path) -> PictureFormat:
    """Raises UsageError for another kind of file, and where it can't be drawn."""
    from infer_cli.evaluation.comparing.picture import PICTURE_FORMATS, require_matplotlib

    found = next((each for each in PICTURE_FORMATS if plot.suffix.lower() == f".{each}"), None)
    if found is None:
        raise UsageError(f"--plot {plot} is neither .svg nor .png")
    if not plot.parent.is_dir():
        raise UsageError(f"no directory {plot.parent}")
    require_matplotlib()
    return found


def _draw(plot: Path, format_: PictureFormat, found: list[RunComparison]) -> None:
    from infer_cli.evaluation.comparing.dots import dot_groups
    from infer_cli.evaluation.comparing.picture import picture
    from infer_cli.system.files import write_atomic

    write_atomic(plot, [picture(dot_groups(found), format_)])


def _check(found: list[RunComparison], margin: float | None) -> None:
    """Raises CheckFailed."""
    if margin is None:
        failed, what = [each for each in found if each.is_worse], "worse than"
    else:
        failed = [each for each in found if each.may_be_worse_by(margin)]
        what = f"not shown to be less than {margin:g} worse than"
    if failed:
        sys.stdout.flush()
        pairs = (f"{each.b.label} is {what} {each.a.label} ({each.task}, {each.metric})" for each in failed)
        raise CheckFailed("; ".join(pairs))
