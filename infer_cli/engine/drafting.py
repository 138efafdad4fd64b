"""Speculation by prompt lookup: what a reply will say next is guessed from where its last tokens stood before
(Saxena 2023, "Prompt Lookup Decoding"), as far as guesses have been right and pay.

Pure: no model, no clock. A guess is verified in the same decode call by the rows that follow it, so it
changes what a step costs, never what is answered.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_ROWS = 16  # of a decode call that guesses: each has a row of logits in memory
_GRAMS = (3, 2)  # tokens that have to agree, the longer first
_LENGTHS = (1, 2, 3, 4, 6, 8, 11, 15)
_DECAY = 0.9  # of what was seen before, at each new sight
_ROW_COST = 0.25  # of a call, for each row after the first, until it was measured
_MIN_GAIN = 1.05


class PromptLookup:
    """The ids of one request, and where each few of them stood last."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # a gram -> the position after it, the latest
        self._right, self._wrong = 1.0, 1.0
        for token in ids:
            self._push(token)

    def append(self, token: int) -> None:
        """Take the next token in, and see whether it would have been guessed."""
        guess = self.draft(1)
        if guess:
            self._right = self._right * _DECAY + (guess[0] == token)
            self._wrong = self._wrong * _DECAY + (guess[0] != token)
        self._push(token)

    def _push(self, token: int) -> None:
        end = len(self._ids)
        for size in _GRAMS:
            if end >= size:
                self._after[tuple(self._ids[end - size :])] = end
        self._ids.append(token)

    def draft(self, n: int) -> list[int]:
        """The next n ids if it goes on as before; empty where the last few are new."""
        for size in _GRAMS:
            start = self._after.get(tuple(self._ids[-size:]))
            if start is not None:
                period = len(self._ids) - start
                return [self._ids[start + i % period] for i in range(n)]
        return []

    def expected(self, n: int) -> float:
        """Tokens that a step with n drafted ones is likely to yield."""
        right = self._right / (self._right + self._wrong)
        return sum(right**i for i in range(n + 1))


class StepCosts:
    """Seconds of decode calls by their number of rows."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def note(self, n_rows: int, seconds: float) -> None:
        if seconds <= 0:  # too quick for the clock
            return
        before = self._seconds.get(n_rows, seconds)
        self._seconds[n_rows] = before * _DECAY + seconds * (1 - _DECAY)

    def of(self, n_rows: int) -> float:
        """As measured, or from the nearest that was."""
        if not self._seconds:
            return _weight(n_rows)
        nearest = min(self._seconds, key=lambda known: (abs(known - n_rows), known))
        return self._seconds[nearest] * _weight(n_rows) / _weight(nearest)


def _weight(n_rows: int) -> float:
    return 1 + _ROW_COST * (n_rows - 1)


def draft_length(lookups: Sequence[PromptLookup], costs: StepCosts, most: int) -> int:
    """Tokens to guess for each of these requests, all the same number; 0 where none pays.

    A request without a guess is counted as one that gains nothing. `most`: what their windows have room for.
    """
    n = len(lookups)
    guessing = [lookup for lookup in lookups if lookup.draft(1)]
    best, best_gain = 0, _MIN_GAIN
    if not guessing:
        return best
    for length in _LENGTHS:
        if length > most or n * (1 + length) > MAX_ROWS:
            break
        tokens = sum(lookup.expected(length) for lookup in guessing) + n - len(guessing)
        gain = tokens / n * costs.of(n) / costs.of(n * (1 + length))
        if gain > best_gain:
            best, best_gain = length, gain
    return best
