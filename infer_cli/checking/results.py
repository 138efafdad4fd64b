"""A results file that is verified: which rows it answers, and which of them are asked again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from infer_cli.batch.job import JobFile, Kind, job_path
from infer_cli.batch.output_index import Line, OutputIndex, parse_line
from infer_cli.checking.claimed_engine import (
    EngineClaim,
    engine_claim,
    engine_of_job,
    filled_window,
    model_name,
)
from infer_cli.checking.claims import claims_of, kind_of
from infer_cli.errors import UsageError
from infer_cli.runtime.engine_facts import fingerprint
from infer_cli.system.files import open_regular
from infer_cli.system.hashing import sha256_hex

SURE = 0.95  # a chance that is called sure enough


class Results:
    """A results file and the rows of it that are asked again. Of each line only its place is kept.

    `challenge` decides which rows: it must not be known before the file was written.
    Raises UsageError for a file that holds no replies, or not what it should.
    """

    def __init__(self, path: Path, job: JobFile | None, fraction: float, challenge: str) -> None:
        self._path, self._job = path, job
        self.is_torn = False  # its last line
        self.window: int | None = None if job is None else job.window
        self.n_answers = 0
        self.has_tokens = True  # in every line: OpenAI's form leaves them out
        self.model_names: set[str | None] = set()
        places: dict[int, list[tuple[int, int]]] = {}
        held = OutputIndex()
        engine = None if job is None else _checked_engine(job, path)
        kind: Kind | None = None if job is None else job.kind
        for line in self._lines():
            held.add(line)
            kind = kind or kind_of(line)
            if kind_of(line) != kind:
                raise UsageError(f"{path}: row {line.row} is not one of the {kind} that the others are")
            self.n_answers += len(claims_of(line, job))
            self.has_tokens = self.has_tokens and line.samples >= 0
            self.model_names.add(model_name(line))
            if job is None:
                found = engine_claim(line, job)
                if engine is not None and not engine.is_as(found):
                    raise UsageError(
                        f"{path}: row {line.row} comes from another model or engine than those before it",
                        "verify each part alone",
                    )
                engine = engine or found
                self.window = self.window or filled_window(line)
            places.setdefault(line.row, []).append((line.start, line.end))
        if engine is None or kind is None or not places:
            raise UsageError(f"{path} holds no reply")
        self.engine, self.kind = engine, kind
        self._places = places
        order = sorted(places, key=lambda row: _order(challenge, row))
        self.chosen = frozenset(order[: max(1, round(fraction * len(order)))])

    @property
    def n_rows(self) -> int:
        return len(self._places)

    def __contains__(self, row: int) -> bool:
        return row in self._places

    def rows(self) -> Iterator[int]:
        """All rows of the file, ascending."""
        return iter(sorted(self._places))

    def lines(self, row: int) -> list[Line]:
        """What is said of a row."""
        found = []
        with open_regular(self._path) as file:
            for start, end in self._places[row]:
                file.seek(start)
                line = _parsed(file.read(end - start), start, end)
                if line is None:
                    raise UsageError(f"{self._path} was changed meanwhile")
                found.append(line)
        return found

    def _lines(self) -> Iterator[Line]:
        broken: int | None = None
        end = 0
        with open_regular(self._path) as file:
            for n, data in enumerate(file, 1):
                start, end = end, end + len(data)
                if broken is not None:
                    break
                if (line := _parsed(data, start, end)) is None:
                    broken = n
                else:
                    yield line
            else:
                self.is_torn = broken is not None and broken > 1
        if broken is not None and not self.is_torn:
            raise UsageError(f"{self._path}: line {broken} is not a line of a batch's output")


def _order(challenge: str, row: int) -> str:
    return sha256_hex(f"infer verify {challenge} {row}".encode("utf-8", "surrogatepass"))


def _checked_engine(job: JobFile, path: Path) -> EngineClaim:
    engine = engine_of_job(job)
    if engine.fingerprint != fingerprint(engine.recorded):
        raise UsageError(f"{job_path(path)}: its fingerprint is not that of its engine's facts")
    return engine


def _parsed(data: bytes, start: int, end: int) -> Line | None:
    return parse_line(data if data.endswith(b"\n") else data + b"\n", start, end)


def chance_of_finding(n_rows: int, n_chosen: int, n_forged: int) -> float:
    """The chance that at least one of the forged rows is among those that are chosen blindly."""
    missed = 1.0
    for i in range(n_forged):
        missed *= max(0, n_rows - n_chosen - i) / (n_rows - i)
    return 1.0 - missed


def forged_rows_found(n_rows: int, n_chosen: int) -> tuple[int, float]:
    """How many forged rows it takes for one to be found with a chance of `SURE`, and their chance."""
    missed, n = 1.0, 0
    while 1.0 - missed < SURE:
        missed *= max(0, n_rows - n_chosen - n) / (n_rows - n)
        n += 1
    return n, 1.0 - missed
