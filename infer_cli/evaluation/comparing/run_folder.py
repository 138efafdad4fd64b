"""Runs of `infer eval` as runs that can be compared. Scores are kept, texts are read where they are shown."""

from __future__ import annotations

import json
import math
import re
import statistics
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.comparable import (
    Asked,
    ComparableRun,
    Content,
    MetricScores,
    content_of,
)
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.results import MetricResult, Results, read_results
from infer_cli.evaluation.statistics.aggregate import majority_vote, pass_at_k
from infer_cli.system.files import open_regular

_DEEPEST = 2  # folders between a run and what is named: OUT/MODEL/TASK
# A sum over a sum, by its metric: the names of the score and of the size.
_RATIOS = {"bits_per_byte": ("bits", "bytes")}
_PERPLEXITIES = ("byte_perplexity", "word_perplexity", "token_perplexity")
_PASS_AT = re.compile(r"(.+) pass@(\d+)")
_MAJORITY = re.compile(r"(.+) majority")

_Line = Mapping[str, object]
# What the samples of an item and seed come to: the amount, and what it is taken over. None: it can't be said.
_Value = Callable[[Sequence[_Line]], "tuple[float, float] | None"]


def find_runs(path: Path) -> list[Path]:
    """Folders of runs at or below a path. Raises UsageError where there is none."""
    if not path.is_dir():
        raise UsageError(
            f"{path} is not a folder" if path.exists() else f"no folder {path}",
            "name what `infer eval -o` made",
        )
    found = list(_runs_below(path, _DEEPEST))
    if not found:
        raise UsageError(f"{path} has no run of `infer eval`", "name a run's folder, or one of such folders")
    return found


def read_comparable_run(path: Path) -> ComparableRun:
    """Raises UsageError for a run that is not done, or files that are none of ours."""
    folder = RunFolder(path)
    results = read_results(folder.results)
    samples = _Samples(folder, results)
    samples.read()
    return ComparableRun(
        name=str(path),
        task=results.task_name,
        model=results.model.name,
        ids=samples.ids,
        contents=samples.contents,
        clusters=samples.clusters,
        metrics=samples.metrics(),
        made_by=_made_by(results),
        asked=samples.asked,
    )


def _runs_below(path: Path, deepest: int) -> Iterator[Path]:
    folder = RunFolder(path)
    if folder.facts.is_file() or folder.results.is_file():
        yield path
    elif deepest:
        for below in sorted(path.iterdir()):
            if below.is_dir():
                yield from _runs_below(below, deepest - 1)


def _made_by(results: Results) -> dict[str, str]:
    """What should be alike in two runs: what is not is told beside their comparison."""
    found = {"promise": results.promise, "mode": results.mode}
    found["version of the task"] = str(results.task.get("version", "unknown"))
    if sha256 := results.hashes.get("task"):
        found["task file"] = sha256[:8]
    for name in ("infer", "llama_cpp"):
        found[name] = str(results.engine.get(name))
    found["build"] = str(results.engine.get("fingerprint"))[:15]
    return found


class _Samples:
    """`samples.jsonl`: of each item its scores, and where its first line begins."""

    def __init__(self, folder: RunFolder, results: Results) -> None:
        self._folder, self._excludes = folder, results.exclude_errors
        self._columns = [_Column(metric) for metric in results.scores]
        self._offsets = array("q")
        self._names: list[str] = []
        self._is_clustered = False
        self.ids: list[str] = []
        self.contents: list[Content] = []

    @property
    def clusters(self) -> Sequence[str] | None:
        return self._names if self._is_clustered else None

    def metrics(self) -> tuple[MetricScores, ...]:
        return tuple(column.scores() for column in self._columns)

    def read(self) -> None:
        """Raises UsageError."""
        documents = dict(_documents(self._folder.items))
        last: str | None = None
        samples: list[_Line] = []
        for offset, number, line in _lines(self._folder.samples):
            item = line.get("item")
            if not isinstance(item, str) or not isinstance(line.get("scores"), dict):
                raise _damaged(self._folder.samples, number, "it is no sample")
            if item != last:
                self._add(samples)
                document = documents.pop(item, None)
                if document is None:
                    raise _damaged(
                        self._folder.samples, number, f"item {item} is not in items.jsonl, or twice"
                    )
                self.ids.append(item)
                self.contents.append(content_of(document, line.get("prompt")))
                self._offsets.append(offset)
                last, samples = item, []
            samples.append(line)
        self._add(samples)
        if documents or not self.ids:
            lacking = f"item {next(iter(documents))} has no sample" if documents else "there is no sample"
            raise UsageError(f"{self._folder.samples}: {lacking}", "`infer rescore` writes the file again")

    def _add(self, samples: Sequence[_Line]) -> None:
        """Take all samples of one item."""
        if not samples:
            return
        cluster = samples[0].get("cluster")
        self._is_clustered = self._is_clustered or isinstance(cluster, str)
        # An item without a cluster is one by itself.
        self._names.append(cluster if isinstance(cluster, str) else f"\0{self.ids[-1]}")
        runs: dict[object, list[_Line]] = {}
        for sample in samples:
            runs.setdefault(sample.get("seed"), []).append(sample)
        if self._excludes:
            runs = {
                seed: [sample for sample in run if sample.get("outcome") == "ok"]
                for seed, run in runs.items()
            }
        is_left_out = not all(runs.values())
        for column in self._columns:
            column.add(None if is_left_out else list(runs.values()))

    def asked(self, place: int) -> Asked:
        with open_regular(self._folder.samples) as file:
            file.seek(self._offsets[place])
            line = json.loads(file.readline())
        answer = line.get("answer")
        return Asked(_as_text(line.get("prompt")), answer if isinstance(answer, str) else None)


