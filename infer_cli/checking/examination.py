"""What the kind of a job decides of its check: what its lines say, and what is looked at of that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from infer_cli.batch.job import OutputFormat
from infer_cli.batch.kind import Asked, AskedRow, Lines, Origin, RowPreparer
from infer_cli.batch.output_index import Line


class Claim(Protocol):
    """One answer as a line has it. `error_code`: it failed."""

    @property
    def row(self) -> int: ...

    @property
    def custom_id(self) -> str: ...

    @property
    def sample(self) -> int: ...

    @property
    def error_code(self) -> int | None: ...

    @property
    def has_answer(self) -> bool: ...

    @property
    def contradiction(self) -> str:
        """What of its own values does not fit together; empty where all does."""


class Difference(NamedTuple):
    """An answer that does not hold. `token`: the first that differs, if it is known; `was` and `now` are
    there, None where the reply has ended."""

    row: int
    custom_id: str
    sample: int
    what: str
    token: int | None = None
    was: int | None = None
    now: int | None = None


class Unchecked(NamedTuple):
    """An answer of which no one can say whether it holds."""

    row: int
    custom_id: str
    sample: int
    what: str


def different(
    claim: Claim, what: str, token: int | None = None, was: int | None = None, now: int | None = None
) -> Difference:
    return Difference(claim.row, claim.custom_id, claim.sample, what, token, was, now)


def unchecked(claim: Claim, what: str) -> Unchecked:
    return Unchecked(claim.row, claim.custom_id, claim.sample, what)


C = TypeVar("C", bound=Claim)
C_contra = TypeVar("C_contra", bound=Claim, contravariant=True)


class Examination(Protocol[C_contra]):
    """Of the answers of one kind. Rows, answers and what is asked are those of its kind."""

    def preparer(self, claim: C_contra) -> RowPreparer[Any]:
        """What makes of the row what was asked of it. Raises an InferError that says why nothing can."""

    def lines(self, origin: Origin, form: OutputFormat) -> Lines[Any]: ...

    def look(
        self, line: Line, claims: Sequence[C_contra], asked: Any
    ) -> AskedRow[Any] | Difference | Unchecked:
        """What is known before anything is computed: what differs, or what is to be asked."""

    def again(self, claim: C_contra, asked: Any) -> Asked[Any]:
        """What is to be asked for one answer: where it asks nothing, the answer is known."""

    def compare(self, claim: C_contra, answer: Any) -> Difference | None:
        """What differs of an answer; the fields of its line are compared after it."""
