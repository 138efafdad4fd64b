"""Samples that lm-evaluation-harness logged (`--log_samples`), as a run that can be compared."""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.comparable import Asked, ComparableRun, Content, MetricScores
from infer_cli.evaluation.comparing.foreign_json import MOST_BYTES, MOST_ITEMS, object_of, refused, score_of
from infer_cli.evaluation.comparing.foreign_scores import ForeignColumn
from infer_cli.evaluation.comparing.likeness import Likeness, likeness_of, said
from infer_cli.system.files import open_regular, read_regular

_NAME = re.compile(r"samples_(.+)_(\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")
_PERPLEXITIES = ("word_perplexity", "byte_perplexity")
_BITS = "bits_per_byte"
_LOWER_IS_BETTER = (_BITS, "perplexity", *_PERPLEXITIES)


def harness_files(folder: Path) -> list[Path]:
    """Files of samples in a folder that `--output_path` named, or in one of a model in it."""
    found = (path for pattern in ("samples_*.jsonl", "*/samples_*.jsonl") for path in folder.glob(pattern))
    return sorted(path for path in found if _NAME.fullmatch(path.name))


def read_harness_samples(path: Path) -> ComparableRun:
    """Raises UsageError for a file that is none of the harness's, naming the line."""
    match = _NAME.fullmatch(path.name)
    results = _results_beside(path, match[2]) if match else {}
    task = match[1] if match else path.stem
    samples = _Samples(path, _directions(results, task))
    samples.read()
    config = _object(results.get("config"))
    return ComparableRun(
        name=str(path),
        task=task,
        model=str(results.get("model_name") or path.parent.name),
        ids=samples.ids,
        contents=[Content(each.document or b"", each.prompt) for each in samples.likenesses],
        clusters=None,
        metrics=samples.metrics(),
        made_by={
            "program": f"lm_eval {results.get('lm_eval_version', 'of unknown version')}",
            **{name: str(config[name]) for name in ("mode", "promise") if name in config},
        },
        asked=samples.asked,
        is_foreign=True,
        likenesses=lambda: samples.likenesses,
    )


class _Samples:
    """The lines of a file: one for each document and filter."""

    def __init__(self, path: Path, higher_is_better: Mapping[str, bool]) -> None:
        self._path, self._higher_is_better = path, higher_is_better
        self._places: dict[str, int] = {}
        self._offsets = array("q")
        self._columns: dict[tuple[str, str], ForeignColumn] = {}
        self._n_lines: dict[str, int] = {}  # by filter
        self.likenesses: list[Likeness] = []

    @property
    def ids(self) -> list[str]:
        return list(self._places)

    def read(self) -> None:
        """Raises UsageError."""
        seen: set[tuple[int, str]] = set()
        for number, (offset, line) in enumerate(_lines(self._path), 1):
            value = object_of(line, self._path, f"line {number}")
            doc, names, filter_ = value.get("doc"), value.get("metrics"), value.get("filter", "none")
            doc_id = value.get("doc_id")
            if not isinstance(doc, dict) or not isinstance(names, list) or not isinstance(doc_id, (int, str)):
                raise refused(self._path, f"line {number} is no sample of lm-evaluation-harness")
            place = self._places.setdefault(str(doc_id)[:200], len(self._places))
            if (place, str(filter_)) in seen:
                raise refused(self._path, f"line {number}: document {doc_id} is there twice")
            seen.add((place, str(filter_)))
            if place == len(self._offsets):
                self._offsets.append(offset)
                self.likenesses.append(_likeness(doc, _prompt(value), self._path, number))
            for name in names:
                self._add(place, str(name), str(filter_), value.get(str(name)))
        if not self._places:
            raise refused(self._path, "it has no sample")

    def _add(self, place: int, name: str, filter_: str, value: object) -> None:
        column = self._columns.get((name, filter_))
        if column is None:
            better = self._higher_is_better.get(name, name not in _LOWER_IS_BETTER)
            column = self._columns[name, filter_] = ForeignColumn(name, higher_is_better=better)
        if name == _BITS and isinstance(value, list) and len(value) == 2:
            logprob, size = (score_of(each) for each in value)
            column.add(place, None if logprob is None or size is None else -logprob / math.log(2), size)
        else:
            column.add(place, score_of(value))

    def metrics(self) -> tuple[MetricScores, ...]:
        """Called by name, and by filter too where there are several."""
        several = len({filter_ for _, filter_ in self._columns}) > 1
        for (name, filter_), column in self._columns.items():
            column.name = f"{name},{filter_}" if several else name
        return tuple(
            column.scores(len(self._places), "it is not a mean over items" if name in _PERPLEXITIES else None)
            for (name, _), column in self._columns.items()
        )

    def asked(self, place: int) -> Asked:
        with open_regular(self._path) as file:
            file.seek(self._offsets[place])
            value = json.loads(file.readline(MOST_BYTES))
        return Asked(said(_prompt(value)), _answer(value))


def _likeness(doc: Mapping[str, object], prompt: str, path: Path, number: int) -> Likeness:
    try:
        return likeness_of(doc, prompt)
    except ValueError:  # a number that JSON has not, half a surrogate pair
        raise refused(path, f"line {number}: its document is no JSON") from None


def _prompt(value: Mapping[str, object]) -> str:
    """Of the first request: its first argument."""
    first = _object(_object(value.get("arguments")).get("gen_args_0")).get("arg_0", "")
    # Messages, where the harness has them as their JSON in a list.
    return str(first[0]) if isinstance(first, list) and first else str(first)


def _answer(value: Mapping[str, object]) -> str | None:
    """A reply, or the likeliest of several texts."""
    found = value.get("filtered_resps")
    if not isinstance(found, list) or not found:
        return None
    if len(found) == 1:
        return str(found[0][0]) if isinstance(found[0], list) and found[0] else str(found[0])
    try:
        logprobs = [float(each[0]) for each in found]
    except (TypeError, ValueError, IndexError):
        return None
    arguments = _object(value.get("arguments"))
    text = _object(arguments.get(f"gen_args_{logprobs.index(max(logprobs))}")).get("arg_1")
    return None if text is None else str(text).strip()  # it begins with what stands before it


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line with its offset. Raises UsageError."""
    try:
        with open_regular(path) as file:
            offset = n = 0
            while line := file.readline(MOST_BYTES + 1):
                n += 1
                if n > MOST_ITEMS:
                    raise refused(path, f"it has more than {MOST_ITEMS} lines")
                yield offset, line
                offset += len(line)
    except OSError as e:
        raise UsageError(f"{path} can't be read: {e.strerror}") from None


def _results_beside(path: Path, date: str) -> Mapping[str, object]:
    """What the harness wrote of the same run; nothing where it is not there."""
    beside = path.with_name(f"results_{date}.json")
    if not beside.exists():
        return {}
    try:
        return object_of(read_regular(beside, MOST_BYTES), beside, "it")
    except OSError as e:
        raise UsageError(f"{beside} can't be read: {e.strerror}") from None


def _directions(results: Mapping[str, object], task: str) -> dict[str, bool]:
    stated = _object(_object(results.get("higher_is_better")).get(task))
    return {name: value for name, value in stated.items() if isinstance(value, bool)}


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
