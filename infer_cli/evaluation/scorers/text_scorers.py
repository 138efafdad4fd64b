"""Scorers that compare the texts of answers: `exact`, `normalized`, `contains`, `f1`."""

from __future__ import annotations

import re
import string
from collections import Counter

from infer_cli.evaluation.scorers.options import ScorerOptions
from infer_cli.evaluation.scorers.rule import RIGHT, Rule, references_of, shown, wrong, wrong_for
from infer_cli.evaluation.scorers.scorer import Answer, Score

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Normalization:
    """That of SQuAD: small letters, then without ASCII punctuation, without the words a, an and the, and with
    single spaces. Each step is an option."""

    def __init__(self, options: ScorerOptions) -> None:
        self._lower = options.flag("lower", True)
        self._punctuation = options.flag("punctuation", True)
        self._articles = options.flag("articles", True)
        self._white_space = options.flag("white_space", True)

    def text(self, text: str) -> str:
        if self._lower:
            text = text.lower()
        if self._punctuation:
            text = text.translate(_NO_PUNCTUATION)
        if self._articles:
            text = _ARTICLES.sub(" ", text)
        return " ".join(text.split()) if self._white_space else text


class Exact(Rule):
    """1 for an answer that is a reference, white space around both aside."""

    def __init__(self, options: ScorerOptions) -> None:
        super().__init__(options.score_name)
        self._ignore_case = options.flag("ignore_case", False)

    def score(self, answer: Answer) -> Score:
        got = self._compared(answer.extracted)
        references = references_of(answer)
        if any(got == self._compared(reference) for reference in references):
            return RIGHT
        return wrong_for(answer.extracted, references)

    def _compared(self, text: str) -> str:
        return text.strip().casefold() if self._ignore_case else text.strip()


class Normalized(Rule):
    """1 for an answer that is a reference once both are normalized."""

    def __init__(self, options: ScorerOptions) -> None:
        super().__init__(options.score_name)
        self._normalization = Normalization(options)

    def score(self, answer: Answer) -> Score:
        got = self._normalization.text(answer.extracted)
        references = references_of(answer)
        if any(got == self._normalization.text(reference) for reference in references):
            return RIGHT
        return wrong_for(answer.extracted, references)


class Contains(Rule):
    """1 for an answer in which a reference stands (or each, with `which = "all"`)."""

    def __init__(self, options: ScorerOptions) -> None:
        super().__init__(options.score_name)
        self._ignore_case = options.flag("ignore_case", False)
        self._all = options.one_of("which", ("any", "all"), "any") == "all"
        self._values = options.texts("values")

    def score(self, answer: Answer) -> Score:
        wanted = self._values or references_of(answer)
        text = answer.extracted.casefold() if self._ignore_case else answer.extracted
        missing = [each for each in wanted if (each.casefold() if self._ignore_case else each) not in text]
        if not missing or (not self._all and len(missing) < len(wanted)):
            return RIGHT
        return wrong(f"{' and '.join(map(shown, missing[:3]))} not found")


class TokenF1(Rule):
    """F1 of SQuAD: of the normalized words of answer and reference, for the best reference."""

    def __init__(self, options: ScorerOptions) -> None:
        super().__init__(options.score_name, is_proportion=False)
        self._normalization = Normalization(options)

    def score(self, answer: Answer) -> Score:
        got = self._normalization.text(answer.extracted).split()
        counts = Counter(got)
        best = max(
            _f1(got, counts, self._normalization.text(reference).split())
            for reference in references_of(answer)
        )
        return Score(best)


def _f1(got: list[str], counts: Counter[str], wanted: list[str]) -> float:
    if not got or not wanted:
        return float(got == wanted)
    left = dict(counts)
    n_common = 0
    for word in wanted:
        if left.get(word, 0) > 0:
            left[word] -= 1
            n_common += 1
    return 2 * n_common / (len(got) + len(wanted))
