"""Which scorers there are, and a task's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from infer_cli.errors import UsageError
from infer_cli.evaluation.scorers.choice_scorer import Choice
from infer_cli.evaluation.scorers.form_scorers import Ended, Length, NotEmpty
from infer_cli.evaluation.scorers.json_scorers import JsonFields, JsonSchema
from infer_cli.evaluation.scorers.number_scorer import Number
from infer_cli.evaluation.scorers.options import ScorerOptions, close_name
from infer_cli.evaluation.scorers.scorer import Scorer
from infer_cli.evaluation.scorers.text_scorers import Contains, Exact, Matches, Normalized, TokenF1
from infer_cli.evaluation.tasks.task import Task


class ScorerKind(NamedTuple):
    """`make` raises UsageError for options that can't be used. `is_code`: made with `--allow-code` only."""

    make: Callable[[ScorerOptions], Scorer]
    is_code: bool = False


# A new kind of scorer is one line here.
SCORER_KINDS: dict[str, ScorerKind] = {
    "exact": ScorerKind(Exact),
    "normalized": ScorerKind(Normalized),
    "contains": ScorerKind(Contains),
    "regex": ScorerKind(Matches),
    "f1": ScorerKind(TokenF1),
    "number": ScorerKind(Number),
    "choice": ScorerKind(Choice),
    "json_field": ScorerKind(JsonFields),
    "json_schema": ScorerKind(JsonSchema),
    "length": ScorerKind(Length),
    "not_empty": ScorerKind(NotEmpty),
    "ended": ScorerKind(Ended),
}


def make_scorers(task: Task, *, allow_code: bool) -> list[Scorer]:
    """The task's scorers, in its order. Raises UsageError that names file, table and key."""
    scorers: list[Scorer] = []
    for n, spec in enumerate(task.scorers, start=1):
        place = f"{task.path}: [[scorer]] {n}"
        kind = SCORER_KINDS.get(spec.kind)
        if kind is None:
            raise UsageError(f"{place}: unknown scorer {spec.kind!r}", close_name(spec.kind, SCORER_KINDS))
        if kind.is_code and not allow_code:
            raise UsageError(
                f"{place}: the scorer {spec.kind!r} runs code", "allow it with --allow-code, if you trust it"
            )
        if any(spec.name == scorer.name for scorer in scorers):
            raise UsageError(f"{place}: name {spec.name!r} is another scorer's too", "give each one its own")
        options = ScorerOptions(place, spec)
        scorers.append(kind.make(options))
        options.end()
    return scorers
