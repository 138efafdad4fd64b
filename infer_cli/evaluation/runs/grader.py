"""Grades the answers to a task's items: by its scorers, or by the likelihoods of what it names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from infer_cli.evaluation.runs.reply_values import (
    NOT_ANSWERED,
    Line,
    count_in,
    likelihood_error,
    logprob_of,
    usage_of,
)
from infer_cli.evaluation.runs.sample import Outcome, Sample, ScoredChoice
from infer_cli.evaluation.scorers.extraction import Extractor
from infer_cli.evaluation.scorers.scorer import Answer, Score, Scorer, ScorerFailed
from infer_cli.evaluation.strict_numbers import number_of
from infer_cli.evaluation.tasks.item import Item, Metric
from infer_cli.evaluation.tasks.task import Task, TaskCodeFailed

_CUT = ("length", "context")  # by the limit of tokens, and by the window
_CHOICE_METRICS = tuple(Metric(name, name, is_proportion=True) for name in ("acc", "acc_norm", "acc_token"))
_LIKELIHOOD_METRICS = (
    Metric("logprob", "logprob", worst=None),
    Metric("greedy", "greedy", is_proportion=True),
)


def _bits(name: str, size: str, *, is_exponential: bool) -> Metric:
    return Metric(
        name,
        "bits",
        "ratio",
        higher_is_better=False,
        worst=None,
        size=size,
        is_exponential=is_exponential,
    )


_PERPLEXITY_METRICS = (
    _bits("bits_per_byte", "bytes", is_exponential=False),
    _bits("byte_perplexity", "bytes", is_exponential=True),
    _bits("word_perplexity", "words", is_exponential=True),
    _bits("token_perplexity", "tokens", is_exponential=True),
)


class TaskGrader:
    """Of a task of ours. `scorers` are those of its replies; `n_samples` replies are made to each row.

    Kinds of likelihoods need no scorer: see docs/metrics.md.
    """

    def __init__(self, task: Task, scorers: Sequence[Scorer], n_samples: int = 1) -> None:
        self._scorers, self._cut_is_wrong = tuple(scorers), task.generation.cut_is_wrong
        self._worst = {scorer.name: scorer.worst for scorer in scorers}
        self._extractor, self._extract = Extractor(task.extractions, task.path), task.functions.extract
        of_scorers = tuple(metric for scorer in scorers for metric in _metrics_of(scorer, n_samples))
        self._measured = _MEASURED.get(task.kind)
        self._metrics = of_scorers if self._measured is None else self._measured.metrics

    @property
    def metrics(self) -> Sequence[Metric]:
        return self._metrics

    @property
    def code_scorers(self) -> Sequence[str]:
        own = [] if self._extract is None else ["extract"]
        return own + [scorer.name for scorer in self._scorers if scorer.is_code]

    def grade(self, item: Item, lines: Sequence[Sequence[Line]]) -> list[Sample]:
        if self._measured is not None:
            return [_likelihood_sample(item, lines, self._measured)]
        return [
            self._reply_sample(item, row, line)
            for row, answers in zip(item.rows, lines, strict=True)
            for line in (answers or (None,))
        ]

    def _reply_sample(self, item: Item, row: Line, line: Line | None) -> Sample:
        line = {} if line is None else line
        seed, reason, error, text = (row.get("seed"), *map(line.get, ("finish_reason", "error", "text")))
        answer = text if isinstance(text, str) and error is None else None
        if answer is None:
            found = _Graded("error", None, self._worst, {})
        else:
            found = self._graded(item, answer, reason if isinstance(reason, str) else None)
        return Sample(
            item=item.id,
            index=item.index,
            sample=count_in(line, "sample"),
            seed=seed if isinstance(seed, int) else None,
            group=item.group,
            cluster=item.cluster,
            prompt=_prompt(row),
            answer=answer,
            extracted=found.extracted,
            references=item.references,
            outcome=found.outcome,
            scores=found.scores,
            explanations=found.explanations,
            finish_reason=reason if isinstance(reason, str) else None,
            error=None if answer is not None else error if isinstance(error, dict) else NOT_ANSWERED,
            n_prompt_tokens=usage_of(line, "prompt_tokens"),
            n_tokens=usage_of(line, "completion_tokens"),
            digests=(str(line["digest"]),) if "digest" in line else (),
        )

    def _graded(self, item: Item, text: str, reason: str | None) -> _Graded:
        try:
            extracted = self._find(text, item)
        except TaskCodeFailed as e:
            return _Graded("scorer_failed", None, self._worst, {"extract": e.message})
        if reason in _CUT and self._cut_is_wrong:
            return _Graded("cut", extracted, self._worst, {})
        if extracted is None:
            return _Graded("not_extracted", None, self._worst, {})
        return self._scored(Answer(text, extracted, item.references, item.doc, reason))

    def _find(self, text: str, item: Item) -> str | None:
        return self._extractor.find(text) if self._extract is None else self._extract(text, item.doc)

    def _scored(self, answer: Answer) -> _Graded:
        scores: dict[str, float] = {}
        explanations: dict[str, str] = {}
        failed = False
        for scorer in self._scorers:
            try:
                value, explanation = _checked(scorer, scorer.score(answer))
            except ScorerFailed as e:
                explanations[scorer.name], failed = str(e), True
                continue
            scores[scorer.name] = value
            if explanation:
                explanations[scorer.name] = explanation
        if failed:
            return _Graded("scorer_failed", answer.extracted, self._worst, explanations)
        return _Graded("ok", answer.extracted, scores, explanations)


class _Graded(NamedTuple):
    """What came of a reply's text."""

    outcome: Outcome
    extracted: str | None
    scores: Mapping[str, float]
    explanations: Mapping[str, str]


