"""A run that is there, to be read: by `infer compare`, `infer verify` and reports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.facts import RunFacts, read_facts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.results import Results, read_results
from infer_cli.evaluation.runs.sample import Sample, ScoredChoice
from infer_cli.system.files import open_regular

_SAMPLE_KEYS = frozenset(of.name for of in fields(Sample))


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
        for n, line in enumerate(file, 1):
            try:
                yield sample_of(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise UsageError(
                    f"{path}: line {n} is no sample", "`infer rescore` writes the file again"
                ) from None


def sample_of(value: Mapping[str, object]) -> Sample:
    """The sample of a line. Raises ValueError, KeyError or TypeError for what is none."""
    if set(value) != _SAMPLE_KEYS:
        raise ValueError("other keys")
    scores, references, choices = value["scores"], value["references"], value["choices"]
    if not isinstance(scores, dict) or not isinstance(references, list) or not isinstance(choices, list):
        raise TypeError("scores, references or choices")
    if not isinstance(value["item"], str) or not isinstance(value["index"], int):
        raise TypeError("item")
    return Sample(
        **{
            **value,
            "scores": {str(name): float(score) for name, score in scores.items()},
            "references": tuple(references),
            "choices": tuple(ScoredChoice(**choice) for choice in choices),
        }  # type: ignore[arg-type]  # values of a file: those that are computed with are checked above
    )
