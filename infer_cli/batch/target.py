"""Where a batch's replies go: what is there of earlier runs, and how it is gone on with."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from infer_cli.batch import resume
from infer_cli.batch.in_flight import Flight, after_crash
from infer_cli.batch.job import (
    JobFile,
    check_beside,
    counted_rows,
    flight_path,
    job_dir,
    job_path,
    journal_path,
    lock_path,
)
from infer_cli.batch.job_reading import read_job
from infer_cli.batch.ordered import OrderedOutput
from infer_cli.batch.output import FileOutput, Output, StreamOutput
from infer_cli.batch.output_index import Line, OutputIndex
from infer_cli.errors import UsageError
from infer_cli.system.files import lock


class JobSoFar(NamedTuple):
    """What earlier runs left. `job` None: nothing is answered, so there is nothing to be held to."""

    job: JobFile | None
    written: OutputIndex  # in the output itself
    answered: OutputIndex  # and among what waits for its turn

    @classmethod
    def nothing(cls) -> JobSoFar:
        return cls(None, OutputIndex(), OutputIndex())


class Target(Protocol):
    """In this order: `read`, `check_rows`, `begin`, `open` and `open_flight`, `finish`."""

    @property
    def resumes(self) -> bool:
        """Whether a later run finds again what this one has written."""

    def read(self) -> JobSoFar:
        """What is there of earlier runs, but for what is to be answered again."""

    def check_rows(self, changed: Sequence[int], *, redo: bool) -> None:
        """`changed`: rows that say something else than when they were answered. Raises UsageError where
        there are any, unless they are to be answered again."""

    def begin(self, job: JobFile, so_far: JobSoFar, changed: Collection[int], *, redo: bool) -> JobSoFar:
        """Write the job down, and let go what is to be answered again; returns what is left. Raises
        UsageError where another job was begun, unless all is to be answered again."""

    def open(self, so_far: JobSoFar, *, ordered: bool) -> Output:
        """The output, to go on behind what is there."""

    def open_flight(self) -> Flight | None:
        """Which rows are under way; None where nobody could look."""

    def finish(self) -> None:
        """All is answered: nothing is under way, nothing waits."""

    def close(self) -> None:
        """Let other processes have it."""


class FileTarget:
    """A file, and its job beside it: both are this process's from now on, as long as it lives.

    `retry_errors`: what failed counts as not answered, unless this run goes on after a crash: it was answered
    again already. Raises UsageError for a file that is none of ours, and where another process writes it.
    """

    resumes = True

    def __init__(self, path: Path, *, retry_errors: bool = False) -> None:
        self._path = path
        if _has_content(path) and read_job(path) is None:
            raise UsageError(
                f"{path} is there already, and no batch has written it here", "name another file with -o"
            )
        try:
            job_dir(path).mkdir(exist_ok=True)
        except OSError as e:
            raise UsageError(f"{job_dir(path)} can't be made: {e.strerror}") from None
        check_beside(path)
        self._lock = lock(lock_path(path), path)
        self._retries = retry_errors and not after_crash(flight_path(path))

    def read(self) -> JobSoFar:
        """Raises UsageError for an output or a job's file that is damaged."""
        job = read_job(self._path)
        if job is None and _has_content(self._path):
            raise UsageError(f"{self._path} was written meanwhile", "name another file with -o")
        found = self._find(())
        return JobSoFar(job if found.answered.rows else None, found.written, found.answered)

    def check_rows(self, changed: Sequence[int], *, redo: bool) -> None:
        if changed and not redo:
            raise UsageError(
                f"{self._path} has answers to what is different now: {counted_rows(changed)}",
                "--redo answers these again; -o OTHER begins another output",
            )

    def begin(self, job: JobFile, so_far: JobSoFar, changed: Collection[int], *, redo: bool) -> JobSoFar:
        begun = so_far.job
        if begun is None or self._is_another(begun, job, redo=redo):
            so_far = self._emptied(so_far)
        elif self._retries or changed:
            so_far = self._without(so_far, frozenset(changed), ordered=begun.ordered)
        job.write(job_path(self._path))
        return so_far

    def open(self, so_far: JobSoFar, *, ordered: bool) -> Output:
        appended = FileOutput(self._path, so_far.written.n_bytes)
        return OrderedOutput(appended, journal_path(self._path)) if ordered else appended

    def open_flight(self) -> Flight:
        return Flight(flight_path(self._path))

    def finish(self) -> None:
        for path in (flight_path(self._path), journal_path(self._path)):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        self._lock.release()

    def _find(self, changed: Collection[int]) -> resume.OutputContents:
        return resume.find(self._path, journal_path(self._path), self._kept_lines(changed))

    def _kept_lines(self, changed: Collection[int]) -> resume.Keep:
        def keep(line: Line) -> bool:
            return line.row not in changed and not (line.failed and self._retries)

        return keep

    def _is_another(self, begun: JobFile, job: JobFile, *, redo: bool) -> bool:
        different = begun.differences(job)
        if begun.shard != job.shard:
            different.append(f"shard was {begun.shard}, is {job.shard}")
        if different and not redo:
            raise UsageError(
                f"{self._path} was begun with other settings: {'; '.join(different[:4])}",
                "--redo answers all rows again; -o OTHER begins another output",
            )
        return bool(different)

    def _emptied(self, so_far: JobSoFar) -> JobSoFar:
        journal_path(self._path).unlink(missing_ok=True)
        if self._path.exists():
            os.truncate(self._path, 0)
        return JobSoFar(so_far.job, OutputIndex(), OutputIndex())

    def _without(self, so_far: JobSoFar, changed: Collection[int], *, ordered: bool) -> JobSoFar:
        """Without what is to be answered again."""
        if self._path.exists():
            keep = self._kept_lines(changed)
            resume.drop(self._path, journal_path(self._path), keep, ordered=ordered)
        found = self._find(changed)
        return JobSoFar(so_far.job, found.written, found.answered)


class StreamTarget:
    """A pipe or a device, opened when the first reply may come. What it was given can't be found again."""

    resumes = False

    def __init__(self, open_stream: Callable[[], BinaryIO]) -> None:
        self._open_stream = open_stream

    def read(self) -> JobSoFar:
        return JobSoFar.nothing()

    def check_rows(self, changed: Sequence[int], *, redo: bool) -> None:
        pass

    def begin(self, job: JobFile, so_far: JobSoFar, changed: Collection[int], *, redo: bool) -> JobSoFar:
        return so_far

    def open(self, so_far: JobSoFar, *, ordered: bool) -> Output:
        piped = StreamOutput(self._open_stream())
        if not ordered:
            return piped
        journal, name = tempfile.mkstemp(prefix="infer-batch-")
        os.close(journal)
        try:
            return OrderedOutput(piped, Path(name))
        finally:
            with contextlib.suppress(OSError):  # Windows keeps what is open
                os.unlink(name)

    def open_flight(self) -> None:
        return None

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
