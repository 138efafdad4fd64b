"""The perplexity of a text: its windows given to an engine, and what comes of them. Knows no terminal.

Windows are counted in their order, whichever ends first: the sums, to the last digit, depend on the engine's
numbers alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_cli.answering.feed import Feed
from infer_cli.answering.reply import failure
from infer_cli.scoring.statistics import Estimate, Sums, exponential

if TYPE_CHECKING:
    from infer_cli.engine.service import Service
    from infer_cli.scoring.windowed_text import WindowedText
    from infer_cli.types import Finished


@dataclass(frozen=True)
class Perplexity:
    """Of the first `n_windows` of a text. `nll`: mean negative log-likelihood of a scored token, in nats.

    `n_bytes`: what the scored tokens stand for.
    """

    nll: Estimate
    n_tokens: int
    n_windows: int
    n_bytes: int

    @property
    def ppl(self) -> Estimate:
        """e to the power of `nll`."""
        return exponential(self.nll)

    @property
    def bits_per_byte(self) -> float | None:
        """None where the scored tokens stand for no byte."""
        return self.nll.value * self.n_tokens / math.log(2) / self.n_bytes if self.n_bytes else None


OnWindow = Callable[[int, Estimate], None]  # windows that were counted, and the perplexity so far


def measure_perplexity(
    service: Service,
    text: WindowedText,
    model: str,
    on_window: OnWindow | None = None,
    *,
    request_prefix: str = "",
) -> Perplexity:
    """Score a text with an engine that takes `ScoreRequest`s of `text.n_read` tokens.

    `model` is what an error calls it. `request_prefix`: what the ids of the requests begin with, where the
    engine has others. What `on_window` raises ends the work.
    Raises ModelInvalid where the model's numbers are not finite, UnexpectedFailure where the engine stops.
    """
    counted = WindowedNll(text)
    waiting: dict[int, list[float]] = {}
    for number, end in Feed(service, text.requests(request_prefix)):
        waiting[number] = nll_of(end, model)
        while counted.n_windows in waiting:
            counted.add(waiting.pop(counted.n_windows))
            if on_window is not None:
                on_window(counted.n_windows, counted.ppl)
    return counted.result()


class WindowedNll:
    """The sums over a text's windows, in their order."""

    def __init__(self, text: WindowedText) -> None:
        self._text = text
        self._sums = Sums()
        self.n_windows = 0

    def add(self, nll: list[float]) -> None:
        """Of the next window's scored tokens."""
        self._sums.add(nll)
        self.n_windows += 1

    @property
    def ppl(self) -> Estimate:
        """So far."""
        return exponential(self._sums.mean)

    def result(self) -> Perplexity:
        n_bytes = self._text.scored_bytes(self.n_windows)
        return Perplexity(self._sums.mean, self._sums.n, self.n_windows, n_bytes)


def nll_of(end: Finished, model: str) -> list[float]:
    """Negative log-likelihood of each token that a request asked for. Raises InferError where it failed."""
    if end.likelihood is None:
        raise failure(end.error or f"the engine ended with {end.reason}", end.error_status, model)
    return [-logprob for logprob in end.likelihood.token_logprobs]
