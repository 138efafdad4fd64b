"""What a report says of one run: what it is, its scores, by group, failures, lengths, times, calibration."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence

from infer_cli.evaluation.report.blocks import Block, Facts, Figure, Paragraph, Section, Table, number
from infer_cli.evaluation.report.calibration import CALIBRATED_KINDS, calibration
from infer_cli.evaluation.report.plots import Dot, DotRow, Plots
from infer_cli.evaluation.report.spreads import QUANTILES, Spread, latencies, lengths
from infer_cli.evaluation.runs.reading import Run
from infer_cli.evaluation.runs.results import RATES, Estimated, MetricResult, Results

_RATE_NAMES = {
    "error": "errors",
    "cut": "cut by a limit",
    "not_extracted": "no answer found",
    "scorer_failed": "scorer failed",
}
MOST_DOT_ROWS = 40  # of a plot
UNIT = (0.0, 1.0)


def run_sections(run: Run, label: str, plots: Plots) -> Iterator[Section]:
    """`label`: the run's letter where there are several, else empty. Raises UsageError for damaged files."""
    results = run.results
    of = f" of {label}" if label else ""
    title = f"{label}: {results.task_name}, {results.model.name}" if label else "The run"
    yield Section(title, list(_identity(run)))
    yield Section(f"Scores{of}", list(_scores(results, plots)), 3 if label else 2)
    if any(score.groups for score in results.scores):
        yield Section(f"By group{of}", list(_groups(results, plots)), 3 if label else 2)
    yield Section(f"Failures{of}", [_rates(results)], 3 if label else 2)
    is_generated = results.task.get("kind") == "generate"
    spreads = [*lengths(run.samples(), is_generated=is_generated), *latencies(run.folder.replies)]
    yield Section(f"Lengths and times{of}", list(_spreads(spreads, plots)), 3 if label else 2)
    if results.task.get("kind") in CALIBRATED_KINDS:
        yield Section(f"Calibration{of}", list(_calibration(run, plots)), 3 if label else 2)


def _identity(run: Run) -> Iterator[Block]:
    results = run.results
    task, n = results.task, results.n
    yield Facts(
        [
            ("task", f"{results.task_name}, version {task.get('version')}, {task.get('kind')}"),
            *([("what it is", str(task["description"]))] if task.get("description") else []),
            ("model", results.model.name),
            ("promise", f"{results.promise} (mode {results.mode})"),
            ("items", f"{n:,}" if n == results.n_asked else f"{n:,} of {results.n_asked:,}"),
            ("what failed", "is left out" if results.exclude_errors else "counts as wrong"),
            ("begun", results.began_at),
            *([] if results.verified is None else [("verified", _shown(results.verified))]),
            ("command", shlex.join(results.command)),
        ]
    )
    for warning in results.warnings:
        yield Paragraph(warning, is_warning=True)
    if results.code_scorers:
        yield Paragraph(f"Scored by code: {', '.join(results.code_scorers)}.")
    hashes = [(f"sha256 of {name}", value) for name, value in results.hashes.items() if value is not None]
    yield Facts(
        [
            *hashes,
            ("infer", results.infer),
            *_flat("engine", results.engine),
            *_flat("setting", results.config),
            *_flat("library", results.libraries),
            *_flat("hardware", results.hardware),
            *[(name, str(task[name])) for name in ("licence", "citation") if task.get(name)],
        ],
        "Hashes, settings, versions",
    )


