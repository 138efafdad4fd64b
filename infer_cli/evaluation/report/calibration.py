"""Whether a model is right as often as it is sure: its probability of the choice that it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from infer_cli.evaluation.runs.sample import Sample, ScoredChoice

N_BINS = 10  # of equal width, from 0 to 1
# Kinds of tasks with choices of which one is right.
CALIBRATED_KINDS = ("choice", "minimal_pairs")


class Bin(NamedTuple):
    """`n` items whose choice has a probability of `lo` to `hi`, `probability` on average; `n_right` are
    right."""

    lo: float
    hi: float
    n: int
    probability: float
    n_right: int


class Calibration(NamedTuple):
    """Bins that are not empty. `error` is the expected calibration error (Naeini et al. 2015): the mean
    distance of a bin's probability from its share of right ones, weighted by its items."""

    bins: tuple[Bin, ...]
    error: float

    @property
    def n(self) -> int:
        return sum(each.n for each in self.bins)


def probabilities(choices: Sequence[ScoredChoice]) -> list[float] | None:
    """Softmax of the likelihoods over the choices. None: there are not two, or one has no likelihood."""
    logprobs = [choice.logprob for choice in choices if choice.logprob is not None]
    if len(logprobs) < max(len(choices), 2):
        return None
    top = max(logprobs)
    weights = [math.exp(logprob - top) for logprob in logprobs]
    return [weight / math.fsum(weights) for weight in weights]


def calibration(samples: Iterable[Sample]) -> Calibration | None:
    """None: no sample has choices of which one is right."""
    found: list[list[tuple[float, bool]]] = [[] for _ in range(N_BINS)]
    for sample in samples:
        among = probabilities(sample.choices)
        if among is None or sample.gold is None or sample.outcome != "ok":
            continue
        probability = max(among)
        place = min(int(probability * N_BINS), N_BINS - 1)
        found[place].append((probability, among.index(probability) == sample.gold))
    bins = tuple(
        Bin(
            place / N_BINS,
            (place + 1) / N_BINS,
            len(members),
            math.fsum(probability for probability, _ in members) / len(members),
            sum(is_right for _, is_right in members),
        )
        for place, members in enumerate(found)
        if members
    )
    n = sum(each.n for each in bins)
    if not n:
        return None
    error = math.fsum(abs(each.n_right - each.n * each.probability) for each in bins) / n
    return Calibration(bins, error)
