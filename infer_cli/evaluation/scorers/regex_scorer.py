"""The scorer `regex`: is something found in the answer."""

from __future__ import annotations

from infer_cli.evaluation.scorers.linear_regex import PATTERN_HINT, LinearPattern, PatternError, TextTooLong
from infer_cli.evaluation.scorers.options import ScorerOptions
from infer_cli.evaluation.scorers.rule import RIGHT, Rule, wrong
from infer_cli.evaluation.scorers.scorer import Answer, Score, ScorerFailed


class Matches(Rule):
    """1 for an answer in which a regular expression is found (or which it is, with `full`)."""

    def __init__(self, options: ScorerOptions) -> None:
        super().__init__(options.score_name)
        pattern = options.needed_text("pattern")
        try:
            self._pattern = LinearPattern(pattern, ignore_case=options.flag("ignore_case", False))
        except PatternError as e:
            raise options.wrong("pattern", str(e), PATTERN_HINT) from None
        self._full = options.flag("full", False)

    def score(self, answer: Answer) -> Score:
        text = answer.extracted
        try:
            found = self._pattern.is_all_of(text) if self._full else self._pattern.found_in(text)
        except TextTooLong as e:
            raise ScorerFailed(str(e)) from None
        return RIGHT if found else wrong("no match")
