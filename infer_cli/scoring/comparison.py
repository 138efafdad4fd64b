"""A text scored by two models in step, so that each prediction of one is beside the other's.

No file of logits: the engine that is behind is stepped, and a row waits for its pair only. Both engines have
one window at a time and give its rows in order, so what waits is at most what one call gives.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.errors import UsageError
from infer_cli.scoring.divergence import Divergence, DivergenceSums, RowDifference, compare_rows
from infer_cli.scoring.perplexity import Perplexity, WindowedNll, nll_of
from infer_cli.scoring.statistics import Estimate
from infer_cli.types import Finished, ScoreRequest

if TYPE_CHECKING:
    from infer_cli.backend.base import Floats, Vocab
    from infer_cli.engine.score_engine import ScoreEngine
    from infer_cli.scoring.windowed_text import WindowedText

MOST_LOGITS = 64 << 20  # bytes of logits that are held in all, where a mode leaves free how many a call gives


def rows_a_call(n_vocab: int) -> int:
    """Most rows of logits that one call of an engine may give: both engines hold as many, and those of one
    call wait for the other engine."""
    return max(1, MOST_LOGITS // (3 * 4 * n_vocab))


def check_same_vocabulary(model: Vocab, base: Vocab, model_name: str, base_name: str) -> None:
    """Raises UsageError where an id does not stand for the same text in both."""
    if model.n_tokens != base.n_tokens:
        how = f"{model.n_tokens} and {base.n_tokens} tokens"
    else:
        texts = ((i, model.token_text(i), base.token_text(i)) for i in range(model.n_tokens))
        other = next(((i, own, theirs) for i, own, theirs in texts if own != theirs), None)
        if other is None:
            return
        how = f"token {other[0]} is {other[1]!r} and {other[2]!r}"
    raise UsageError(
        f"{model_name} and {base_name} have other vocabularies: {how}",
        "compare models of one vocabulary, such as two quantizations of one model",
    )


class Compared(NamedTuple):
    """`base` is the perplexity of the model that is compared against."""

    model: Perplexity
    base: Perplexity
    divergence: Divergence


OnCompared = Callable[[int, Estimate, Estimate], None]  # windows, perplexity and mean divergence so far


class _Side:
    """What is known of one of the two models. `waiting`: rows whose pair has not come."""

    def __init__(self, name: str, text: WindowedText) -> None:
        self.name, self.counted = name, WindowedNll(text)
        self.n_rows = 0
        self.waiting: deque[Floats] = deque()


class Comparison:
    """Of a model with a base, over one text. Each engine is made with its `on_row`: `see_model`, `see_base`.
    Single-threaded."""

    def __init__(self, text: WindowedText, model_name: str, base_name: str) -> None:
        self._text = text
        self._model, self._base = _Side(model_name, text), _Side(base_name, text)
        self._sums = DivergenceSums()
        self._differences: list[RowDifference] = []  # of the window that is scored

    def see_model(self, request: ScoreRequest, position: int, row: Floats) -> None:
        """`OnRow` of the model's engine."""
        self._model.n_rows += 1
        if self._base.waiting:
            self._differences.append(compare_rows(self._base.waiting.popleft(), row))
        else:
            self._model.waiting.append(row.copy())

    def see_base(self, request: ScoreRequest, position: int, row: Floats) -> None:
        """`OnRow` of the base's engine."""
        self._base.n_rows += 1
        if self._model.waiting:
            self._differences.append(compare_rows(row, self._model.waiting.popleft()))
        else:
            self._base.waiting.append(row.copy())

    @property
    def n_waiting(self) -> int:
        """Rows that are held because the other engine has not come to theirs."""
        return len(self._model.waiting) + len(self._base.waiting)

    def run(self, model: ScoreEngine, base: ScoreEngine, on_window: OnCompared | None = None) -> Compared:
        """Score every window. What `on_window` raises ends the work.

        Raises ModelInvalid where a model's numbers are not finite, UnexpectedFailure where an engine fails.
        """
        for number in range(len(self._text.spans)):
            request = self._text.request(number)
            nll, nll_base = self._score(request, model, base)
            self._model.counted.add(nll)
            self._base.counted.add(nll_base)
            self._sums.add(self._differences, nll, nll_base)
            self._differences.clear()
            if on_window is not None:
                on_window(number + 1, self._model.counted.ppl, self._sums.kl_mean)
        return Compared(self._model.counted.result(), self._base.counted.result(), self._sums.result())

    def _score(
        self, request: ScoreRequest, model: ScoreEngine, base: ScoreEngine
    ) -> tuple[list[float], list[float]]:
        """One window's negative log-likelihoods, of both."""
        now = time.perf_counter()
        model.submit(request, now)
        base.submit(request, now)
        found: dict[bool, list[float]] = {}  # by whether it is the base's
        while len(found) < 2:
            is_base = True not in found and (False in found or self._base.n_rows <= self._model.n_rows)
            engine, side = (base, self._base) if is_base else (model, self._model)
            for event in engine.step():
                if isinstance(event, Finished):
                    found[is_base] = nll_of(event, side.name)
        return found[False], found[True]
