"""The scorer `function`: `score` of a Python task."""

from __future__ import annotations

from infer_cli.evaluation.scorers.options import ScorerOptions
from infer_cli.evaluation.scorers.scorer import Answer, Score, ScorerFailed
from infer_cli.evaluation.tasks.task import TaskCodeFailed


class FunctionScorer:
    """Its scores are whatever numbers the function gives; 0 is the worst."""

    is_code = True
    is_proportion = False
    higher_is_better = True
    worst = 0.0

    def __init__(self, options: ScorerOptions) -> None:
        self.name = options.score_name
        function = options.task.functions.score
        if function is None:
            raise options.wrong(
                "kind", "is function, but the task has no score()", "write it, in a Python task"
            )
        self._function = function

    def score(self, answer: Answer) -> Score:
        try:
            return Score(self._function(answer.extracted, answer.doc))
        except TaskCodeFailed as e:
            raise ScorerFailed(e.message) from None