def _checked(scorer: Scorer, score: Score) -> Score:
    """Raises ScorerFailed for a score that no mean can be taken with."""
    if number_of(float(score.value)) is None:
        raise ScorerFailed(f"its score is {score.value}")
    if scorer.is_proportion and score.value not in (0, 1):
        raise ScorerFailed(f"its score is {score.value}, neither 0 nor 1")
    return score


@dataclass(frozen=True)
class _Likelihoods:
    """What was found of an item: its pairs as choices, and what they come to."""

    answer: str | None
    scores: Mapping[str, float]
    sizes: Mapping[str, float]


class _Measured(NamedTuple):
    """How a kind of likelihoods is graded."""

    measure: Callable[[Item, Sequence[ScoredChoice]], _Likelihoods]
    metrics: Sequence[Metric]


def _metrics_of(scorer: Scorer, n_samples: int) -> list[Metric]:
    mean = Metric(
        scorer.name,
        scorer.name,
        is_proportion=scorer.is_proportion,
        higher_is_better=scorer.higher_is_better,
        worst=scorer.worst,
    )
    if n_samples == 1:
        return [mean]
    found = [mean]
    if scorer.is_proportion:
        found += [
            replace(mean, name=f"{scorer.name} pass@{k}", aggregation="pass@k", k=k, is_proportion=False)
            for k in (1, n_samples)
        ]
    return [*found, replace(mean, name=f"{scorer.name} majority", aggregation="majority")]


def _likelihood_sample(
    item: Item,
    lines: Sequence[Sequence[Line]],
    measured: _Measured,
) -> Sample:
    answers = [row[0] if row else None for row in lines]
    error = next((wrong for line in answers if (wrong := likelihood_error(line)) is not None), None)
    scored = [_choice(item, i, line) for i, line in enumerate(answers)]
    found = None if error is not None else measured.measure(item, scored)
    worst = {metric.score: metric.worst for metric in measured.metrics if metric.worst is not None}
    there = [line for line in answers if line is not None]
    return Sample(
        item=item.id,
        index=item.index,
        sample=0,
        seed=None,
        group=item.group,
        cluster=item.cluster,
        prompt=_prompt(item.rows[0]),
        answer=None if found is None else found.answer,
        extracted=None if found is None else found.answer,
        references=item.references,
        outcome="error" if found is None else "ok",
        scores=worst if found is None else found.scores,
        sizes={} if found is None else found.sizes,
        choices=tuple(scored),
        gold=item.gold,
        error=error,
        n_prompt_tokens=sum(usage_of(line, "prompt_tokens") for line in there),
        n_tokens=sum(choice.n_tokens for choice in scored),
        digests=tuple(str(line.get("digest")) for line in there),
    )


def _choose(item: Item, choices: Sequence[ScoredChoice]) -> _Likelihoods:
    """Of choices with equal likelihoods the first is taken."""
    logprobs = [-math.inf if choice.logprob is None else choice.logprob for choice in choices]
    n_bytes = [len(choice.text.encode()) for choice in choices]
    by = {
        "acc": logprobs,
        "acc_norm": [value / max(n, 1) for value, n in zip(logprobs, n_bytes, strict=True)],
        "acc_token": [
            value / max(choice.n_tokens, 1) for value, choice in zip(logprobs, choices, strict=True)
        ],
    }
    chosen = {name: values.index(max(values)) for name, values in by.items()}
    gold = 0 if item.gold is None else item.gold
    return _Likelihoods(
        choices[chosen["acc"]].text, {name: float(i == gold) for name, i in chosen.items()}, {}
    )


def _choose_of_pair(item: Item, choices: Sequence[ScoredChoice]) -> _Likelihoods:
    found = _choose(item, choices)
    return replace(found, scores={"acc": found.scores["acc"]})


def _likelihood(item: Item, choices: Sequence[ScoredChoice]) -> _Likelihoods:
    (one,) = choices
    # What can't come has no logarithm in JSON, and no mean could be taken with it.
    logprob = {} if one.logprob is None else {"logprob": one.logprob}
    return _Likelihoods(one.text, {**logprob, "greedy": float(bool(one.greedy))}, {})


def _perplexity(item: Item, pieces: Sequence[ScoredChoice]) -> _Likelihoods:
    text = "".join(piece.text for piece in pieces)
    sizes = {
        "bytes": float(len(text.encode())),
        "words": float(len(text.split())),
        "tokens": float(sum(piece.n_tokens for piece in pieces)),
    }
    logprobs = [piece.logprob for piece in pieces if piece.logprob is not None]
    if len(logprobs) < len(pieces):
        return _Likelihoods(None, {}, sizes)
    return _Likelihoods(None, {"bits": -math.fsum(logprobs) / math.log(2)}, sizes)


_MEASURED: Mapping[str, _Measured] = {
    "choice": _Measured(_choose, _CHOICE_METRICS),
    "minimal_pairs": _Measured(_choose_of_pair, _CHOICE_METRICS[:1]),
    "likelihood": _Measured(_likelihood, _LIKELIHOOD_METRICS),
    "perplexity": _Measured(_perplexity, _PERPLEXITY_METRICS),
}


def _choice(item: Item, i: int, line: Line | None) -> ScoredChoice:
    text = item.choices[i] if item.choices else str(item.rows[i].get("continuation"))
    if line is None:
        return ScoredChoice(text, None, 0, len(text.encode()), None)
    greedy = line.get("greedy")
    return ScoredChoice(
        text,
        logprob_of(line),
        count_in(line, "n_tokens"),
        count_in(line, "n_bytes"),
        greedy if isinstance(greedy, bool) else None,
    )


def _prompt(row: Line) -> object:
    for name in ("messages", "prompt", "context"):
        if row.get(name) is not None:
            return row[name]
    return ""
