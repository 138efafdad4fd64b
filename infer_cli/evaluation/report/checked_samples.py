"""A run's samples, each value of the kind that it should be: the file may be anyone's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import get_args

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.reading import Run
from infer_cli.evaluation.runs.sample import Outcome, Sample, ScoredChoice

_OUTCOMES = get_args(Outcome)


def checked_samples(run: Run) -> Iterator[Sample]:
    """In their order. Raises UsageError naming the line, and what of it is wrong."""
    for n, sample in enumerate(run.samples(), 1):
        if wrong := next(_wrong(sample), None):
            raise UsageError(
                f"{run.folder.samples}: line {n}: {wrong} is no such value",
                "`infer rescore` writes the file again",
            )
        yield sample


def _wrong(sample: Sample) -> Iterator[str]:
    """Names of what is not of its kind."""
    for name in ("group", "answer", "extracted"):
        if not isinstance(getattr(sample, name), (str, type(None))):
            yield name
    for name in ("index", "sample", "n_prompt_tokens", "n_tokens"):
        if not _is_count(getattr(sample, name)):
            yield name
    if sample.outcome not in _OUTCOMES:
        yield "outcome"
    if not isinstance(sample.prompt, (str, list)):
        yield "prompt"
    if not all(isinstance(text, str) for text in sample.references):
        yield "references"
    if not isinstance(sample.seed, (int, type(None))):
        yield "seed"
    if not all(map(math.isfinite, sample.scores.values())):
        yield "scores"
    if not isinstance(sample.explanations, dict) or not all(
        isinstance(text, str) for text in sample.explanations.values()
    ):
        yield "explanations"
    if not isinstance(sample.error, (Mapping, type(None))):
        yield "error"
    if not all(map(_is_choice, sample.choices)):
        yield "choices"
    if sample.gold is not None and not _is_count(sample.gold):
        yield "gold"


def _is_choice(choice: ScoredChoice) -> bool:
    logprob = choice.logprob
    is_likelihood = logprob is None or (isinstance(logprob, (int, float)) and math.isfinite(logprob))
    return isinstance(choice.text, str) and is_likelihood


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 0
