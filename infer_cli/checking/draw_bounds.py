"""Could a sampler have drawn a token, if the logits had been a little different? Pure.

The steps are those of `backend.llama.LlamaSampler`. Each logit is taken to lie anywhere within some distance
of the one that is here, and so each step keeps some tokens surely and others perhaps. The number that was
drawn is known: it has to fall where the token may lie among those before and after it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from infer_cli.types import SamplingParams

if TYPE_CHECKING:
    import numpy.typing as npt

    from infer_cli.backend.base import Floats

    Doubles = npt.NDArray[np.float64]

MOST = 8.0  # a difference of logits beyond which no more is told
_LEAST = 2e-4  # of rounding: the sampler computes in float32
_STEP = 0.01  # how exactly a distance is found
_OFF = SamplingParams()


def not_replayed(params: SamplingParams) -> str:
    """The parameter whose part of the sampler is not done again here; empty where all is."""
    if params.dry_multiplier != 0.0:
        return "dry_multiplier"
    if params.greedy:
        return ""
    names = ("typical_p", "top_n_sigma", "xtc_probability", "dynatemp_range", "mirostat")
    return next((name for name in names if getattr(params, name) != getattr(_OFF, name)), "")


class Penalties:
    """What earlier tokens do to the logits. `n_ctx_train` is what a `repeat_last_n` below 0 stands for."""

    def __init__(self, params: SamplingParams, n_ctx_train: int) -> None:
        self._params = params
        self._is_on = params.penalized and params.repeat_last_n != 0
        n_last = n_ctx_train if params.repeat_last_n < 0 else params.repeat_last_n
        self._last: deque[int] = deque(maxlen=n_last)
        self._counts: Counter[int] = Counter()

    def accept(self, tokens: Iterable[int]) -> None:
        """Tokens of the prompt or the reply, in their order."""
        if not self._is_on:
            return
        for token in tokens:
            if len(self._last) == self._last.maxlen:
                self._counts[self._last[0]] -= 1
            self._last.append(token)
            self._counts[token] += 1

    def applied(self, logits: Doubles) -> Doubles:
        """Logits of shape (n_vocab,) after the penalties; the order of two values of one token stays."""
        params = self._params
        ids = [token for token, n in self._counts.items() if n]
        if not ids:
            return logits
        counts = np.array([self._counts[token] for token in ids], np.float64)
        new: Doubles = logits.copy()
        own = new[ids]
        own = np.where(own <= 0, own * params.repeat_penalty, own / params.repeat_penalty)
        new[ids] = own - counts * params.frequency_penalty - params.presence_penalty
        return new


class Distance(NamedTuple):
    """How far a token is from the one that the sampler takes here, `likeliest`: the least difference of two
    logits that would have to be otherwise, in nats; infinite beyond `MOST`."""

    nats: float
    likeliest: int


def greedy_distance(row: Floats, token: int, penalties: Penalties) -> Distance:
    """Of a greedy choice from logits of shape (n_vocab,)."""
    logits = penalties.applied(row.astype(np.float64))
    best = int(logits.argmax())
    return Distance(float(logits[best] - logits[token]), best)


def drawn_distance(
    row: Floats, token: int, params: SamplingParams, penalties: Penalties, number: tuple[float, float]
) -> Distance:
    """Of a seeded draw from logits of shape (n_vocab,). `number`: bounds of what was drawn, from 0 to 1."""
    candidates = _Candidates(row.astype(np.float64), token, params, penalties)
    drawn = candidates.drawn(sum(number) / 2)
    if candidates.could_be(number, _LEAST / 2):
        return Distance(0.0, drawn)
    if not candidates.could_be(number, MOST / 2):
        return Distance(math.inf, drawn)
    low, high = _LEAST, MOST
    while high - low > _STEP:
        middle = (low + high) / 2
        if candidates.could_be(number, middle / 2):
            high = middle
        else:
            low = middle
    return Distance(high, drawn)


class _Candidates:
    """The logits of one row. Of several tokens, `low` and `high` bound each one's logit."""

    def __init__(self, row: Doubles, token: int, params: SamplingParams, penalties: Penalties) -> None:
        self._params, self._token = params, token
        self._row, self._penalties = row, penalties

    def could_be(self, number: tuple[float, float], reach: float) -> bool:
        """Whether the token may have been drawn where each logit may be `reach` off."""
        ids, is_sure, low, high = self._kept(reach)
        at = np.flatnonzero(ids == self._token)
        if not len(at):
            return False
        place = int(at[0])
        peak = high.max()
        temperature = self._params.temperature
        least, most = np.exp((low - peak) / temperature), np.exp((high - peak) / temperature)
        if self._is_sorted:
            surely_before, perhaps_before = low > high[place], high >= low[place]
        else:
            surely_before = perhaps_before = ids < self._token
        surely_before = surely_before & is_sure
        others = np.ones(len(ids), bool)
        others[place] = False
        before = least[surely_before].sum()
        rest = most[place] + most[others & ~surely_before].sum()
        before_at_most = most[others & perhaps_before].sum() + most[place]
        after = least[others & is_sure & ~perhaps_before].sum()
        begins, ends = before / (before + rest), before_at_most / (before_at_most + after)
        return bool(number[0] <= ends and number[1] >= begins)

    def drawn(self, number: float) -> int:
        """The token that is drawn from the logits as they are."""
        ids, _, low, _ = self._kept(0.0)
        order = np.argsort(-low, kind="stable") if self._is_sorted else np.arange(len(ids))
        total = np.cumsum(np.exp((low[order] - low.max()) / self._params.temperature))
        return int(ids[order[min(int(np.searchsorted(total, number * total[-1])), len(ids) - 1)]])

    @property
    def _is_sorted(self) -> bool:
        """Whether the steps leave the likeliest first, else by id."""
        return self._params.top_k > 0 or self._params.top_p < 1.0

    def _kept(self, reach: float) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_], Doubles, Doubles]:
        """Tokens that the steps before the draw may keep: ids, whether they surely do, and bounds."""
        params = self._params
        low, high = self._penalties.applied(self._row - reach), self._penalties.applied(self._row + reach)
        ids = np.arange(len(low))
        is_sure = np.ones(len(low), bool)
        n_most = params.top_k
        if 0 < n_most < len(low):
            parted = np.partition(low, len(low) - n_most)
            keep = high >= parted[len(low) - n_most]
            is_sure = low > np.partition(high, len(low) - n_most - 1)[len(low) - n_most - 1]
            ids, is_sure, low, high = ids[keep], is_sure[keep], low[keep], high[keep]
        if params.top_p < 1.0:
            ids, is_sure, low, high = _nucleus(params.top_p, ids, is_sure, low, high)
        if params.min_p > 0.0:
            keep = high >= low.max() + math.log(params.min_p)
            is_sure = is_sure & (low >= high.max() + math.log(params.min_p))
            ids, is_sure, low, high = ids[keep], is_sure[keep], low[keep], high[keep]
        return ids, is_sure, low, high


