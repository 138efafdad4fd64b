"""Comparisons as text: who is compared, a table, a sentence for each, plots, flipped items."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from infer_cli.cli.compare.dot_plot import DRAWN, PLAIN, plot_lines
from infer_cli.cli.screen.table import Column, table_lines
from infer_cli.cli.screen.terminal import columns_of
from infer_cli.evaluation.comparing.comparisons import Flip, RunComparison
from infer_cli.evaluation.comparing.dots import dot_groups
from infer_cli.evaluation.comparing.matching import Entry
from infer_cli.evaluation.statistics.paired import SIGNIFICANT
from infer_cli.text.common_prefix import n_same
from infer_cli.text.graphemes import beginning, cells, shortened, wrapped
from infer_cli.text.sanitize import sanitize, single_line

_PLOT_WIDTH = 80  # where there is no terminal
_TEXT_WIDTH = 160  # of a flipped item's texts there
_UNLIMITED = 10**6
_MOST_OF_TEXT = 1_000  # characters of which the beginning is shown
_SHARED = 40  # characters that all prompts begin with: an instruction or examples, which say nothing


def show(entries: Sequence[Entry], found: Sequence[RunComparison], n_flips: int) -> None:
    """To stdout. Without a terminal, lines are not wrapped and plots are drawn in ASCII."""
    is_terminal = sys.stdout.isatty()
    width = columns_of(sys.stdout) if is_terminal else None
    blocks = [
        _fitted(_differences(found), width),
        _fitted(_runs(entries), width),
        _table(found, width or _UNLIMITED),
        *(_fitted(_paragraph(each), width) for each in found),
        *_plots(found, width),
        *(_flipped(each, n_flips, width or _TEXT_WIDTH) for each in found),
    ]
    print("\n\n".join("\n".join(block) for block in blocks if block))


def _fitted(lines: Iterator[str], width: int | None) -> list[str]:
    clean = map(single_line, lines)
    return list(clean) if width is None else [part for line in clean for part in wrapped(line, 0, width)]


def _differences(found: Sequence[RunComparison]) -> Iterator[str]:
    """What is left out, or not the same: of each task and pair once."""
    told: dict[str, None] = {}
    for each in found:
        a, b, pairing = each.a.label, each.b.label, each.pairing
        parts = [f"{each.task}, {a} and {b}: {_items(each.found.n)} compared"]
        if pairing.n_only_a or pairing.n_only_b:
            parts.append(
                f"left out as the other has them not: {pairing.n_only_a} of {a}, {pairing.n_only_b} of {b}"
            )
        if pairing.n_other_prompts:
            parts.append(f"asked with other prompts: {pairing.n_other_prompts}")
        if each.n_excluded:
            parts.append(f"left out as they failed in a run with --exclude-errors: {each.n_excluded}")
        if len(parts) > 1:
            told["; ".join(parts)] = None
    return iter(told)


def _runs(entries: Sequence[Entry]) -> Iterator[str]:
    for entry in entries:
        models = dict.fromkeys(run.model for run in entry.runs.values())
        promises = dict.fromkeys(run.made_by.get("promise", "unknown") for run in entry.runs.values())
        yield f"{entry.label} is {entry.name}: {', '.join(models)}, {', '.join(promises)}"


def _table(found: Sequence[RunComparison], width: int) -> list[str]:
    lines = _table_lines(found, width, named=True)
    if any(cells(line) > width for line in lines):  # long names: they stand above their rows
        lines = []
        for name in dict.fromkeys((each.task, each.metric) for each in found):
            rows = [each for each in found if (each.task, each.metric) == name]
            lines += [*([""] if lines else []), *wrapped(single_line(", ".join(name)), 0, width)]
            lines += _table_lines(rows, width, named=False)
    if len(found) > 1:
        note = f"p is adjusted for {len(found)} tests (Holm). * told apart: p < {SIGNIFICANT:g}"
        lines += ["", *wrapped(note, 0, width)]
    return lines


def _table_lines(found: Sequence[RunComparison], width: int, *, named: bool) -> list[str]:
    """`named`: with columns of the task and the metric."""
    several_metrics = len({each.metric for each in found}) > len({each.task for each in found})
    one_pair = len({(each.a.label, each.b.label) for each in found}) == 1
    first, second = (found[0].a.label, found[0].b.label) if one_pair else ("first", "second")
    columns = (
        *((Column("task"), Column("metric", rank=0 if several_metrics else 3)) if named else ()),
        *(() if one_pair else (Column("runs"),)),
        Column("items", rank=6, right=True),
        Column(f"{first} -> {second}", rank=2, right=True),
        Column(f"{second} - {first}" if one_pair else "difference", right=True),
        Column("95 % interval", rank=1, right=True),
        Column("p", right=True),
        Column("better, worse", rank=4, right=True),
        Column("visible", rank=5, right=True),
    )
    rows = [
        (
            *((each.task, each.metric) if named else ()),
            *(() if one_pair else (f"{each.a.label} {each.b.label}",)),
            *_cells(each),
        )
        for each in found
    ]
    return table_lines(columns, rows, width)


def _cells(each: RunComparison) -> tuple[str, ...]:
    of, points = each.found, each.found.in_points
    return (
        f"{of.n:,}",
        f"{_number(of.value_a, points)} -> {_number(of.value_b, points)}",
        _signed(of.difference, points),
        "-"
        if of.interval is None
        else f"{_signed(of.interval.lo, points)} to {_signed(of.interval.hi, points)}",
        _p_value(of.p_adjusted) + ("*" if of.told_apart else ""),
        f"{len(each.better):,}, {len(each.worse):,}",
        "-" if of.smallest_visible is None else _number(of.smallest_visible, points),
    )


def _paragraph(each: RunComparison) -> Iterator[str]:
    found, test = each.found, each.found.test
    parts = [f"{each.task}, {each.metric}: {each.sentence()}"]
    if found.n_flipped:
        better = f"{len(each.better):,} better with {each.b.label}, {len(each.worse):,} worse"
        verb = "differs" if found.n_flipped == 1 else "differ"
        parts.append(f"{_items(found.n_flipped)} {verb}: {better}.")
    drawn = "" if test.seed is None else f" ({test.n_resamples:,} drawn, seed {test.seed})"
    parts.append(f"Test: {test.method}{drawn}.")
    if found.smallest_visible is not None:
        least = _number(found.smallest_visible, found.in_points) + (" points" if found.in_points else "")
        parts.append(f"With so many items, a difference of {least} would have been found 4 times out of 5.")
    if found.note:
        parts.append(f"Mind: {found.note}.")
    yield " ".join(parts)


def _plots(found: Sequence[RunComparison], width: int | None) -> Iterator[list[str]]:
    """Of several comparisons."""
    if len(found) > 1:
        marks = PLAIN if width is None or os.environ.get("TERM") == "dumb" else DRAWN
        for group in dot_groups(found):
            columns = width or _PLOT_WIDTH
            yield [*wrapped(single_line(group.title), 0, columns), *plot_lines(group, columns, marks)]


def _flipped(each: RunComparison, n_flips: int, width: int) -> list[str]:
    flips = each.flips(n_flips)
    if not flips:
        return []
    of = f"{each.task}, {each.metric}, {each.a.label} and {each.b.label}"
    verb = "differs" if each.found.n_flipped == 1 else "differ"
    lines = wrapped(f"{of}: {len(flips)} of {_items(each.found.n_flipped)} that {verb}", 0, width)
    prompts = _told_apart([flip.prompt for flip in flips])
    labels = max(len(each.a.label), len(each.b.label))
    scores = max(len(f"{score:.3g}") for flip in flips for score in (flip.score_a, flip.score_b))
    for flip, prompt in zip(flips, prompts, strict=True):
        lines.append(shortened(f"item {_shown(flip.item)}: {_shown(prompt)}", width))
        for label, score, answer in _sides(each, flip):
            text = "(no answer)" if answer is None else _shown(answer)
            lines.append(shortened(f"  {label:<{labels}}  {score:>{scores}.3g}  {text}", width))
    return lines


def _sides(each: RunComparison, flip: Flip) -> Iterator[tuple[str, float, str | None]]:
    yield each.a.label, flip.score_a, flip.answer_a
    yield each.b.label, flip.score_b, flip.answer_b


def _told_apart(prompts: Sequence[str]) -> list[str]:
    """The prompts without a long beginning that is the same in all."""
    first, *others = prompts
    shared = first[: min(n_same(first, other) for other in others)] if others else ""
    begin = max(shared.rfind(" "), shared.rfind("\n")) + 1
    return [("… " + prompt[begin:]) if begin > _SHARED else prompt for prompt in prompts]


def _shown(text: str) -> str:
    """The beginning of what a model or a file says, in one line that steers no terminal."""
    return single_line(sanitize(beginning(text, _MOST_OF_TEXT)))


def _items(n: int) -> str:
    return f"{n:,} item" if n == 1 else f"{n:,} items"


def _number(value: float, in_points: bool) -> str:
    return f"{100 * value:.1f}" if in_points else f"{value:.4g}"


def _signed(value: float, in_points: bool) -> str:
    # Zero is added so that what is rounded to it has no sign.
    return f"{round(100 * value, 1) + 0.0:+.1f}" if in_points else f"{value:+.3g}"


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"