def _flat(name: str, values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        yield f"{name}: {key}", _shown(value)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _scores(results: Results, plots: Plots) -> Iterator[Block]:
    yield Table(
        "Scores with 95 % intervals",
        ("metric", "value", "from", "to", "standard error", "items", "method"),
        [(score.metric, *_cells(score.score), score.score.method or "-") for score in results.scores],
    )
    for score in results.scores:
        yield from _notes(score)
    # Scores from 0 to 1 share an axis, the others have one each.
    shared = [(score.metric, score.score) for score in results.scores if is_in_unit(score.score)]
    yield from dot_figures(shared, plots, UNIT, "Scores with their 95 % intervals.")
    for score in results.scores:
        if not is_in_unit(score.score):
            caption = f"{score.metric} with its 95 % interval."
            yield from dot_figures([(score.metric, score.score)], plots, None, caption)


def _notes(score: MetricResult) -> Iterator[Block]:
    if not score.higher_is_better:
        yield Paragraph(f"{score.metric}: lower is better.")
    if score.score.note is not None:
        yield Paragraph(f"{score.metric}: {score.score.note}")
    if score.score.clusters is not None:
        yield Paragraph(f"{score.metric}: the items are in {score.score.clusters:,} clusters.")
    if score.seeds is not None:
        values = ", ".join(map(number, score.seeds))
        between = number(score.between_seeds)
        yield Paragraph(f"{score.metric} by seed: {values}. Standard deviation between seeds: {between}.")


def _groups(results: Results, plots: Plots) -> Iterator[Block]:
    for score in results.scores:
        if not score.groups:
            continue
        rows = [(name, *_cells(group)) for name, group in score.groups.items()]
        if score.macro is not None and len(score.groups) > 1:
            rows.append(("(mean of groups)", *_cells(score.macro)))
        columns = ("group", "value", "from", "to", "standard error", "items")
        yield Table(f"{score.metric} by group, with 95 % intervals", columns, rows)
        groups = list(score.groups.items())
        bounds = UNIT if all(is_in_unit(group) for _, group in groups) else None
        yield from dot_figures(groups, plots, bounds, f"{score.metric} by group, with 95 % intervals.")


def dot_figures(
    found: Sequence[tuple[str, Estimated]],
    plots: Plots,
    bounds: tuple[float, float] | None,
    caption: str,
) -> Iterator[Block]:
    """A plot of those that have a value; of so many at most."""
    rows = [DotRow(name, [Dot(each.value, each.ci)]) for name, each in found if each.value is not None]
    if len(rows) > MOST_DOT_ROWS:
        caption = f"{caption} The first {MOST_DOT_ROWS} of {len(rows)}; the table has all."
    if rows:
        yield Figure(plots.dots(rows[:MOST_DOT_ROWS], bounds), caption)


def is_in_unit(found: Estimated) -> bool:
    """Whether a score and its interval lie in 0 to 1, so that it shares an axis with others."""
    ends = () if found.ci is None else found.ci
    return found.value is not None and all(0 <= each <= 1 for each in (found.value, *ends))


def _cells(found: Estimated) -> tuple[str, str, str, str, str]:
    lo, hi = (None, None) if found.ci is None else found.ci
    return number(found.value), number(lo), number(hi), number(found.stderr), f"{found.n:,}"


def _rates(results: Results) -> Table:
    rows = [(_RATE_NAMES[name], f"{results.rates.get(name, 0.0):.1%}") for name in RATES]
    return Table("Replies that failed, of all", ("what", "share"), rows)


def _spreads(spreads: Sequence[Spread], plots: Plots) -> Iterator[Block]:
    columns = ("what", "least", "median", "90 %", "99 %", "most", "replies")
    yield Table("Quantiles", columns, [_quantiles(each) for each in spreads])
    for each in spreads:
        yield Figure(plots.histogram(each), f"Distribution: {each.name}, in {each.unit}.")


def _quantiles(spread: Spread) -> list[str]:
    values = [number(spread.quantile(share)) for share in QUANTILES]
    return [f"{spread.name}, {spread.unit}", *values, f"{len(spread.values):,}"]


def _calibration(run: Run, plots: Plots) -> Iterator[Block]:
    found = calibration(run.samples())
    if found is None:
        yield Paragraph("No item has the likelihoods of all its choices.")
        return
    yield Paragraph(
        "The probability of the choice that is taken (softmax of the likelihoods over the choices), and how"
        f" often it is right. Expected calibration error (ECE): {number(found.error)}, of {found.n:,} items."
    )
    yield Table(
        "Bins of probability",
        ("probability", "items", "mean probability", "share that is right"),
        [
            (
                f"{each.lo:.1f} to {each.hi:.1f}",
                f"{each.n:,}",
                number(each.probability),
                number(each.n_right / each.n),
            )
            for each in found.bins
        ],
    )
    caption = "Share of right choices by probability, with 95 % intervals; on the dashed line both are equal."
    yield Figure(plots.reliability(found), caption)
