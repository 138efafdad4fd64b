"""The scorer `judge`: another model is asked how good an answer is, and its reply becomes a score.

Asks no model itself: `evaluation/runs/judging.py` has the questions answered, as a batch of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from infer_cli.evaluation.scorers.answer_template import AnswerTemplate
from infer_cli.evaluation.scorers.extraction import Extractor
from infer_cli.evaluation.scorers.numbers import parse_number
from infer_cli.evaluation.scorers.options import ScorerOptions
from infer_cli.evaluation.scorers.rule import shown
from infer_cli.evaluation.scorers.scorer import Answer, Score, ScorerFailed
from infer_cli.evaluation.tasks.task import Extraction, ExtractionKind

MAX_TOKENS = 1024  # of a judge's reply
MOST_TOKENS = 1 << 20
_VERDICTS: tuple[ExtractionKind, ...] = ("last_number", "letter", "regex")


class Judge:
    """`prompt` is a template (`AnswerTemplate`): what the judge is asked. `verdict` says what is looked for
    in its reply. A number between `min` and `max` becomes a score from 0 to 1, or `values` says what each
    verdict is worth. `model` is who is asked where the command line says nothing.

    Raises UsageError for options that can't be used.
    """

    is_code = False
    higher_is_better = True
    worst = 0.0

    def __init__(self, options: ScorerOptions) -> None:
        self.name = options.score_name
        self.model = options.text("model", empty=False)
        self.max_tokens = options.whole("max_tokens", MAX_TOKENS, 1, MOST_TOKENS)
        self._prompt = AnswerTemplate(options, "prompt")
        self._values = _values_of(options)
        self._scale = _scale_of(options, self._values)
        self._extractor = Extractor([_extraction_of(options, self._values)], options.file, options.name)
        self.is_proportion = bool(self._values) and set(self._values.values()) <= {0.0, 1.0}

    def question(self, answer: Answer) -> str:
        """What the judge is asked of an answer. Raises ScorerFailed where the template fails."""
        text = self._prompt.fill(answer)
        if not text.strip():
            raise ScorerFailed("prompt: the text is empty")
        return text

    def verdict(self, reply: str) -> Score:
        """What the judge's reply comes to. Raises ScorerFailed where nothing is found in it, or nothing that
        is on the scale."""
        found = self._extractor.find(reply)
        if found is None:
            raise ScorerFailed(f"no verdict in the judge's reply: {shown(reply)}")
        if self._values:
            value = self._values.get(found)
            if value is None:
                raise ScorerFailed(f"the judge's verdict {shown(found)} is none of {', '.join(self._values)}")
            return Score(value, f"the judge's verdict is {shown(found)}")
        number = parse_number(found)
        if number is None or not self._scale.least <= number <= self._scale.most:
            raise ScorerFailed(f"the judge's verdict {shown(found)} is not a number from {self._scale}")
        return Score(self._scale.place_of(number), f"the judge's verdict is {shown(found)}")

    def score(self, answer: Answer) -> Score:
        raise ScorerFailed("its judge has not been asked")


class _Scale(NamedTuple):
    """What a judge counts from and to, exactly."""

    least: Fraction
    most: Fraction

    def place_of(self, number: Fraction) -> float:
        """From 0 to 1."""
        return float((number - self.least) / (self.most - self.least))

    def __str__(self) -> str:
        return f"{float(self.least):g} to {float(self.most):g}"


def _scale_of(options: ScorerOptions, values: Mapping[str, float]) -> _Scale:
    least, most = _number(options, "min"), _number(options, "max")
    for key, value in (("min", least), ("max", most)):
        if values and value is not None:
            raise options.wrong(key, "has no meaning where values says what a verdict is worth")
        if not values and value is None:
            raise options.missing(
                key, "say what the judge counts from and to, or what each verdict is worth: values"
            )
    if least is None or most is None:
        return _Scale(Fraction(0), Fraction(1))
    if least >= most:
        raise options.wrong("max", "must be above min")
    return _Scale(least, most)


def _number(options: ScorerOptions, key: str) -> Fraction | None:
    value = options.take(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise options.wrong(key, f"must be a number, not {value!r:.60}")
    return Fraction(repr(value))


def _values_of(options: ScorerOptions) -> dict[str, float]:
    """What each verdict is worth; empty where a number says it itself."""
    values: dict[str, float] = {}
    for verdict, value in (options.values("values") or {}).items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise options.wrong(
                "values", f"gives {verdict!r:.60} the value {value!r:.60}, not one from 0 to 1"
            )
        values[verdict] = float(value)
    return values


def _extraction_of(options: ScorerOptions, values: Mapping[str, float]) -> Extraction:
    kind = options.one_of("verdict", _VERDICTS, "last_number")
    pattern = options.text("pattern", empty=False)
    if (pattern is None) == (kind == "regex"):
        if pattern is None:
            raise options.missing("pattern", "say what the verdict looks like")
        raise options.wrong("pattern", f"has no meaning for the verdict {kind}", 'add verdict = "regex"')
    if kind == "letter":
        if not values or any(len(letter) != 1 for letter in values):
            raise options.wrong("verdict", "is letter: values must say what each letter is worth")
        return Extraction(kind, letters="".join(values))
    return Extraction(kind, pattern=pattern)
