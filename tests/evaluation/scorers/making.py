"""Shared by the tests of scorers: a scorer as a task's file asks for it, and what it says to an answer."""

from __future__ import annotations

from collections.abc import Mapping

from infer_cli.evaluation.scorers.extraction import Extractor
from infer_cli.evaluation.scorers.registry import make_scorers
from infer_cli.evaluation.scorers.scorer import Answer, Score, Scorer
from infer_cli.evaluation.tasks.task import Extraction, ScorerSpec, Task


def task_with(*specs: ScorerSpec) -> Task:
    return Task("t", "1", "generate", "t.toml", "", "", scorers=specs)


def scorer_of(kind: str, **options: object) -> Scorer:
    (scorer,) = make_scorers(task_with(ScorerSpec(kind, kind, options)), allow_code=False)
    return scorer


def score(
    kind: str,
    extracted: str,
    *references: str,
    text: str | None = None,
    doc: Mapping[str, object] | None = None,
    finish_reason: str | None = None,
    **options: object,
) -> Score:
    whole = extracted if text is None else text
    return scorer_of(kind, **options).score(Answer(whole, extracted, references, doc or {}, finish_reason))


def value(kind: str, extracted: str, *references: str, **options: object) -> float:
    return score(kind, extracted, *references, **options).value  # type: ignore[arg-type]


def find(text: str, **extraction: object) -> str | None:
    return Extractor([Extraction(**extraction)]).find(text)  # type: ignore[arg-type]
