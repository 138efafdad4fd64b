"""What a report says of two runs: their differences, and the items of which the scores differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from infer_cli.evaluation.comparing.comparisons import (
    Flip,
    Question,
    RunComparison,
    compare_entries,
    incomparable,
    unlike_conditions,
)
from infer_cli.evaluation.comparing.matching import Entry
from infer_cli.evaluation.report.blocks import Block, Figure, Paragraph, Section, Table, number
from infer_cli.evaluation.report.plots import Dot, DotRow, Plots
from infer_cli.evaluation.report.run_sections import MOST_DOT_ROWS, UNIT, is_in_unit
from infer_cli.evaluation.report.shown_samples import most_chars, shortened_text
from infer_cli.evaluation.runs.reading import Run
from infer_cli.evaluation.runs.results import Estimated

MOST_FLIPS = 2_000


class ComparisonPart(NamedTuple):
    """`flips` are rows for the page's script; `n_flipped` items differ in the metric `flipped_in`."""

    section: Section
    flips: Sequence[Mapping[str, object]]
    n_flipped: int
    flipped_in: str


def comparison_part(
    runs: tuple[Run, Run], entries: Sequence[Entry], plots: Plots, *, allow_different: bool
) -> ComparisonPart:
    """`entries` are those of the two runs. Raises UsageError for runs that can't be compared."""
    asked = Question(all_metrics=True, allow_different=allow_different)
    found = compare_entries(entries, asked)
    main = found[0]
    flips = main.flips(MOST_FLIPS)
    section = Section("Comparison", [*_blocks(entries, found, plots), *_side_by_side(runs, plots)])
    return ComparisonPart(section, _rows(main, flips), main.found.n_flipped, main.metric)


def _blocks(entries: Sequence[Entry], found: Sequence[RunComparison], plots: Plots) -> Iterator[Block]:
    models = "; ".join(
        f"{entry.label} is {run.model} in {entry.name}" for entry in entries for run in entry.runs.values()
    )
    yield Paragraph(f"{models}.")
    for text in unlike_conditions(entries):
        yield Paragraph(f"The runs were not made alike: {text}.", is_warning=True)
    main = found[0]
    for text in _left_out(main):
        yield Paragraph(text, is_warning=True)
    for each in found:
        yield Paragraph(f"{each.metric}: {each.sentence()}")
    for text in incomparable(entries):
        yield Paragraph(f"Not compared: {text}")
    columns = ("metric", "A", "B", "B - A", "from", "to", "p", "better with B", "worse with B", "items")
    yield Table("Differences with 95 % intervals", columns, [_cells(each) for each in found])
    shared = [each for each in found if each.found.in_points]
    if shared:
        caption = "Differences B - A in points, with 95 % intervals."
        yield Figure(plots.dots([_dot_row(each) for each in shared], None, marks_zero=True), caption)


def _side_by_side(runs: tuple[Run, Run], plots: Plots) -> Iterator[Block]:
    """The scores of both runs, and by group, where they are from 0 to 1."""
    a, b = (run.results for run in runs)
    metrics = [(score, other) for score in a.scores if (other := b.score(score.metric)) is not None]
    yield from _pairs_figure(
        [(score.metric, score.score, other.score) for score, other in metrics],
        plots,
        "Scores of A (round) and B (square), with 95 % intervals.",
    )
    for score, other in metrics:
        groups, others = score.groups or {}, other.groups or {}
        yield from _pairs_figure(
            [(name, group, others[name]) for name, group in groups.items() if name in others],
            plots,
            f"{score.metric} by group of A (round) and B (square), with 95 % intervals.",
        )


def _pairs_figure(
    pairs: Sequence[tuple[str, Estimated, Estimated]], plots: Plots, caption: str
) -> Iterator[Block]:
    rows = [
        DotRow(
            name,
            [Dot(each.value, each.ci, place) for place, each in enumerate(both) if each.value is not None],
        )
        for name, *both in pairs
        if all(map(is_in_unit, both))
    ]
    if len(rows) > MOST_DOT_ROWS:
        caption = f"{caption} The first {MOST_DOT_ROWS} of {len(rows)}."
    if rows:
        yield Figure(plots.dots(rows[:MOST_DOT_ROWS], UNIT), caption)


def _left_out(main: RunComparison) -> Iterator[str]:
    pairing = main.pairing
    if pairing.n_only_a or pairing.n_only_b:
        only = f"{pairing.n_only_a:,} of A, {pairing.n_only_b:,} of B"
        yield f"Items are left out as the other run has them not: {only}."
    if pairing.n_other_prompts:
        yield f"Items that were asked with other prompts: {pairing.n_other_prompts:,}."
    if main.n_excluded:
        yield f"Items that failed in a run that leaves these out: {main.n_excluded:,}."


def _cells(each: RunComparison) -> list[str]:
    found, interval = each.found, each.found.interval
    return [
        each.metric,
        number(found.value_a),
        number(found.value_b),
        number(found.difference),
        number(None if interval is None else interval.lo),
        number(None if interval is None else interval.hi),
        number(found.p_adjusted),
        f"{len(each.better):,}",
        f"{len(each.worse):,}",
        f"{found.n:,}",
    ]


def _dot_row(each: RunComparison) -> DotRow:
    interval = each.found.interval
    ends = None if interval is None else (100 * interval.lo, 100 * interval.hi)
    return DotRow(each.metric, [Dot(100 * each.found.difference, ends)])


def _rows(main: RunComparison, flips: Sequence[Flip]) -> list[dict[str, object]]:
    texts = [text for flip in flips for text in (flip.prompt, flip.answer_a, flip.answer_b)]
    most = most_chars([len(text) for text in texts if text is not None])
    higher = main.found.higher_is_better
    return [
        {
            "item": shortened_text(flip.item, most),
            "status": "better" if (flip.score_b > flip.score_a) == higher else "worse",
            "prompt": shortened_text(flip.prompt, most),
            "sides": [
                (label, number(score), None if answer is None else shortened_text(answer, most))
                for label, score, answer in (
                    (main.a.label, flip.score_a, flip.answer_a),
                    (main.b.label, flip.score_b, flip.answer_b),
                )
            ],
        }
        for flip in flips
    ]
