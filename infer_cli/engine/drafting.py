"""Speculation by prompt lookup: what a reply will say next is guessed from where its last tokens stood before
(Saxena 2023, "Prompt Lookup Decoding"), as far as guesses have been right and pay.

Pure: no model, no clock. A guess is verified in the same decode call by the rows that follow it, so it
changes what a step costs, never what is answered.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_ROWS = 16  # of a decode call that guesses: each has a row of logits in memory
_GRAMS = (3, 2)  # tokens that have to agree, the longer first
_LENGTHS = (1, 3, 7, 11, 15)  # a multiple of four rows with the one before: quick with repacked weights
_DECAY = 0.85  # of what was seen before, at each new sight
_ROW_COST = 0.33  # of a call, for each row after the first, until it was measured
_MIN_GAIN = 1.05


class PromptLookup:
    """The ids of one request, and where each few of them stood last.

    `acceptance`: how likely a guess is right, before any was seen; an earlier request's is a good one.
    """

    def __init__(self, ids: Sequence[int], acceptance: float = 0.5) -> None:
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # a gram -> the position after it, the latest
        self._right, self._wrong = 2 * acceptance, 2 * (1 - acceptance)
        self._n_right, self._n_seen = acceptance, 1.0  # of the whole reply
        for token in ids:
            self._push(token)
        self._start = self._find()

    @property
    def has_guess(self) -> bool:
        """Whether the last few tokens have stood somewhere before."""
        return self._start is not None

    def append(self, token: int) -> None:
        """Take the next token in, and see whether it would have been guessed."""
        if self._start is not None:
            is_right = self._ids[self._start] == token
            self._right = self._right * _DECAY + is_right
            self._wrong = self._wrong * _DECAY + (not is_right)
            self._n_right += is_right
            self._n_seen += 1
        self._push(token)
        self._start = self._find()

    def _push(self, token: int) -> None:
        end = len(self._ids)
        for size in _GRAMS:
            if end >= size:
                self._after[tuple(self._ids[end - size :])] = end
        self._ids.append(token)

    def _find(self) -> int | None:
        """The position after the place where the last few tokens stood before."""
        for size in _GRAMS:
            start = self._after.get(tuple(self._ids[-size:]))
            if start is not None:
                return start
        return None

    def draft(self, n: int) -> list[int]:
        """The next n ids if it goes on as before; empty where the last few are new."""
        if self._start is None:
            return []
        period = len(self._ids) - self._start
        return [self._ids[self._start + i % period] for i in range(n)]

    @property
    def acceptance(self) -> float:
        """Share of the guesses that were right, over the whole reply."""
        return self._n_right / self._n_seen

    def expected(self, n: int) -> float:
        """Tokens that a step with n drafted ones is likely to yield, by the latest guesses."""
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
    guessing = [lookup for lookup in lookups if lookup.has_guess]
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
