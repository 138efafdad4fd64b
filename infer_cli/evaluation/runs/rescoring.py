"""From a run's replies to its samples and results: `samples.jsonl` and `results.json`. Needs no model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from infer_cli.answering.reply import json_line
from infer_cli.batch.job import JobFile
from infer_cli.batch.job_reading import read_job
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.beginning import file_sha256
from infer_cli.evaluation.runs.facts import RunFacts, read_facts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.graders import OURS_ONLY, Openers, grader_of
from infer_cli.evaluation.runs.grading import Grader
from infer_cli.evaluation.runs.judging import judge_identity
from infer_cli.evaluation.runs.reply_lines import ReplyLines
from infer_cli.evaluation.runs.results import Identity, Results, read_results
from infer_cli.evaluation.runs.sample import Sample
from infer_cli.evaluation.runs.side_by_side import in_order
from infer_cli.evaluation.runs.summary import SamplesSummary, Totals
from infer_cli.evaluation.tasks.item import Item
from infer_cli.evaluation.tasks.item_file import read_written_items
from infer_cli.system.files import open_regular, write_atomic
from infer_cli.system.processors import default_threads

# What of a job's file is no choice of the user's.
_NOT_CHOSEN = ("format", "row_template")


class Rescored(NamedTuple):
    """`changed`: the files had something else. `code_scorers` ran code once more."""

    samples_bytes_sha256: str
    results: Results
    changed: bool
    code_scorers: tuple[str, ...]


def rescore(
    folder: RunFolder, *, allow_code: bool, openers: Openers = OURS_ONLY, write: bool = True
) -> Rescored:
    """Grade all replies of a run. With `write` the files are written again, where they differ.

    Raises UsageError for a folder that is no run, one of a shard, and for code that is not allowed; OSError.
    """
    facts, job = read_facts(folder.facts), _job(folder)
    found = grader_of(folder, facts, n_samples(job), allow_code=allow_code, openers=openers)
    totals = Totals(found.grader.metrics, facts.scoring, found.corpus)
    digest = hashlib.sha256()
    before = {path: _sha256_if_there(path) for path in (folder.samples, folder.results)}

    def lines() -> Iterator[bytes]:
        for samples in graded(folder, found.grader):
            totals.add(samples)
            for sample in samples:
                line = json_line(sample.as_json())
                digest.update(line)
                yield line

    if write:
        write_atomic(folder.samples, lines(), durable=True)
    else:
        for _ in lines():
            pass
    summary = totals.summary()
    results = _results(folder, facts, job, found.task_sha256, found.grader, summary)
    if before[folder.samples] == digest.hexdigest():
        results = _still_verified(folder, results)
    data = results.as_bytes()
    changed = before != {
        folder.samples: digest.hexdigest(),
        folder.results: hashlib.sha256(data).hexdigest(),
    }
    if write:
        write_atomic(folder.results, [data], durable=True)
    return Rescored(digest.hexdigest(), results, changed, tuple(found.grader.code_scorers))


def graded(folder: RunFolder, grader: Grader) -> Iterator[list[Sample]]:
    """The samples of each item, in the order of the items. Raises UsageError for files that are none of a
    run's."""

    def answered(replies: ReplyLines) -> Iterator[tuple[Item, list[list[Mapping[str, object]]]]]:
        row = 0
        for item in read_written_items(folder.items, folder.requests):
            yield item, [replies.of_row(row + i) for i in range(len(item.rows))]
            row += len(item.rows)

    # What runs code waits for processes; the rest would only wait for its turn.
    n_threads = default_threads() if grader.code_scorers else 1
    with ReplyLines(folder.replies) as replies:
        yield from in_order(lambda asked: grader.grade(*asked), answered(replies), n_threads)


def n_samples(job: JobFile) -> int:
    """Replies to each row."""
    n = job.params.get("samples", 1)
    return n if isinstance(n, int) else 1


def _job(folder: RunFolder) -> JobFile:
    job = read_job(folder.replies)
    if job is None:
        raise folder.no_job()
    if job.shard.of > 1:
        raise UsageError(
            f"{folder.path} is part {job.shard} of a run", "`infer merge` puts the parts together, and scores"
        )
    return job


def _results(
    folder: RunFolder,
    facts: RunFacts,
    job: JobFile,
    task_sha256: str,
    grader: Grader,
    summary: SamplesSummary,
) -> Results:
    task, first = facts.task, _first_line(folder.replies)
    promise, engine = first.get("promise"), first.get("engine")
    return Results(
        task={
            "name": task.name,
            "version": task.version,
            "kind": task.kind,
            "description": task.description,
            "licence": task.licence,
            "citation": task.citation,
        },
        model=Identity(job.model.name or "", job.model.sha256),
        engine=engine if isinstance(engine, dict) else {"fingerprint": job.fingerprint},
        mode=job.engine.mode,
        promise=promise if isinstance(promise, str) else job.engine.mode,
        config={
            **asdict(facts.selection),
            **asdict(facts.scoring),
            "samples": n_samples(job),
            "run_seed": job.run_seed,
            **({} if (judge := judge_identity(folder)) is None else {"judge": judge}),
            **{name: value for name, value in job.params.items() if name not in _NOT_CHOSEN},
        },
        hashes={
            "task": task_sha256,
            "data": facts.data.sha256,
            "template": task.template_sha256,
            "model": job.model.sha256,
            "items": file_sha256(folder.items),
            "requests": file_sha256(folder.requests),
        },
        n=summary.n_items,
        n_asked=facts.data.n_all,
        limit=facts.selection.limit,
        rates=summary.rates,
        scores=summary.scores,
        tokens=summary.tokens,
        command=facts.command,
        infer=facts.infer,
        libraries=facts.libraries,
        hardware=facts.hardware,
        began_at=facts.began_at,
        warnings=tuple(_warnings(facts, task_sha256, summary)),
        code_scorers=tuple(grader.code_scorers),
    )


def _warnings(facts: RunFacts, task_sha256: str, summary: SamplesSummary) -> Iterator[str]:
    if task_sha256 != facts.task.sha256:
        yield "the task's copy in the folder was changed since the run began"
    yield from summary.warnings


def _still_verified(folder: RunFolder, results: Results) -> Results:
    """What a check has found holds on where the results are the same."""
    try:
        before = read_results(folder.results)
    except UsageError:
        return results
    return replace(results, verified=before.verified) if before.is_same(results) else results


def _first_line(path: Path) -> Mapping[str, object]:
    with open_regular(path) as file:
        data = file.readline()
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _sha256_if_there(path: Path) -> str | None:
    return file_sha256(path) if path.exists() else None
