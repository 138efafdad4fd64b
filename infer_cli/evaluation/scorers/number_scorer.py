"""The scorer `number`: are two numbers equal, exactly or nearly."""

from __future__ import annotations

from fractions import Fraction

from infer_cli.evaluation.scorers.numbers import parse_number
from infer_cli.evaluation.scorers.options import ScorerOptions
from infer_cli.evaluation.scorers.rule import RIGHT, Rule, references_of, shown, wrong, wrong_for
from infer_cli.evaluation.scorers.scorer import Answer, Score, ScorerFailed


class Number(Rule):
    """1 for an answer whose number is no further from a reference than `absolute`, or than `relative` times
    the reference. Computed in fractions: nothing is rounded."""

    def __init__(self, options: ScorerOptions) -> None:
        super().__init__(options.score_name)
        self._absolute = _exact(options.size("absolute"))
        self._relative = _exact(options.size("relative"))
        self._percent_is_hundredth = options.flag("percent_is_hundredth", False)

    def score(self, answer: Answer) -> Score:
        got = self._number(answer.extracted)
        wanted = [self._reference(reference) for reference in references_of(answer)]
        if got is None:
            return wrong(f"{shown(answer.extracted)} is not a number")
        if any(self._is_near(got, each) for each in wanted):
            return RIGHT
        return wrong_for(answer.extracted, answer.references)

    def _number(self, text: str) -> Fraction | None:
        return parse_number(text, percent_is_hundredth=self._percent_is_hundredth)

    def _reference(self, text: str) -> Fraction:
        number = self._number(text)
        if number is None:
            raise ScorerFailed(f"the reference {shown(text)} is not a number")
        return number

    def _is_near(self, got: Fraction, wanted: Fraction) -> bool:
        if got == wanted:
            return True
        margin = max(self._absolute, self._relative * abs(wanted))
        return margin > 0 and abs(got - wanted) <= margin


def _exact(value: float) -> Fraction:
    """The number as the task writes it: 0.1 is a tenth."""
    return Fraction(repr(value))
