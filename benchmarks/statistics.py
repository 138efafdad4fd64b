"""How often the intervals of an evaluation hold, and how often its paired tests find what is not there.

    python -m benchmarks.statistics [--rounds 5000] [--seed 1]

A round draws one evaluation of each kind. Intervals of proportions and McNemar's test are computed exactly,
by adding up all outcomes; the bootstrap and the sign flips are simulated, as commands have them. A share of
1,000 rounds is off by some 1 %, which is too much for the thresholds.
Kinds named "hard" are figures without a threshold: skewed scores, or proportions near 1 in few clusters.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks import common
from infer_cli.evaluation.statistics.aggregate import summarize
from infer_cli.evaluation.statistics.intervals import Interval, bonett_price, clopper_pearson, wilson
from infer_cli.evaluation.statistics.paired import SIGNIFICANT, compare, mid_p_mcnemar

if TYPE_CHECKING:
    from infer_cli.evaluation.statistics.units import Doubles, Integers

LEAST, MOST = 0.93, 0.97  # of simulated intervals that hold
MOST_FALSE = 0.06
N_EXACT = (10, 20, 50, 100, 200)


class Sample(NamedTuple):
    """Scores of items, and of a second run where two are compared."""

    scores: list[float]
    clusters: list[str] | None
    is_proportion: bool
    others: list[float]


class Kind(NamedTuple):
    """`truth` is the mean of what is drawn."""

    name: str
    truth: float
    draw: Callable[[np.random.Generator], Sample]


# --- exactly ----------------------------------------------------------------------------------------


def binomial(n: int, shares: Doubles) -> Doubles:
    """Probabilities of 0..n successes, shape (shares, n + 1), for shares between 0 and 1."""
    k = np.arange(n + 1)
    ways = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k])
    likely: Doubles = np.exp(ways + np.outer(np.log(shares), k) + np.outer(np.log1p(-shares), n - k))
    return likely


def proportion_coverage(interval: Callable[[int, int], Interval], n: int, shares: Doubles) -> Doubles:
    """The probability that the interval of n items holds, for each true share."""
    ends = [interval(k, n) for k in range(n + 1)]
    lo, hi = np.array([end.lo for end in ends]), np.array([end.hi for end in ends])
    holds = (lo <= shares[:, None]) & (shares[:, None] <= hi)
    covered: Doubles = (binomial(n, shares) * holds).sum(axis=1)
    return covered


def over_flips(outcome: Callable[[int, int], bool], n: int, discordance: float, difference: float) -> float:
    """The probability of an outcome (items better, items worse) of n items of which that share changes."""
    total = 0.0
    to_better = np.array([(1 + difference / discordance) / 2])
    for n_flipped, likely in enumerate(binomial(n, np.array([discordance]))[0]):
        if likely > 1e-12:
            ways = (
                binomial(n_flipped, to_better)[0] if difference < discordance else np.eye(n_flipped + 1)[-1]
            )
            hits = [w for b, w in enumerate(ways) if w > 1e-12 and outcome(b, n_flipped - b)]
            total += float(likely) * math.fsum(hits)
    return total


def mcnemar_finds(n: int, discordance: float, difference: float) -> float:
    """The probability that the test tells two runs apart."""
    return over_flips(lambda b, c: mid_p_mcnemar(b, c) < SIGNIFICANT, n, discordance, difference)


def difference_coverage(n: int, discordance: float, difference: float) -> float:
    """The probability that the interval of a paired difference of proportions holds."""

    def holds(n_better: int, n_worse: int) -> bool:
        interval = bonett_price(n_better, n_worse, n)
        return interval.lo <= difference <= interval.hi

    return over_flips(holds, n, discordance, difference)


# --- simulated --------------------------------------------------------------------------------------


def coverage(kind: Kind, n_rounds: int, seed: int, interval_of: Callable[[Sample], Interval | None]) -> float:
    """The share of rounds in which an interval holds; one that is missing does not."""
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(n_rounds):
        interval = interval_of(kind.draw(rng))
        held += interval is not None and interval.lo <= kind.truth <= interval.hi
    return held / n_rounds


def false_alarms(kind: Kind, n_rounds: int, seed: int, p_value_of: Callable[[Sample], float]) -> float:
    """The share of rounds in which a test tells two runs apart that are alike."""
    rng = np.random.default_rng(seed)
    return sum(p_value_of(kind.draw(rng)) < SIGNIFICANT for _ in range(n_rounds)) / n_rounds


def _graded(name: str, truth: float, draw: Callable[[np.random.Generator, int], Doubles], n: int) -> Kind:
    def sample(rng: np.random.Generator) -> Sample:
        return Sample(draw(rng, n).tolist(), None, False, draw(rng, n).tolist())

    return Kind(f"{n} items, {name}", truth, sample)


def clustered(n: int, size: int, share: float, correlation: float, other: float | None = None) -> Kind:
    """Right and wrong answers in n clusters of 1 or more items, `size` on average. `correlation`: of two
    items of a cluster; `other`: in the second run."""

    def answers(rng: np.random.Generator, sizes: Integers, intraclass: float) -> list[float]:
        weight = (1 - intraclass) / intraclass
        shares = np.repeat(rng.beta(share * weight, (1 - share) * weight, n), sizes)
        drawn: list[float] = (rng.random(len(shares)) < shares).astype(float).tolist()
        return drawn

    def sample(rng: np.random.Generator) -> Sample:
        sizes = 1 + rng.poisson(size - 1, n)
        names = np.repeat(np.arange(n), sizes).astype(str).tolist()
        both = [answers(rng, sizes, correlation), answers(rng, sizes, other or correlation)]
        return Sample(both[0], names, True, both[1])

    second = f", {other} in the second run" if other else ""
    return Kind(f"{n} clusters of {size}, share {share}, correlation {correlation}{second}", share, sample)


def _rounded_shares(rng: np.random.Generator, n: int) -> Doubles:
    found: Doubles = rng.binomial(4, rng.beta(1, 1, n)) / 4
    return found


def _half_zeros(rng: np.random.Generator, n: int) -> Doubles:
    found: Doubles = rng.beta(2, 2, n) * (rng.random(n) < 0.5)
    return found


GRADED = [
    _graded("normal", 0.0, lambda rng, n: rng.normal(size=n), 50),
    _graded("even over 0..1", 0.5, lambda rng, n: rng.random(n), 50),
    _graded("mostly near 0 and 1", 0.5, lambda rng, n: rng.beta(0.5, 0.5, n), 50),
    _graded("half of them 0", 0.25, _half_zeros, 50),
    _graded("share of 4 samples", 0.5, _rounded_shares, 50),
    _graded("normal", 0.0, lambda rng, n: rng.normal(size=n), 200),
]
CLUSTERED = [
    clustered(30, 5, share, correlation) for share in (0.5, 0.7, 0.8) for correlation in (0.1, 0.3, 0.7)
] + [clustered(30, 20, 0.5, 0.7), clustered(100, 5, 0.9, 0.7)]
HARD = [
    _graded("exponential", 1.0, lambda rng, n: rng.exponential(size=n), 50),
    clustered(30, 5, 0.9, 0.3),
    clustered(30, 5, 0.9, 0.7),
    clustered(10, 5, 0.5, 0.7),
]
ALIKE = [
    clustered(12, 5, 0.7, 0.7),
    clustered(30, 5, 0.7, 0.7),
    clustered(100, 5, 0.7, 0.7),
    clustered(30, 5, 0.7, 0.7, 0.1),
    _graded("share of 4 samples", 0.5, _rounded_shares, 20),
    _graded("half of them 0", 0.25, _half_zeros, 50),
]


def benchmark() -> str:
    parser = common.arguments(__doc__, rounds=5000)
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn (1)")
    given = parser.parse_args()
    report = common.Report("statistics", given.rounds)
    _exact(report)
    for kind in [*GRADED, *CLUSTERED, *HARD]:
        share = coverage(kind, given.rounds, given.seed, _interval)
        if kind in HARD:
            report.series(f"hard: interval holds: {kind.name}", [share])
        else:
            _between(report, f"interval holds: {kind.name}", [share], LEAST, MOST)
        print(f"{kind.name}: the interval holds in {share:.1%}", file=sys.stderr)
    for kind in ALIKE:
        share = false_alarms(kind, given.rounds, given.seed, _p_value)
        report.series(f"false alarms: {kind.name}", [share])
        report.check(f"false alarms: {kind.name}", share, "<=", MOST_FALSE)
        print(f"{kind.name}: false alarms in {share:.1%}", file=sys.stderr)
    return report.line(common.machine_facts(numpy=np.__version__), {"seed": given.seed})


def _exact(report: common.Report) -> None:
    shares = np.linspace(0.02, 0.98, 961)
    for n in N_EXACT:
        means = [float(proportion_coverage(wilson, n, shares).mean())]
        _between(report, f"Wilson holds on average: {n} items", means, 0.94, 0.965)
        least = float(proportion_coverage(clopper_pearson, n, shares).min())
        report.series(f"Clopper-Pearson holds at worst: {n} items", [least])
        report.check(f"Clopper-Pearson holds at worst: {n} items", least, ">=", 0.95)
        found = [mcnemar_finds(n, discordance, 0.0) for discordance in (0.05, 0.1, 0.3, 0.6, 0.95)]
        report.series(f"McNemar, false alarms: {n} items", found)
        report.check(f"McNemar, false alarms: {n} items", max(found), "<=", MOST_FALSE)
        held = [difference_coverage(n, *pair) for pair in ((0.1, 0.0), (0.1, 0.05), (0.3, 0.1), (0.6, 0.0))]
        report.series(f"Bonett-Price holds: {n} items", held)
        report.check(f"Bonett-Price holds: {n} items", min(held), ">=", LEAST)


def _between(report: common.Report, name: str, values: Sequence[float], least: float, most: float) -> None:
    report.series(name, values)
    report.check(name, min(values), ">=", least)
    report.check(name, max(values), "<=", most)


def _interval(sample: Sample) -> Interval | None:
    return summarize(
        sample.scores, clusters=sample.clusters, is_proportion=sample.is_proportion, seed=0
    ).interval


def _p_value(sample: Sample) -> float:
    return compare(
        sample.scores, sample.others, clusters=sample.clusters, is_proportion=sample.is_proportion, seed=0
    ).test.p_value


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
