"""How likely tokens are, of rows of logits: log-softmax with the maximum and exp in float32 and the sum in
float64, as llama-perplexity has it (`log_softmax` in llama.cpp's tools/perplexity)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from infer_cli.backend.base import Floats


class RowNorm(NamedTuple):
    """What turns a row's logits into log-probabilities: `logit - peak - log_sum`."""

    peak: float
    log_sum: float

    def logprob(self, logit: float) -> float:
        return logit - self.peak - self.log_sum


class LogSoftmax:
    """Reads rows of `n_vocab` logits one by one, in memory that is kept."""

    def __init__(self, n_vocab: int) -> None:
        self._exp = np.empty(n_vocab, np.float32)

    def norm(self, row: Floats) -> RowNorm | None:
        """Of a row of shape (n_vocab,); None where the model computed NaN or an infinite logit."""
        peak = row.max()
        if not math.isfinite(peak):
            return None
        np.subtract(row, peak, out=self._exp)
        np.exp(self._exp, out=self._exp)
        return RowNorm(float(peak), math.log(float(self._exp.sum(dtype=np.float64))))


def is_likeliest(row: Floats, token: int, norm: RowNorm) -> bool:
    """Whether greedy decoding would choose the token: the highest logit, the lowest id of several."""
    return float(row[token]) == norm.peak and int(row.argmax()) == token
