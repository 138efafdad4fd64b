"""Outputs of shards put together: in input order, each reply once, of one job."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from infer_cli.batch.held import Held, lines_of
from infer_cli.batch.job import JobFile, Shard, job_dir, job_path, journal_path, read_job
from infer_cli.batch.ordered import read_journal
from infer_cli.batch.output import write_atomically
from infer_cli.errors import UsageError
from infer_cli.files import not_a_file, open_regular


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
    missing: list[int]  # rows
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
        write_atomically(path, self.lines())


def merge(outputs: Sequence[Path]) -> Merge:
    """Raises UsageError for outputs that are not of one job, or hold a reply twice; OSError."""
    jobs = [_job(path) for path in outputs]
    held, places = Held(), []
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
    return Merge(
        dataclasses.replace(jobs[0], run_seed=run_seed),
        sorted(places),
        sum(row.failed for row in held.rows.values()),
        [row for row in range(jobs[0].n_rows) if row not in held.rows],
        tuple(outputs),
    )


def _job(path: Path) -> JobFile:
    if not path.is_file():
        raise UsageError(not_a_file(path))
    job = read_job(path)
    if job is None:
        raise UsageError(f"{path} has no {job_path(path)} beside it", "copy both: OUT and OUT.job")
    return job
