"""The parts of a run, which were made with `--shard`, put together as one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from infer_cli.batch import merging
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.facts import read_facts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.system.files import open_regular, write_atomic

_PIECE = 1 << 20  # bytes


class MergedRun(NamedTuple):
    """`merge` has what was found of the replies."""

    folder: RunFolder
    merge: merging.Merge


def merge_runs(parts: Sequence[Path], output: Path) -> MergedRun:
    """Write a run of the replies of all parts; it is not scored yet.

    Raises UsageError for folders that are not parts of one run, naming what differs, and for replies that are
    there twice; OSError.
    """
    folders = [RunFolder(part) for part in parts]
    facts = [read_facts(folder.facts) for folder in folders]
    for part, each in zip(parts[1:], facts[1:], strict=True):
        different = facts[0].differences(each)
        different += [
            f"{name} is another" for name, sha256 in each.files.items() if facts[0].files.get(name) != sha256
        ]
        if different:
            raise UsageError(f"{part} is not of one run with {parts[0]}: {'; '.join(different[:4])}")
        if different := facts[0].differences_of_asking(each):
            raise UsageError(
                f"{part} was not asked for as {parts[0]}: {'; '.join(different[:4])}",
                "run `infer eval` for a part again, with the other's flags: it keeps its answers",
            )
    merged = merging.merge([folder.replies for folder in folders])
    into, first = RunFolder(output), folders[0]
    output.mkdir()
    for path in (first.task, first.items, first.examples, first.requests):
        _copy(path, output / path.name)
    merged.write(into.replies)
    replace(facts[0], began_at=min(each.began_at for each in facts)).write(into.facts)
    return MergedRun(into, merged)


def _copy(path: Path, to: Path) -> None:
    with open_regular(path) as file:
        write_atomic(to, iter(lambda: file.read(_PIECE), b""), durable=True)
