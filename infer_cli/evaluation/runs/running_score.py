"""The score so far, while answers come: kept in a few numbers, whatever the number of items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from infer_cli.evaluation.runs.facts import Scoring
from infer_cli.evaluation.runs.grading import Grader
from infer_cli.evaluation.runs.run_items import RunItems
from infer_cli.evaluation.runs.sample import Sample
from infer_cli.evaluation.statistics.intervals import Z, wilson
from infer_cli.evaluation.tasks.item import Metric

Line = Mapping[str, object]


class RunningScore:
    """Of the first metric that is made item by item, of a grader that runs no code. Only items of which a
    part is answered are held.

    `n_samples` answers are made to each row.
    """

    def __init__(self, items: RunItems, grader: Grader, scoring: Scoring, n_samples: int) -> None:
        self._items, self._grader, self._scoring, self._n_samples = items, grader, scoring, n_samples
        shown = (metric for metric in grader.metrics if metric.aggregation != "corpus")
        self._metric: Metric | None = next(shown, None)
        self._open: dict[int, dict[int, list[Line]]] = {}
        self._n, self._mean, self._squares, self._size = 0, 0.0, 0.0, 0.0

    def answered(self, row: int, line: Line) -> None:
        """An answer to a row is written."""
        if self._metric is None:
            return
        number = self._items.number_of(row)
        rows = self._open.setdefault(number, {})
        rows.setdefault(row, []).append(line)
        item = self._items.item(number)
        first = self._items.first_row(number)
        lines = [rows.get(first + i, []) for i in range(len(item.rows))]
        if all(map(self._is_whole, lines)):
            del self._open[number]
            self._add(self._metric, self._grader.grade(item, lines))

    @property
    def text(self) -> str:
        """`acc 0.61 (0.52 to 0.70)`; empty while there is nothing to say."""
        if self._metric is None or not self._n:
            return ""
        metric = self._metric
        if metric.aggregation == "ratio":
            value = self._mean / self._size if self._size else math.nan
            return f"{metric.name} {2**value if metric.is_exponential else value:.3g}"
        value, n = self._mean, self._n
        if metric.is_proportion and self._n_samples == 1:
            lo, hi, _ = wilson(value * n, n)
        else:
            half = Z * math.sqrt(self._squares / (n - 1) / n) if n > 1 else math.inf
            lo, hi = value - half, value + half
        spread = f" ({lo:.3g} to {hi:.3g})" if math.isfinite(lo) else ""
        return f"{metric.name} {value:.3g}{spread}"

    def _is_whole(self, lines: Sequence[Line]) -> bool:
        """A row that could not be asked has one line, however many samples there should be."""
        return len(lines) == self._n_samples or any(
            line.get("error") is not None and not line.get("tokens") for line in lines
        )

    def _add(self, metric: Metric, samples: Sequence[Sample]) -> None:
        if self._scoring.exclude_errors:
            samples = [sample for sample in samples if sample.outcome == "ok"]
        scores = [sample.scores[metric.score] for sample in samples if metric.score in sample.scores]
        if not scores:
            return
        self._n += 1
        if metric.aggregation == "ratio":
            self._mean += math.fsum(scores)
            self._size += math.fsum(sample.sizes.get(metric.size, 0.0) for sample in samples)
            return
        value = fmean(scores)
        off = value - self._mean
        self._mean += off / self._n
        self._squares += off * (value - self._mean)
