"""Grades answers by a task of the harness: its filters, its metrics of an item, its sums."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.registry import metric_registry

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.graders import FolderGrader
from infer_cli.evaluation.runs.grading import Corpus
from infer_cli.evaluation.runs.reply_values import Line, count_in, likelihood_error, logprob_of, usage_of
from infer_cli.evaluation.runs.sample import Outcome, Sample, ScoredChoice
from infer_cli.evaluation.scorers.scorer import ScorerFailed
from infer_cli.evaluation.strict_numbers import MOST_OF_RESULTS, number_of
from infer_cli.evaluation.tasks.item import Item, Metric
from infer_cli.integrations.lm_eval.code_in_tasks import code_of_config
from infer_cli.integrations.lm_eval.sandboxed_templates import use_sandbox
from infer_cli.integrations.lm_eval.task_copy import TaskCopy, read_copy, task_of
from infer_cli.system.hashing import sha256_hex

# The harness gives them 0 or 1 for an item.
_PROPORTIONS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")


def grader_of_copy(path: Path, *, allow_code: bool, by_rule_alone: bool) -> FolderGrader:
    """Of the copy in a run's folder. Raises UsageError for one that can't be used, and for code that is not
    allowed."""
    use_sandbox()
    copy = read_copy(path)
    place = copy.place or code_of_config(copy.values, metric_registry) or (copy.code and "its functions")
    if place and not allow_code:
        raise UsageError(f"the task in {path} is code: {place}", "read it; --allow-code runs it")
    task, is_same = task_of(copy)
    text = path.read_bytes() + (b"" if is_same else b"other code")
    grader = HarnessGrader(task, copy, by_rule_alone=by_rule_alone)
    return FolderGrader(grader, sha256_hex(text), corpus=grader.corpus)


class _Scored(NamedTuple):
    outcome: Outcome
    extracted: str | None
    scores: Mapping[str, float]
    explanations: Mapping[str, str]


class HarnessGrader:
    """`task` is one of the harness, without data. A metric is called as in the harness's results:
    `metric,filter`.

    A value that is no number (what F1 or a perplexity is made of) is among the explanations of its sample, as
    JSON. `by_rule_alone`: code is not run, and then there is no metric.
    """

    def __init__(self, task: Any, copy: TaskCopy, *, by_rule_alone: bool) -> None:
        self._task, self._output_type = task, str(task.OUTPUT_TYPE)
        self._code_scorers = tuple(copy.code)
        self._functions: dict[str, Corpus] = {}
        self._metrics: list[Metric] = []
        self._lock = Lock()  # a task holds what it is filtering
        if not (by_rule_alone and copy.place):
            self._metrics = [
                self._metric(each.name, name) for each in task._filters for name in task.aggregation()
            ]

    @property
    def metrics(self) -> Sequence[Metric]:
        return self._metrics

    @property
    def code_scorers(self) -> Sequence[str]:
        return self._code_scorers

    @property
    def corpus(self) -> Mapping[str, Corpus]:
        return self._functions

    def _metric(self, of_filter: str, name: str) -> Metric:
        full = f"{name},{of_filter}"
        function = self._task.aggregation()[name]
        is_mean = function is mean
        if not is_mean:
            self._functions[full] = _checked(full, function)
        higher = bool(self._task.higher_is_better()[name])
        return Metric(
            full,
            full,
            "mean" if is_mean else "corpus",
            is_proportion=is_mean and name in _PROPORTIONS and self._task.config.process_results is None,
            higher_is_better=higher,
            worst=0.0 if is_mean and higher else None,
        )

    def grade(self, item: Item, lines: Sequence[Sequence[Line]]) -> list[Sample]:
        answers = [row[0] if row else None for row in lines]
        error = next((found for line in answers if (found := likelihood_error(line)) is not None), None)
        worst = {metric.score: metric.worst for metric in self._metrics if metric.worst is not None}
        scored = (
            _Scored("error", None, worst, {}) if error is not None else self._scored(item, answers, worst)
        )
        there = [line for line in answers if line is not None]
        is_text = self._output_type == "generate_until"
        choices = () if is_text else tuple(_choice(item, i, line) for i, line in enumerate(answers))
        first = there[0] if there else {}
        reason, text = first.get("finish_reason"), first.get("text")
        row = item.rows[0]
        prompt = next((row[name] for name in ("messages", "prompt", "context") if name in row), "")
        seed = row.get("seed")
        return [
            Sample(
                item=item.id,
                index=item.index,
                sample=0,
                seed=seed if isinstance(seed, int) else None,
                group=item.group,
                cluster=item.cluster,
                prompt=prompt,
                answer=(text if isinstance(text, str) else None) if is_text else _likeliest(choices),
                extracted=scored.extracted if is_text else _likeliest(choices),
                references=item.references,
                outcome=scored.outcome,
                scores=scored.scores,
                explanations=scored.explanations,
                choices=choices,
                gold=item.gold,
                finish_reason=reason if isinstance(reason, str) else None,
                error=error,
                n_prompt_tokens=sum(usage_of(line, "prompt_tokens") for line in there),
                n_tokens=sum(
                    usage_of(line, "completion_tokens") if is_text else count_in(line, "n_tokens")
                    for line in there
                ),
                digests=tuple(str(line.get("digest")) for line in there),
            )
        ]

    def _scored(self, item: Item, answers: Sequence[Line | None], worst: Mapping[str, float]) -> _Scored:
        lines = [line for line in answers if line is not None]
        with self._lock:
            try:
                instances = self._instances(item, lines)
                self._task._instances = instances
                self._task.apply_filters()
                values = {
                    f"{name},{of_filter}": value
                    for of_filter in instances[0].filtered_resps
                    for name, value in self._task.process_results(
                        item.doc, [each.filtered_resps[of_filter] for each in instances]
                    ).items()
                }
            except Exception as e:  # a task's templates, filters and functions
                text = f"{type(e).__name__}: {' '.join(str(e).split())}"
                return _Scored("scorer_failed", None, worst, {"process_results": text[:500]})
        found = _values(values, self._metrics)
        if isinstance(found, str):
            return _Scored("scorer_failed", None, worst, {"process_results": found})
        filtered = next(iter(instances[0].filtered_resps.values()))
        return _Scored("ok", filtered if isinstance(filtered, str) else None, *found)

    def _instances(self, item: Item, lines: Sequence[Line]) -> list[Any]:
        """As the harness has them when its model has answered."""
        repeats = int(self._task.config.repeats or 1)
        name = self._task.task_name
        if self._output_type == "generate_until":
            texts = [line["text"] for line in lines]
            one = Instance("generate_until", item.doc, ("", {}), 0, (name, item.index, repeats))
            one.resps = texts if len(texts) > 1 else texts * repeats
            return [one]
        found = []
        for k, (row, line) in enumerate(zip(item.rows, lines, strict=True)):
            logprob = logprob_of(line)
            likelihood = -math.inf if logprob is None else logprob
            is_rolling = self._output_type == "loglikelihood_rolling"
            answer = likelihood if is_rolling else (likelihood, bool(line.get("greedy")))
            one = Instance(
                "loglikelihood",
                item.doc,
                (row["context"], row["continuation"]),
                k,
                (name, item.index, repeats),
            )
            one.resps = [answer] * repeats
            found.append(one)
        return found


def _checked(name: str, function: Callable[..., Any]) -> Corpus:
    """A task's sum as one that is finite. It raises ScorerFailed."""

    def of(values: Sequence[object]) -> float:
        try:
            found = float(function(list(values)))
        except Exception as e:  # whatever a task's function raises
            text = " ".join(str(e).split())
            raise ScorerFailed(f"{name} can't be computed: {type(e).__name__}: {text[:200]}") from None
        if number_of(found, MOST_OF_RESULTS) is None:
            raise ScorerFailed(f"{name} is {found}")
        return found

    return of


