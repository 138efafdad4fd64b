"""What a metric says of one item: of its samples, or of those of one seed."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from infer_cli.evaluation.runs.sample import Sample
from infer_cli.evaluation.statistics.aggregate import majority_vote, pass_at_k

# A sum over a sum, by its metric: the names of the score and of the size.
RATIOS: Mapping[str, tuple[str, str]] = {"bits_per_byte": ("bits", "bytes")}
# No means over items: by the metric, the size that its text is measured in.
PERPLEXITIES: Mapping[str, str] = {
    "byte_perplexity": "bytes",
    "word_perplexity": "words",
    "token_perplexity": "tokens",
}
_PASS_AT = re.compile(r"(.+) pass@(\d+)")
_MAJORITY = re.compile(r"(.+) majority")


class Amount(NamedTuple):
    """What the samples of an item and seed come to; `size` is what a ratio is taken over."""

    score: float
    size: float = 1.0


# From the samples of an item and seed, at least one; None: it can't be said.
Measure = Callable[[Sequence[Sample]], "Amount | None"]


def score_of(metric: str) -> str:
    """The name of the samples' score that a metric is made of."""
    if metric in RATIOS or metric in PERPLEXITIES:
        return "bits"
    match = _PASS_AT.fullmatch(metric) or _MAJORITY.fullmatch(metric)
    return metric if match is None else match[1]


def measure_of(metric: str) -> Measure | None:
    """How `runs/grader.py` means a metric of this name. None: it is none that is taken item by item."""
    if metric in PERPLEXITIES:
        return None
    if metric in RATIOS:
        return lambda samples: _ratio(samples, *RATIOS[metric])
    if match := _PASS_AT.fullmatch(metric):
        name, k = match[1], int(match[2])
        return lambda samples: _pass_at(samples, name, k)
    if match := _MAJORITY.fullmatch(metric):
        name = match[1]
        return lambda samples: _majority(samples, name)
    return lambda samples: _mean(samples, metric)


def _mean(samples: Sequence[Sample], name: str) -> Amount | None:
    values = _values(samples, name)
    return None if values is None else Amount(statistics.fmean(values) if len(values) > 1 else values[0])


def _ratio(samples: Sequence[Sample], score: str, size: str) -> Amount | None:
    values = _values(samples, score)
    sizes = [sample.sizes.get(size, 0.0) for sample in samples]
    return Amount(math.fsum(values), math.fsum(sizes)) if values is not None and all(sizes) else None


def _pass_at(samples: Sequence[Sample], name: str, k: int) -> Amount | None:
    values = _values(samples, name)
    if values is None:
        return None
    return Amount(pass_at_k(len(values), sum(value == 1 for value in values), min(k, len(values))))


def _majority(samples: Sequence[Sample], name: str) -> Amount | None:
    values = _values(samples, name)
    answers = [sample.extracted if sample.outcome == "ok" else None for sample in samples]
    # Where there is no answer, all samples have the worst score.
    return None if values is None else Amount(values[answers.index(majority_vote(answers))])


def _values(samples: Sequence[Sample], name: str) -> list[float] | None:
    """A score of each sample; None where one has none."""
    values = [sample.scores.get(name, math.nan) for sample in samples]
    return values if all(map(math.isfinite, values)) else None