class _Amount(NamedTuple):
    """How a metric is taken from samples: `is_ratio` has a size of its own for each item."""

    of: _Value
    is_ratio: bool = False


class _Column:
    """A metric, item by item."""

    def __init__(self, metric: MetricResult) -> None:
        self._metric = metric
        self._amount = _amount(metric.metric)
        self._scores, self._sizes = array("d"), array("d")
        self._n_unknown = 0

    def add(self, runs: Sequence[Sequence[_Line]] | None) -> None:
        """The samples of an item, of each seed. None: it is left out."""
        score, size = math.nan, 1.0
        if runs is not None and self._amount is not None:
            found = [self._amount.of(run) for run in runs]
            known = [each for each in found if each is not None and math.isfinite(each[0])]
            if len(known) < len(found):
                self._n_unknown += 1
            else:
                score = statistics.fmean(each[0] for each in known) if len(known) > 1 else known[0][0]
                size = known[0][1]
        self._scores.append(score)
        self._sizes.append(size)

    def scores(self) -> MetricScores:
        missing = None
        if self._amount is None:
            missing = "it is not a mean over items" + (
                "; it says what bits_per_byte says" if self._metric.metric in _PERPLEXITIES else ""
            )
        elif self._n_unknown:
            missing = f"it has no value, since {self._n_unknown} of its items have none"
        is_ratio = self._amount is not None and self._amount.is_ratio
        return MetricScores(
            self._metric.metric,
            self._metric.higher_is_better,
            np.frombuffer(self._scores, np.float64),
            np.frombuffer(self._sizes, np.float64) if is_ratio else None,
            missing,
        )


def _amount(metric: str) -> _Amount | None:
    if metric in _PERPLEXITIES:
        return None
    if metric in _RATIOS:
        score, size = _RATIOS[metric]
        return _Amount(lambda samples: _ratio(samples, score, size), is_ratio=True)
    if match := _PASS_AT.fullmatch(metric):
        name, k = match[1], int(match[2])
        return _Amount(lambda samples: _pass_at(samples, name, k))
    if match := _MAJORITY.fullmatch(metric):
        name = match[1]
        return _Amount(lambda samples: _majority(samples, name))
    return _Amount(lambda samples: _mean(samples, metric))


def _mean(samples: Sequence[_Line], name: str) -> tuple[float, float] | None:
    values = _numbers(samples, "scores", name)
    return None if values is None else (statistics.fmean(values) if len(values) > 1 else values[0], 1.0)


def _ratio(samples: Sequence[_Line], score: str, size: str) -> tuple[float, float] | None:
    sums, sizes = _numbers(samples, "scores", score), _numbers(samples, "sizes", size)
    if sums is None or sizes is None or not math.fsum(sizes):
        return None
    return math.fsum(sums), math.fsum(sizes)


def _pass_at(samples: Sequence[_Line], name: str, k: int) -> tuple[float, float] | None:
    values = _numbers(samples, "scores", name)
    if values is None:
        return None
    return pass_at_k(len(values), sum(value == 1 for value in values), min(k, len(values))), 1.0


def _majority(samples: Sequence[_Line], name: str) -> tuple[float, float] | None:
    values = _numbers(samples, "scores", name)
    answers = [_answer(sample) for sample in samples]
    vote = majority_vote(answers)
    return None if values is None else (values[0 if vote is None else answers.index(vote)], 1.0)


def _answer(sample: _Line) -> str | None:
    found = sample.get("extracted")
    return found if isinstance(found, str) and sample.get("outcome") == "ok" else None


def _numbers(samples: Sequence[_Line], key: str, name: str) -> list[float] | None:
    """One of each sample; None where one has none."""
    found = []
    for sample in samples:
        values = sample.get(key)
        value = values.get(name) if isinstance(values, dict) else None
        if not isinstance(value, (int, float)):
            return None
        found.append(float(value))
    return found


def _documents(path: Path) -> Iterator[tuple[str, str]]:
    """Of each item the hash of its row."""
    for _, number, line in _lines(path):
        item, document = line.get("id"), line.get("sha256")
        if not isinstance(item, str) or not isinstance(document, str):
            raise _damaged(path, number, "it is no item")
        yield item, document


def _lines(path: Path) -> Iterator[tuple[int, int, _Line]]:
    """Each line's offset, number from 1, and object. Raises UsageError."""
    try:
        with open_regular(path) as file:
            offset = 0
            for number, line in enumerate(file, 1):
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as e:
                    raise _damaged(path, number, str(e)) from None
                if not isinstance(value, dict):
                    raise _damaged(path, number, "it is no object")
                yield offset, number, value
                offset += len(line)
    except OSError as e:
        raise UsageError(
            f"{path} can't be read: {e.strerror}", "let `infer eval` end, or `infer rescore` write it"
        ) from None


def _damaged(path: Path, number: int, why: str) -> UsageError:
    return UsageError(f"{path}, line {number}: {why}", "put back the file that the run wrote")


def _as_text(prompt: object) -> str:
    """A text as it is; of messages what the user said last."""
    if isinstance(prompt, list):
        said = [message for message in prompt if isinstance(message, dict)]
        last = [message for message in said if message.get("role") == "user"] or said
        return str(last[-1].get("content")) if last else ""
    return str(prompt)
