"""The scorer `judge`: another model is asked how good an answer is, and its reply becomes a score.

Asks no model itself: `evaluation/runs/judging.py` has the questions answered, as a batch of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from infer_cli.evaluation.scorers.answer_template import AnswerTemplate
from infer_cli.evaluation.scorers.extraction import Extractor
from infer_cli.evaluation.scorers.numbers import parse_number
from infer_cli.evaluation.scorers.options import ScorerOptions
from infer_cli.evaluation.scorers.scorer import Answer, Score, ScorerFailed
from infer_cli.evaluation.tasks.task import Extraction, ExtractionKind
from infer_cli.text.sanitize import single_line

MAX_TOKENS = 1024  # of a judge's reply
MOST_TOKENS = 1 << 20
_VERDICTS: tuple[ExtractionKind, ...] = ("last_number", "letter", "regex")
_SHOWN = 80  # characters of a judge's reply in an explanation


class Judge:
    """`prompt` is a template (`AnswerTemplate`): what the judge is asked. `verdict` says what is looked for in
    its reply. A number between `min` and `max` becomes a score from 0 to 1, or `values` says what each verdict
    is worth. `model` is who is asked where the command line says nothing.

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
        self._min, self._max = (0.0, 1.0) if self._values else _scale_of(options)
        self._extractor = Extractor([_extraction_of(options, self._values)], options.file)
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
            raise ScorerFailed(f"no verdict in the judge's reply: {_shown(reply)}")
        if self._values:
            value = self._values.get(found)
            if value is None:
                raise ScorerFailed(f"the judge's verdict {_shown(found)} is none of {', '.join(self._values)}")
            return Score(value, f"the judge's verdict is {_shown(found)}")
        number = parse_number(found)
        if number is None or not self._min <= number <= self._max:
            scale = f"{self._min:g} to {self._max:g}"
            raise ScorerFailed(f"the judge's verdict {_shown(found)} is not a number from {scale}")
        value = float((number - self._low) / (self._high - self._low))
        return Score(value, f"the judge's verdict is {_shown(found)}")

    def score(self, answer: Answer) -> Score:
        raise ScorerFailed("its judge has not been asked")
