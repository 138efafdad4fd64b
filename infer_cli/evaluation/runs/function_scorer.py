"""The function `score` of a Python task as a scorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from infer_cli.evaluation.scorers.scorer import Answer, Score, ScorerFailed
from infer_cli.evaluation.tasks.task import TaskCodeFailed


class FunctionScorer:
    """Scores may be any numbers; 0 is the worst."""

    name = "score"
    is_code = True
    is_proportion = False
    higher_is_better = True
    worst = 0.0

    def __init__(self, function: Callable[[str, Mapping[str, object]], float]) -> None:
        self._function = function

    def score(self, answer: Answer) -> Score:
        try:
            return Score(self._function(answer.extracted, answer.doc))
        except TaskCodeFailed as e:
            raise ScorerFailed(e.message) from None
