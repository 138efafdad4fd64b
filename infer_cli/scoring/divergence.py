"""How far a model's predictions are from a base's: Kullback-Leibler divergence and its company. Pure.

The measures of `llama-perplexity --kl-divergence`, of the same tokens. It keeps the base's logits in a file,
16 bits each, and leaves out what the base gives less than e^-16; here both rows are at hand as they are.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.scoring.statistics import Estimate, Sums, exponential, percentile, share

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from infer_cli.backend.base import Floats

    Wide = npt.NDArray[np.float64]


class RowDifference(NamedTuple):
    """Of two predictions of one token. `kl`: KL(base || model) in nats; `same_top`: both find the same token
    likeliest."""

    kl: float
    same_top: bool


def compare_rows(base: Floats, model: Floats) -> RowDifference:
    """Two rows of logits, each (n_vocab,), in float64. `kl` is exactly 0 for equal rows.

    A logit of minus infinity stands for a token that can't come: it adds nothing where the base has it.
    """
    import numpy as np

    p, log_p = _softmax(base)
    _, log_q = _softmax(model)
    possible = p > 0
    kl = float(np.sum(p[possible] * (log_p[possible] - log_q[possible])))
    return RowDifference(max(0.0, kl), bool(base.argmax() == model.argmax()))  # rounding can be below 0


def _softmax(row: Floats) -> tuple[Wide, Wide]:
    """Probabilities and their logarithms."""
    import numpy as np

    shifted = row.astype(np.float64) - float(row.max())
    weights = np.exp(shifted)
    total = weights.sum()
    return weights / total, shifted - np.log(total)


@dataclass(frozen=True)
class Divergence:
    """Over the scored tokens. Errors are standard errors; `kl_p99`: 99 of 100 tokens are at or below it.

    `ppl_base` is the base's perplexity, `ppl_ratio` the model's over it: its error is smaller than that of
    either, as both find the same tokens hard.
    """

    kl_mean: Estimate
    kl_median: float
    kl_p99: float
    kl_max: float
    same_top: Estimate
    ppl_base: Estimate
    ppl_ratio: Estimate


class DivergenceSums:
    """What `Divergence` is taken of: 8 bytes a token are kept, for the percentiles."""

    def __init__(self) -> None:
        self._kl, self._kls = Sums(), array("d")
        self._n_same = 0
        self._nll_base, self._excess = Sums(), Sums()

    def add(
        self, differences: Sequence[RowDifference], nll: Sequence[float], nll_base: Sequence[float]
    ) -> None:
        """Of the same tokens: the rows that predict them, and their negative log-likelihoods."""
        kls = [difference.kl for difference in differences]
        self._kl.add(kls)
        self._kls.extend(kls)
        self._n_same += sum(difference.same_top for difference in differences)
        self._nll_base.add(nll_base)
        self._excess.add(own - base for own, base in zip(nll, nll_base, strict=True))

    @property
    def kl_mean(self) -> Estimate:
        return self._kl.mean

    def result(self) -> Divergence:
        ordered = sorted(self._kls)
        return Divergence(
            kl_mean=self._kl.mean,
            kl_median=percentile(ordered, 0.5),
            kl_p99=percentile(ordered, 0.99),
            kl_max=ordered[-1],
            same_top=share(self._n_same, len(ordered)),
            ppl_base=exponential(self._nll_base.mean),
            ppl_ratio=exponential(self._excess.mean),
        )