def _values(
    values: Mapping[str, object], metrics: Sequence[Metric]
) -> tuple[dict[str, float], dict[str, str]] | str:
    """Scores and explanations, or what is wrong with them."""
    scores: dict[str, float] = {}
    explanations: dict[str, str] = {}
    for metric in metrics:
        if metric.score not in values:
            return f"the task gives no {metric.name}"
    for name, value in values.items():
        plain = _plain(value)
        if isinstance(plain, (int, float)):
            number = number_of(plain)
            if number is None:
                return f"{name} is {plain!r:.40}"
            scores[name] = number
        else:
            try:
                explanations[name] = json.dumps(plain, allow_nan=False)
            except (TypeError, ValueError) as e:
                return f"{name} can't be kept as JSON: {e}"
    for metric in metrics:
        if metric.aggregation == "mean" and metric.score not in scores:
            return f"{metric.name} is no number"
        if metric.is_proportion and scores[metric.score] not in (0, 1):
            return f"{metric.name} is {scores[metric.score]}, neither 0 nor 1"
    return scores, explanations


def _plain(value: object) -> object:
    """Without the types of numpy."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, numbers.Real):
        return float(value) if not isinstance(value, int) else value
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _choice(item: Item, i: int, line: Line | None) -> ScoredChoice:
    text = str(item.rows[i].get("continuation"))
    line = {} if line is None else line
    greedy = line.get("greedy")
    return ScoredChoice(
        text,
        logprob_of(line),
        count_in(line, "n_tokens"),
        len(text.encode()),
        greedy if isinstance(greedy, bool) else None,
    )


def _likeliest(choices: Sequence[ScoredChoice]) -> str | None:
    """Of several. The first of those that are equal."""
    known = [(choice.logprob, choice.text) for choice in choices if choice.logprob is not None]
    if len(choices) < 2 or len(known) < len(choices):
        return None
    return max(known, key=lambda pair: pair[0])[1]
