"""Scorers of a whole reply's form: `not_empty`, `ended`, `length`."""

from __future__ import annotations

from infer_cli.evaluation.scorers.options import ScorerOptions
from infer_cli.evaluation.scorers.rule import RIGHT, Rule, wrong
from infer_cli.evaluation.scorers.scorer import Answer, Score, ScorerFailed

ENDED = ("stop", "stop_string")


class NotEmpty(Rule):
    """1 for a reply that is more than white space."""

    def __init__(self, options: ScorerOptions) -> None:
        super().__init__(options.score_name)

    def score(self, answer: Answer) -> Score:
        return wrong("empty") if not answer.text or answer.text.isspace() else RIGHT


class Ended(Rule):
    """1 for a reply that the model itself ended, or a stop string: no limit cut it."""

    def __init__(self, options: ScorerOptions) -> None:
        super().__init__(options.score_name)

    def score(self, answer: Answer) -> Score:
        if answer.finish_reason is None:
            raise ScorerFailed("the reply does not say what ended it")
        return RIGHT if answer.finish_reason in ENDED else wrong(f"ended by {answer.finish_reason}")


class Length(Rule):
    """1 for a reply of at least `min` and at most `max` characters, or words between white space."""

    def __init__(self, options: ScorerOptions) -> None:
        super().__init__(options.score_name)
        self._unit = options.one_of("unit", ("characters", "words"), "characters")
        self._min, self._max = options.count("min"), options.count("max")
        if self._min is None and self._max is None:
            raise options.missing("min", "or give max")
        if self._min is not None and self._max is not None and self._min > self._max:
            raise options.wrong("min", f"is more than max: {self._min} and {self._max}", "change them")

    def score(self, answer: Answer) -> Score:
        n = len(answer.text.split() if self._unit == "words" else answer.text)
        if self._min is not None and n < self._min:
            return wrong(f"{n} {self._unit}, at least {self._min} wanted")
        if self._max is not None and n > self._max:
            return wrong(f"{n} {self._unit}, at most {self._max} wanted")
        return RIGHT
