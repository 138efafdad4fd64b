"""What came of runs: the promise first, then a table of scores, then what to mind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from infer_cli.cli.flags.lists import print_objects
from infer_cli.cli.screen.table import Column, print_table
from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import CheckFailed
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.results import RATES, Estimated, MetricResult, Results, read_results
from infer_cli.evaluation.runs.task_groups import GroupScore, score_groups
from infer_cli.text.graphemes import shortened
from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from infer_cli.cli.eval.options import Bound, EvalCommand
    from infer_cli.evaluation.runs.layout import PlannedRun

_MOST_GROUPS = 12  # that are shown one by one
_RATE_NAMES = {"error": "errors", "cut": "cut", "not_extracted": "none found", "scorer_failed": "unscored"}
_MOST_NAME = 32  # columns of a model's name
_COLUMNS = (
    Column("metric"),
    Column("value", right=True),
    Column("95 % interval", rank=1),
    Column("n", right=True, rank=3),
)


def show_runs(command: EvalCommand, runs: Sequence[PlannedRun]) -> None:
    """Print what all runs came to. Raises CheckFailed for a score that is worse than it may be."""
    notices = Notices(quiet=command.quiet, stats=not command.quiet)
    shard = command.asking.shard
    if shard.of > 1:
        notices.note(f"part {shard} is answered: `infer merge` puts the parts together, and scores")
        return
    found = [read_results(RunFolder(run.folder).results) for run in runs]
    groups = score_groups(command.output, found) if command.harness_tasks else []
    if command.json:
        print_objects((results.as_json() for results in found), lines=False)
    else:
        print_results(found, notices, groups)
    check_bounds(found, command.bounds)


def print_results(found: Sequence[Results], notices: Notices, groups: Sequence[GroupScore] = ()) -> None:
    """To stdout; warnings go to stderr."""
    for line in first_lines(found):
        print(single_line(line))
    rates = [name for name in RATES if any(results.rates.get(name) for results in found)]
    several = len({results.model for results in found}) > 1
    names = (Column("task"), Column("model", rank=0 if several else 2))
    columns = [*names, *_COLUMNS, *(Column(_RATE_NAMES[name], rank=2, right=True) for name in rates)]
    rows = [row for results in found for row in _rows(results, rates)]
    rows += [
        [each.group, shortened(each.model, _MOST_NAME), each.metric, *_cells(each.score), *[""] * len(rates)]
        for each in groups
    ]
    print_table(columns, rows)
    notes = [note for results in found for note in _notes(results)]
    notes += [f"{each.group}: {each.metric}: {each.score.note}" for each in groups if each.score.note]
    for note in dict.fromkeys(notes):
        print(single_line(f"note: {note}"))
    for results in found:
        for warning in results.warnings:
            notices.warn(f"{results.task_name}, {results.model.name}: {warning}")


def first_lines(found: Sequence[Results]) -> list[str]:
    """The promise, the limit and what was left out; of runs that are alike in these one line."""
    said: dict[str, list[str]] = {}
    for results in found:
        parts = [f"promise {results.promise}"]
        if results.n < results.n_asked:
            ways = ["--ids"] if results.config.get("ids") else []
            ways += [] if results.limit is None else [f"--limit {results.limit}"]
            parts.append(f"{results.n} of {results.n_asked} items ({', '.join(ways)})")
        parts.append(
            "what failed is left out (--exclude-errors)"
            if results.exclude_errors
            else "what failed counts as wrong"
        )
        said.setdefault(", ".join(parts), []).append(f"{results.task_name}, {results.model.name}")
    if len(said) == 1:
        return list(said)
    return [f"{'; '.join(of)}: {line}" for line, of in said.items()]


def check_bounds(found: Sequence[Results], bounds: Sequence[Bound]) -> None:
    """Raises CheckFailed that says which scores are worse than they may be, and by how much."""
    failed = []
    for results in found:
        for bound in bounds:
            score = results.score(bound.metric)
            if score is None:
                continue
            name, value = f"{bound.metric} of {results.model.name} on {results.task_name}", score.score.value
            if value is None:
                failed.append(f"{name} has no value")
                continue
            short = bound.value - value if score.higher_is_better else value - bound.value
            if short > 0:
                side = "below" if score.higher_is_better else "above"
                failed.append(f"{name} is {number(value)}, {number(short)} {side} {bound.value:g}")
    if failed:
        raise CheckFailed("; ".join(failed), "--fail-under says how low a score may be")


def _rows(results: Results, rates: Sequence[str]) -> Iterator[list[str]]:
    shares = [f"{results.rates.get(name, 0):.1%}" for name in rates]
    for i, score in enumerate(results.scores):
        first = [results.task_name, shortened(results.model.name, _MOST_NAME)] if i == 0 else ["", ""]
        yield [*first, score.metric, *_cells(score.score), *(shares if i == 0 else [""] * len(shares))]
        for name, group in _parts(score):
            yield ["", "", f"  {name}", *_cells(group), *[""] * len(shares)]


def _parts(score: MetricResult) -> Iterator[tuple[str, Estimated]]:
    groups = score.groups or {}
    if score.macro is not None and len(groups) > 1:
        yield "mean of groups", score.macro
    if 1 < len(groups) <= _MOST_GROUPS:
        yield from groups.items()


def _cells(found: Estimated) -> list[str]:
    if found.value is None:
        return ["-", "", str(found.n)]
    spread = "" if found.ci is None else f"{number(found.ci[0])} to {number(found.ci[1])}"
    return [number(found.value), spread, str(found.n)]


def _notes(results: Results) -> Iterator[str]:
    alike: dict[str, list[str]] = {}
    for score in results.scores:
        if score.score.note is not None:
            alike.setdefault(score.score.note, []).append(score.metric)
    yield from (f"{', '.join(metrics)}: {note}" for note, metrics in alike.items())
    for score in results.scores:
        if score.seeds is not None and score.between_seeds is not None:
            values = ", ".join(map(number, score.seeds))
            yield (
                f"{score.metric}: {len(score.seeds)} seeds have {values}; their standard deviation is"
                f" {number(score.between_seeds)}, the interval is of the items"
            )
        if score.groups is not None and len(score.groups) > _MOST_GROUPS:
            yield f"{score.metric}: results.json has the scores of {len(score.groups)} groups"


def number(value: float) -> str:
    """Four digits that mean something."""
    return f"{value:.4g}" if abs(value) >= 0.001 or value == 0 else f"{value:.2g}"
