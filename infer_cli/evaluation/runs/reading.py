"""A run that is there, to be read: by `infer compare`, `infer verify` and reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import get_args

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.facts import RunFacts, read_facts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.results import Results, read_results
from infer_cli.evaluation.runs.sample import Outcome, Sample, ScoredChoice
from infer_cli.evaluation.strict_numbers import count_of, number_of
from infer_cli.system.files import bounded_lines, open_regular

_SAMPLE_KEYS = frozenset(of.name for of in fields(Sample))
_CHOICE_KEYS = frozenset(ScoredChoice._fields)
_OUTCOMES = get_args(Outcome)
_TEXTS_OR_NONE = ("group", "cluster", "answer", "extracted", "finish_reason")
_COUNTS = ("index", "sample", "n_prompt_tokens", "n_tokens")
_IsOfKind = Callable[[object], bool]


@dataclass(frozen=True)
class Run:
    """A run that has ended. `samples` reads them again and again, one at a time."""

    folder: RunFolder
    facts: RunFacts
    results: Results

    def samples(self) -> Iterator[Sample]:
        """In the order of the items. Raises UsageError naming the line that is wrong."""
        yield from read_samples(self.folder.samples)

    def items(self) -> Iterator[list[Sample]]:
        """The samples of each item together."""
        found: list[Sample] = []
        for sample in self.samples():
            if found and found[0].index != sample.index:
                yield found
                found = []
            found.append(sample)
        if found:
            yield found


def read_run(path: Path) -> Run:
    """Raises UsageError for a folder that is no run, or one that has no results yet."""
    folder = RunFolder(path)
    facts = read_facts(folder.facts)
    return Run(folder, facts, read_results(folder.results))


def run_folders(path: Path) -> list[Path]:
    """The folder itself where it is a run, or the runs below it, by name."""
    if RunFolder(path).facts.exists():
        return [path]
    return sorted(facts.parent for depth in ("*", "*/*") for facts in path.glob(f"{depth}/run.json"))


def read_samples(path: Path) -> Iterator[Sample]:
    """Raises UsageError naming the line that is none of a sample, OSError."""
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise UsageError(f"{path.parent} has no {path.name}", "`infer rescore` writes it") from None
    with file:
        for n, line in enumerate(bounded_lines(file, path), 1):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            try:
                yield sample_of(value)
            except ValueError as e:
                raise UsageError(
                    f"{path}: line {n} is no sample: {e}", "`infer rescore` writes the file again"
                ) from None


def sample_of(value: object) -> Sample:
    """The sample of a line, each value of the kind that it should be. Raises ValueError naming one that is
    not."""
    if not isinstance(value, dict) or value.keys() != _SAMPLE_KEYS:
        raise ValueError("it has other keys")
    if (wrong := next(_wrong(value), None)) is not None:
        raise ValueError(f"its {wrong}")
    value["scores"] = {name: float(score) for name, score in value["scores"].items()}
    value["references"] = tuple(value["references"])
    value["choices"] = tuple(ScoredChoice(**choice) for choice in value["choices"])
    return Sample(**value)


def _wrong(value: Mapping[str, object]) -> Iterator[str]:
    """Names of what is not of its kind."""
    if not isinstance(value["item"], str):
        yield "item"
    for name in _TEXTS_OR_NONE:
        if not isinstance(value[name], (str, NoneType)):
            yield name
    for name in _COUNTS:
        if count_of(value[name]) is None:
            yield name
    if not isinstance(value["seed"], (int, NoneType)):
        yield "seed"
    if not isinstance(value["prompt"], (str, list)):
        yield "prompt"
    if value["outcome"] not in _OUTCOMES:
        yield "outcome"
    for name in ("references", "digests"):
        if not _are_all(value[name], list, _is_text):
            yield name
    for name, is_such in (("scores", _is_number), ("sizes", _is_size)):
        if not _are_all(value[name], dict, is_such):
            yield name
    if not _are_all(value["explanations"], dict, _is_text):
        yield "explanations"
    if not _are_all(value["choices"], list, _is_choice):
        yield "choices"
    if value["gold"] is not None and count_of(value["gold"]) is None:
        yield "gold"
    if not isinstance(value["error"], (dict, NoneType)):
        yield "error"


def _are_all(value: object, kind: type[list[object]] | type[dict[str, object]], of: _IsOfKind) -> bool:
    """Whether it is a list of such, or an object whose values are such."""
    return isinstance(value, kind) and all(map(of, value.values() if isinstance(value, dict) else value))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return number_of(value) is not None


def _is_size(value: object) -> bool:
    """Of a text: a whole number of bytes, words or tokens, written as a float."""
    number = number_of(value)
    return number is not None and number >= 0 and number.is_integer()


def _is_choice(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == _CHOICE_KEYS
        and isinstance(value["text"], str)
        and (value["logprob"] is None or number_of(value["logprob"]) is not None)
        and count_of(value["n_tokens"]) is not None
        and count_of(value["n_bytes"]) is not None
        and isinstance(value["greedy"], (bool, NoneType))
    )
