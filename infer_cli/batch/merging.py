"""Outputs of shards put together: in input order, each reply once, of one job."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from infer_cli.batch.job import N_SHOWN, JobFile, Shard, job_dir, job_path, journal_path
from infer_cli.batch.job_reading import read_job
from infer_cli.batch.ordered import read_journal
from infer_cli.batch.output_index import OutputIndex, lines_of
from infer_cli.errors import UsageError
from infer_cli.system.files import not_a_file, open_regular, write_atomic


class Place(NamedTuple):
    """Where a line is. Sorted, places are in input order."""

    row: int
    sample: int
    file: int
    start: int
    size: int


@dataclasses.dataclass(frozen=True)
class Merge:
    """What several outputs hold together."""

    job: JobFile
    places: list[Place]
    n_failed: int
    n_missing: int  # rows
    missing: list[int]  # the first of them
    outputs: tuple[Path, ...]

    def lines(self) -> Iterator[bytes]:
        """All lines in input order."""
        files: list[BinaryIO] = [open_regular(path) for path in self.outputs]  # closed below
        try:
            for place in self.places:
                file = files[place.file]
                file.seek(place.start)
                yield file.read(place.size)
        finally:
            for file in files:
                file.close()

    def write(self, path: Path) -> None:
        """The lines as one output, which `infer batch` can go on with."""
        job_dir(path).mkdir(exist_ok=True)
        dataclasses.replace(self.job, shard=Shard()).write(job_path(path))
        write_atomic(path, self.lines(), durable=True)


def merge(outputs: Sequence[Path]) -> Merge:
    """Raises UsageError for outputs that are not of one job, or hold a reply twice; OSError."""
    jobs = [_job(path) for path in outputs]
    held, places = OutputIndex(), []
    for i, path in enumerate(outputs):
        different = [d for job in jobs[:i] for d in job.differences(jobs[i])][:4]
        if jobs[i].n_rows != jobs[0].n_rows:
            different.append(f"rows of the input were {jobs[0].n_rows}, are {jobs[i].n_rows}")
        elif jobs[i].rows_sha256 != jobs[0].rows_sha256:
            different.append("the rows of its input are others")
        if different:
            raise UsageError(f"{path} is not of one job with those before it: {'; '.join(different)}")
        if next(read_journal(journal_path(path)), None) is not None:
            raise UsageError(
                f"{path} is not finished: replies wait for their turn", "run its `infer batch` again first"
            )
        for line in lines_of(path):
            try:
                held.add(line)
            except UsageError as e:
                raise UsageError(f"{path}: {e.message} in these files", "name each output once") from None
            places.append(Place(line.row, line.sample, i, line.start, line.end - line.start))
    run_seed = next((job.run_seed for job in jobs if job.run_seed is not None), None)
    deadline_s = max((job.deadline_s for job in jobs if job.deadline_s is not None), default=None)
    n_rows = jobs[0].n_rows
    return Merge(
        dataclasses.replace(jobs[0], run_seed=run_seed, deadline_s=deadline_s),
        sorted(places),
        sum(row.failed for row in held.rows.values()),
        n_rows - sum(row < n_rows for row in held.rows),
        list(islice((row for row in range(n_rows) if row not in held.rows), N_SHOWN + 1)),
        tuple(outputs),
    )


def _job(path: Path) -> JobFile:
    if not path.is_file():
        raise UsageError(not_a_file(path))
    job = read_job(path)
    if job is None:
        raise UsageError(f"{path} has no {job_path(path)} beside it", "copy both: OUT and OUT.job")
    return job