def _nucleus(
    share: float, ids: npt.NDArray[Any], is_sure: npt.NDArray[np.bool_], low: Doubles, high: Doubles
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_], Doubles, Doubles]:
    """The likeliest tokens that make up a share of the probability together: a token is kept where those
    before it make up less."""
    peak = high.max()
    least, most = np.exp(low - peak), np.exp(high - peak)
    # Of the tokens that are surely before each one, at least; the others at most.
    order = np.argsort(-low, kind="stable")
    sure = np.where(is_sure[order], 1.0, 0.0)
    n_before = np.searchsorted(-low[order], -high, side="left")
    before = np.concatenate(([0.0], np.cumsum(least[order] * sure)))[n_before]
    counted = np.concatenate(([0.0], np.cumsum(most[order] * sure)))[n_before]
    keep = before < share * (before + most.sum() - counted)
    # Of those that are perhaps before it, itself left out, at most; those after it at least.
    order = np.argsort(-high, kind="stable")
    n_before = np.searchsorted(-high[order], -low, side="right")
    before = np.concatenate(([0.0], np.cumsum(most[order])))[n_before] - most
    sure_least = np.where(is_sure, least, 0.0)
    counted = np.concatenate(([0.0], np.cumsum(sure_least[order])))[n_before]
    after = sure_least.sum() - counted
    surely = is_sure & (before < share * (before + least + after))
    return ids[keep], surely[keep], low[keep], high[keep]
