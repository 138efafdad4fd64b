"""Writes a run as files of other programs, beside its own: lm-evaluation-harness's results and samples, and a
log of inspect. Neither program is needed. The bytes are a function of the folder's other files."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple

from infer_cli.answering.reply import json_line
from infer_cli.evaluation.formats.eval_archive import EvalArchive
from infer_cli.evaluation.formats.harness_results import (
    generation_of,
    harness_date,
    harness_results,
    written_from,
)
from infer_cli.evaluation.formats.harness_samples import HarnessSamples
from infer_cli.evaluation.formats.inspect_header import Counts, header_json, identity_of, start_json
from infer_cli.evaluation.formats.inspect_samples import InspectSamples, reduction
from infer_cli.evaluation.formats.scored_items import ScoredItem, scored_items
from infer_cli.evaluation.runs.beginning import file_sha256
from infer_cli.evaluation.runs.folder import RunFolder, check_inside
from infer_cli.evaluation.runs.item_amounts import score_of
from infer_cli.evaluation.runs.reading import Run, read_run
from infer_cli.system.files import read_regular, write_atomic
from infer_cli.system.hashing import sha256_hex

_JOURNALED = 1000  # summaries in a file of the journal
_NOTED = ".infer-formats"  # the names of what was written, one a line
_OURS = re.compile(
    r"results_\d{4}-\d\d-\d\dT[\d.-]+\.json|samples_.+_\d{4}-\d\d-\d\dT[\d.-]+\.jsonl"
    r"|\d{4}-\d\d-\d\dT[\d.-]+_.+_[0-9a-f]{22}\.eval"
)


class WrittenFormats(NamedTuple):
    """The three files."""

    harness_results: Path
    harness_samples: Path
    inspect_log: Path


def write_formats(folder: RunFolder) -> WrittenFormats:
    """Of a run that has been scored. Files of these scores stay as they are; those that were written before
    under other names are removed, and no others. One item at a time is in memory.

    Raises UsageError for files that are none of a run's, OSError.
    """
    run = read_run(folder.path)
    identity, date, task = identity_of(run), harness_date(run), run.facts.task.name
    paths = WrittenFormats(
        folder.path / f"results_{date}.json",
        folder.path / f"samples_{task}_{date}.jsonl",
        folder.path / identity.file_name(task),
    )
    noted = folder.path / _NOTED
    check_inside(folder.path, *paths, noted)
    sources = _sources_sha256(run)
    names = {path.name for path in paths}
    before = _noted_names(noted) - names
    if (
        all(path.is_file() for path in paths)
        and written_from(paths.harness_results) == sources
        and not before
    ):
        return paths
    _note_names(noted, before | names)
    harness = HarnessSamples([each.metric for each in run.results.scores], generation_of(run))
    with _InspectLog(run, paths.inspect_log) as log:

        def lines() -> Iterator[bytes]:
            for scored in scored_items(run):
                log.add(scored)
                yield harness.line(scored)
            log.finish()

        write_atomic(paths.harness_samples, lines(), durable=True)
    write_atomic(paths.harness_results, [harness_results(run, harness.task_hash, sources)], durable=True)
    for path in list(folder.path.iterdir()):
        if path.name in before:
            path.unlink()
    _note_names(noted, names)
    return paths


def _noted_names(path: Path) -> set[str]:
    """Of what was written into the folder. It may be anyone's: other names are left out."""
    try:
        lines = read_regular(path).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return set()
    return set(filter(_OURS.fullmatch, lines))


def _note_names(path: Path, names: Collection[str]) -> None:
    write_atomic(path, ["".join(f"{name}\n" for name in sorted(names)).encode()], durable=True)


def _sources_sha256(run: Run) -> str:
    """Of what the files are made of. What a check has found of the run is not in them."""
    results = replace(run.results, verified=None)
    hashes = (file_sha256(path) for path in (run.folder.items, run.folder.requests, run.folder.samples))
    return sha256_hex("\0".join([*hashes, sha256_hex(results.as_bytes())]).encode())


class _InspectLog(contextlib.ExitStack):
    """The log of a run, item by item. Lists over all items wait in files without a name."""

    def __init__(self, run: Run, path: Path) -> None:
        super().__init__()
        self._run, self._identity = run, identity_of(run)
        self._samples = InspectSamples(self._identity.eval_id, self._identity.model, self._identity.date)
        self._archive = self.enter_context(EvalArchive(path))
        self._summaries = self.enter_context(_WaitingArray())
        names = dict.fromkeys(score_of(each.metric) for each in run.results.scores)
        self._reductions = {name: self.enter_context(_WaitingArray()) for name in names}
        self._journal: list[bytes] = []
        self._ids: list[str] = []
        self._n_samples = self._n_epochs = self._n_journals = 0

    def add(self, scored: ScoredItem) -> None:
        self._ids.append(scored.item.id)
        self._n_epochs = max(self._n_epochs, len(scored.samples))
        for epoch in range(1, len(scored.samples) + 1):
            sample = self._samples.sample(scored, epoch)
            self._archive.add(f"samples/{scored.item.id}_epoch_{epoch}.json", [_json(sample)])
            summary = _json(self._samples.summary(sample))
            self._summaries.append(summary)
            self._journal.append(summary)
            self._n_samples += 1
        if len(self._journal) >= _JOURNALED:
            self._write_journal()
        for name, waiting in self._reductions.items():
            if (reduced := reduction(scored, name)) is not None:
                waiting.append(_json(reduced))

    def finish(self) -> None:
        if self._journal:
            self._write_journal()
        counts = Counts(self._ids, self._n_epochs, self._n_samples)
        self._archive.add("_journal/start.json", [_json(start_json(self._run, self._identity, counts))])
        self._archive.add("summaries.json", self._summaries.pieces())
        self._archive.add("reductions.json", self._reduction_pieces())
        self._archive.add("header.json", [_json(header_json(self._run, self._identity, counts))])

    def _write_journal(self) -> None:
        self._n_journals += 1
        data = b"[" + b",".join(self._journal) + b"]"
        self._archive.add(f"_journal/summaries/{self._n_journals}.json", [data])
        self._journal.clear()

    def _reduction_pieces(self) -> Iterator[IO[bytes] | bytes]:
        yield b"["
        for number, (name, waiting) in enumerate(self._reductions.items()):
            head = _json({"scorer": name, "reducer": "mean"})
            yield (b"," if number else b"") + head[:-1] + b',"samples":'
            yield from waiting.pieces()
            yield b"}"
        yield b"]"


class _WaitingArray:
    """Values of a JSON array, in a file until the array is written."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # `__exit__` closes it

    def __enter__(self) -> _WaitingArray:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, value: bytes) -> None:
        self._file.write(b"," + value if self._file.tell() else value)

    def pieces(self) -> Iterator[IO[bytes] | bytes]:
        self._file.seek(0)
        yield b"["
        yield self._file
        yield b"]"


def _json(value: dict[str, object]) -> bytes:
    return json_line(value)[:-1]
