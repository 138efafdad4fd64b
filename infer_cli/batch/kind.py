"""What the kind of a job decides: what a row asks of the engine, the answer that comes of it, and its line.

All else is the same for every kind: rows are read, planned, answered, written, gone on with and merged alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from infer_cli.batch.job import OutputFormat
from infer_cli.batch.rows import Row
from infer_cli.settings.origins import Setting
from infer_cli.types import (
    EngineRequest,
    Finished,
    FinishReason,
    Mode,
    Promise,
    Provenance,
    ReplyError,
    ScoreRequest,
    Timings,
    Usage,
)

_MOST_MESSAGE = 1000  # characters


@dataclass(frozen=True)
class Origin:
    """What all answers of a job have in common."""

    job_id: str
    mode: Mode
    promise: Promise
    came_from: Provenance

    def answer_id(self, row: Row, sample: int, n_samples: int) -> str:
        return f"{self.job_id}-{row.index}" + (f"-{sample}" if n_samples > 1 else "")


class Answer(Protocol):
    """A reply or a likelihood, or one that failed."""

    @property
    def sample(self) -> int: ...

    @property
    def finish_reason(self) -> FinishReason: ...

    @property
    def tokens(self) -> tuple[int, ...]: ...

    @property
    def usage(self) -> Usage: ...

    @property
    def timings(self) -> Timings: ...

    @property
    def error(self) -> ReplyError | None: ...


A = TypeVar("A", bound=Answer)
A_co = TypeVar("A_co", bound=Answer, covariant=True)


class Asked(Protocol[A_co]):
    """What the engine is to be asked, and what comes of it."""

    def requests(self, sample: int) -> Sequence[EngineRequest | ScoreRequest]:
        """For one of the answers."""

    def answer(self, origin: Origin, sample: int, ends: Sequence[Finished]) -> A_co:
        """`ends`: what came of the requests, in their order."""


class AskedRow(Asked[A_co], Protocol[A_co]):
    """A row that can be answered. `n_window` and `n_score_window`: tokens that it may fill of a slot, and of
    the memory of likelihoods. `n_dropped`: tokens that were left out of its prompt."""

    @property
    def row(self) -> Row: ...

    @property
    def n_samples(self) -> int: ...

    @property
    def prompt_ids(self) -> tuple[int, ...]: ...

    @property
    def n_window(self) -> int: ...

    @property
    def n_score_window(self) -> int: ...

    @property
    def n_dropped(self) -> int: ...

    @property
    def is_sampled(self) -> bool: ...


class Lines(Protocol[A]):
    """From answers to lines of the output."""

    def failure(self, row: Row, sample: int, code: int, message: str) -> A:
        """The answer of a row for which nothing was computed."""

    def line(self, row: Row, answers: Sequence[A]) -> bytes:
        """One line: of one answer, or in OpenAI's form of all of a row."""


class RowPreparer(Protocol[A]):
    """Makes of rows what the engine takes. `params` and `settings` are of a row that says nothing itself."""

    @property
    def run_seed(self) -> int | None: ...

    @property
    def params(self) -> Mapping[str, object]: ...

    @property
    def settings(self) -> Sequence[Setting]: ...

    @property
    def is_sampling(self) -> bool:
        """Whether a row that says nothing itself is sampled."""

    def prepare(self, row: Row) -> AskedRow[A]:
        """Raises an InferError that says why this row can't be answered; NoTemplate for all like it."""

    def lines(self, origin: Origin, form: OutputFormat) -> Lines[A]: ...


def error_of_row(code: int, message: str) -> ReplyError:
    """What a message quotes of the row may be long: it is cut."""
    if len(message) > _MOST_MESSAGE:
        message = message[: _MOST_MESSAGE - 1] + "…"
    return {"code": code, "message": message}


def row_keys(row: Row) -> dict[str, object]:
    """What a line says of its row: by these an output is gone on with."""
    return {"row": row.index, "row_sha256": row.sha256}
