"""Log-probabilities of one row of logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_cli.types import (
    TokenLogprobs,
)

if TYPE_CHECKING:
    from infer_cli.backend.base import Floats


def token_logprobs(logits: Floats, token: int, n_top: int) -> TokenLogprobs:
    """Log-softmax of one row, in float64: the chosen token's value and the `n_top` likeliest."""
    wide = logits.astype(np.float64)
    peak = float(wide.max())
    norm = peak + float(np.log(np.exp(wide - peak).sum()))
    top: tuple[tuple[int, float], ...] = ()
    if n_top:
        n_top = min(n_top, len(wide))
        ids = np.argpartition(-wide, n_top - 1)[:n_top]
        order = np.lexsort((ids, -wide[ids]))
        top = tuple((int(i), float(wide[i]) - norm) for i in ids[order])
    return TokenLogprobs(token, float(wide[token]) - norm, top)
