"""Runs of `infer eval` as runs that can be compared. Scores are kept, texts are read where they are shown."""

from __future__ import annotations

import json
import math
import statistics
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.comparable import (
    Asked,
    ComparableRun,
    Content,
    MetricScores,
    content_of,
)
from infer_cli.evaluation.comparing.likeness import likeness_of
from infer_cli.evaluation.formats.scored_items import scored_items
from infer_cli.evaluation.runs.item_amounts import RATIOS, measure_of
from infer_cli.evaluation.runs.reading import Run, read_run, run_folders, sample_of
from infer_cli.evaluation.runs.results import MetricResult
from infer_cli.evaluation.runs.sample import Sample
from infer_cli.system.files import MOST_INPUT, bounded_lines, open_regular

_SHOWN = 8  # digits of a hash


def find_runs(path: Path) -> list[Path]:
    """Folders of runs at or below a path. Raises UsageError where there is none."""
    if not path.is_dir():
        what = f"{path} is not a folder" if path.exists() else f"no folder {path}"
        raise UsageError(what, "name a folder that `infer eval -o` made")
    found = run_folders(path)
    if not found:
        raise UsageError(f"{path} has no run of `infer eval`", "name a run's folder, or one of such folders")
    return found


def read_comparable_run(path: Path) -> ComparableRun:
    """Raises UsageError for a run that has not ended, or files that are none of ours."""
    run = read_run(path)
    samples = _Samples(run)
    samples.read()
    return ComparableRun(
        name=str(path),
        task=run.facts.task.name,
        model=run.results.model.name,
        ids=samples.ids,
        contents=samples.contents,
        clusters=samples.clusters,
        metrics=samples.metrics(),
        made_by=_made_by(run),
        asked=samples.asked,
        likenesses=lambda: [likeness_of(each.item.doc, each.prompt) for each in scored_items(run)],
    )


def _made_by(run: Run) -> dict[str, str]:
    results, engine = run.results, run.results.engine
    return {
        "program": "infer",
        "promise": results.promise,
        "mode": results.mode,
        "task version": run.facts.task.version,
        "task file": (results.hashes.get("task") or run.facts.task.sha256)[:_SHOWN],
        "infer": str(engine.get("infer")),
        "llama.cpp": str(engine.get("llama_cpp")),
        "engine": str(engine.get("fingerprint")).removeprefix("sha256:")[:_SHOWN],
    }


class _Samples:
    """`samples.jsonl`: of each item its scores, and where its first line begins."""

    def __init__(self, run: Run) -> None:
        self._folder, self._excludes = run.folder, run.facts.scoring.exclude_errors
        self._columns = [_Column(metric) for metric in run.results.scores]
        self._offsets = array("q")
        self._clusters: list[str] = []
        self._is_clustered = False
        self.ids: list[str] = []
        self.contents: list[Content] = []

    @property
    def clusters(self) -> Sequence[str] | None:
        return self._clusters if self._is_clustered else None

    def metrics(self) -> tuple[MetricScores, ...]:
        return tuple(column.scores() for column in self._columns)

    def read(self) -> None:
        """Raises UsageError."""
        path, documents = self._folder.samples, dict(_documents(self._folder.items))
        found: list[Sample] = []
        for number, (offset, value) in enumerate(_objects(path), 1):
            try:
                sample = sample_of(value)
            except ValueError as e:
                raise _damaged(path, number, f"it is no sample: {e}") from None
            if found and found[0].item != sample.item:
                self._add(found)
                found = []
            if not found:
                document = documents.pop(sample.item, None)
                if document is None:
                    raise _damaged(path, number, f"item {sample.item} is not in items.jsonl, or twice here")
                self.contents.append(content_of(document, sample.prompt))
                self._offsets.append(offset)
            found.append(sample)
        if not found or documents:
            lacking = f"item {next(iter(documents))} has no sample" if documents else "there is no sample"
            raise UsageError(f"{path}: {lacking}", "`infer rescore` writes the file again")
        self._add(found)

    def _add(self, samples: Sequence[Sample]) -> None:
        """Take all samples of one item."""
        first = samples[0]
        self.ids.append(first.item)
        self._is_clustered = self._is_clustered or first.cluster is not None
        # An item without a cluster is one by itself.
        self._clusters.append(f"\0{first.item}" if first.cluster is None else first.cluster)
        by_seed: dict[int | None, list[Sample]] = {}
        for sample in samples:
            counted = by_seed.setdefault(sample.seed, [])
            if sample.outcome == "ok" or not self._excludes:
                counted.append(sample)
        for column in self._columns:
            column.add(list(by_seed.values()))

    def asked(self, place: int) -> Asked:
        with open_regular(self._folder.samples) as file:
            file.seek(self._offsets[place])
            sample = sample_of(json.loads(file.readline(MOST_INPUT)))
        return Asked(_as_text(sample.prompt), sample.answer)


class _Column:
    """A metric, item by item."""

    def __init__(self, metric: MetricResult) -> None:
        self._metric = metric
        self._is_ratio = metric.metric in RATIOS
        self._measure = measure_of(metric.metric)
        self._scores, self._sizes = array("d"), array("d")
        self._n_unknown = 0

    def add(self, seeds: Sequence[Sequence[Sample]]) -> None:
        """The samples of an item that count, of each seed: its score is the mean over seeds."""
        score, size = math.nan, 1.0  # an item that is left out
        if self._measure is not None and all(seeds):
            found = [self._measure(samples) for samples in seeds]
            known = [amount for amount in found if amount is not None]
            if len(known) < len(found):
                self._n_unknown += 1
            else:
                score, size = known[0]
                if len(known) > 1:
                    score = statistics.fmean(amount.score for amount in known)
        self._scores.append(score)
        self._sizes.append(size)

    def scores(self) -> MetricScores:
        return MetricScores(
            self._metric.metric,
            self._metric.higher_is_better,
            np.frombuffer(self._scores, np.float64),
            np.frombuffer(self._sizes, np.float64) if self._is_ratio else None,
            self._missing(),
        )

    def _missing(self) -> str | None:
        if self._measure is None:
            return "it is not a mean over items; bits_per_byte tells the same"
        return f"{self._n_unknown} of its items have no value" if self._n_unknown else None


def _documents(path: Path) -> Iterator[tuple[str, str]]:
    """Of each item the hash of its row."""
    for number, (_, value) in enumerate(_objects(path), 1):
        item, document = value.get("id"), value.get("sha256")
        if not isinstance(item, str) or not isinstance(document, str):
            raise _damaged(path, number, "it is no item")
        yield item, document


def _objects(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Each line's offset and object. Raises UsageError."""
    try:
        with open_regular(path) as file:
            offset = 0
            for number, line in enumerate(bounded_lines(file, path), 1):
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    value = None
                if not isinstance(value, dict):
                    raise _damaged(path, number, "it is no JSON object")
                yield offset, value
                offset += len(line)
    except OSError as e:
        raise UsageError(
            f"{path} can't be read: {e.strerror}", "`infer rescore` writes what is missing"
        ) from None


def _damaged(path: Path, number: int, why: str) -> UsageError:
    return UsageError(f"{path}, line {number}: {why}", "`infer rescore` writes samples and results again")


def _as_text(prompt: object) -> str:
    """A text as it is; of messages what the user said last."""
    if isinstance(prompt, list):
        said = [message for message in prompt if isinstance(message, dict)]
        last = [message for message in said if message.get("role") == "user"] or said
        return str(last[-1].get("content")) if last else ""
    return str(prompt)
