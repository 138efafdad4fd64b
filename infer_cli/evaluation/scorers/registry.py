"""Which scorers there are, and a task's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from infer_cli.evaluation.scorers.choice_scorer import Choice
from infer_cli.evaluation.scorers.form_scorers import Ended, Length, NotEmpty
from infer_cli.evaluation.scorers.function_scorer import FunctionScorer
from infer_cli.evaluation.scorers.json_scorers import JsonFields, JsonSchema
from infer_cli.evaluation.scorers.judge import Judge
from infer_cli.evaluation.scorers.number_scorer import Number
from infer_cli.evaluation.scorers.options import ScorerOptions, close_name
from infer_cli.evaluation.scorers.scorer import Scorer
from infer_cli.evaluation.scorers.text_scorers import Contains, Exact, Normalized, TokenF1
from infer_cli.evaluation.tasks.task import Task


class ScorerKind(NamedTuple):
    """`make` raises UsageError for options that can't be used. `is_code`: made with `--allow-code` only."""

    make: Callable[[ScorerOptions], Scorer]
    is_code: bool = False


def _regex(options: ScorerOptions) -> Scorer:
    from infer_cli.evaluation.scorers.regex_scorer import Matches

    return Matches(options)


def _code(options: ScorerOptions) -> Scorer:
    from infer_cli.evaluation.scorers.code_execution import CodeExecution

    return CodeExecution(options)


# A new kind of scorer is one line here.
SCORER_KINDS: dict[str, ScorerKind] = {
    "exact": ScorerKind(Exact),
    "normalized": ScorerKind(Normalized),
    "contains": ScorerKind(Contains),
    "regex": ScorerKind(_regex),
    "f1": ScorerKind(TokenF1),
    "number": ScorerKind(Number),
    "choice": ScorerKind(Choice),
    "json_field": ScorerKind(JsonFields),
    "json_schema": ScorerKind(JsonSchema),
    "length": ScorerKind(Length),
    "not_empty": ScorerKind(NotEmpty),
    "ended": ScorerKind(Ended),
    "judge": ScorerKind(Judge),
    "function": ScorerKind(FunctionScorer, is_code=True),
    "code": ScorerKind(_code, is_code=True),
}


def make_scorers(task: Task, *, allow_code: bool) -> list[Scorer]:
    """The task's scorers, in its order. Raises UsageError that names file, table and key."""
    return [_made(ScorerOptions(task, n), allow_code) for n in range(1, len(task.scorers) + 1)]


def _made(options: ScorerOptions, allow_code: bool) -> Scorer:
    name = options.spec.kind
    kind = SCORER_KINDS.get(name)
    if kind is None:
        raise options.wrong("kind", f"is {name!r}, which is no scorer", close_name(name, SCORER_KINDS))
    if kind.is_code and not allow_code:
        raise options.wrong(
            "kind", f"is {name}, which runs code", "allow it with --allow-code, if you trust it"
        )
    scorer = kind.make(options)
    options.end()
    return scorer
