"""What is asked of a verification, and what it has found. Values alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from infer_cli.batch.job import JobFile, Kind
from infer_cli.batch.rows import Input
from infer_cli.checking.examination import Difference, Unchecked


@dataclass(frozen=True)
class VerifyRequest:
    """Which results are verified, and how. `job` None: the results came alone, and `system`, `raw`,
    `variables`, `chat_template` and `deadline_s` say what its file would.

    `fraction`: the share of the rows that is checked by the model, above 0 and at most 1. `challenge` decides
    which: the author of the results must not have known it. `by_tokens`: what is claimed is checked token by
    token, even where this engine is the one that is said to have answered.
    """

    results: Path
    job: JobFile | None
    input: Input
    fraction: float
    challenge: str
    system: str | None = None
    raw: bool = False
    variables: Mapping[str, str] | None = None
    chat_template: str | None = None
    deadline_s: float | None = None
    by_tokens: bool = False

    @property
    def params(self) -> Mapping[str, object]:
        """The job's parameters."""
        return {} if self.job is None else self.job.params


class Nearness(NamedTuple):
    """Of a check by tokens, in nats: how far a token may be from the one that the model takes here, how far
    the farthest is; and the same of a reply's tokens on average."""

    margin: float
    farthest: float
    mean_margin: float
    farthest_mean: float


@dataclass(frozen=True)
class VerifyReport:
    """What a verification has found. `n_drawn`: answers of the rows that were drawn, of which `n_same` are
    the same; `n_answers` is of the whole file. `missing`: rows of the job without a reply.

    `reasons` may explain differences, the likeliest first. `nearness` is there where tokens were checked;
    otherwise answers were computed again.
    """

    kind: Kind
    is_same_model: bool
    n_rows: int
    n_rows_drawn: int
    n_answers: int
    n_drawn: int
    n_same: int
    challenge: str | None  # None where all rows were drawn
    missing: Sequence[int]
    differences: Sequence[Difference]
    unchecked: Sequence[Unchecked]
    reasons: Sequence[str]
    nearness: Nearness | None = None

    @property
    def check(self) -> Literal["answers", "tokens"]:
        """What was done again: answers were computed, or claimed tokens checked."""
        return "answers" if self.nearness is None else "tokens"

    @property
    def holds(self) -> bool:
        return self.is_same_model and not self.differences and not self.missing


class Watcher(Protocol):
    """Is told how a verification goes."""

    def status(self, text: str) -> None:
        """What is being waited for."""

    def warn(self, message: str) -> None:
        """What the user must know of."""

    def clear(self) -> None:
        """The status is over."""
