"""Likelihoods of rows: from a row that can be scored to a line of the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from infer_cli.answering.likelihood import ScoredPair, as_json, scored_pair_of
from infer_cli.answering.reply import NOTHING_COMPUTED, json_line
from infer_cli.batch.kind import Origin, error_of_row, row_keys
from infer_cli.batch.rows import Row
from infer_cli.prompt.fitting import Dropped, report_of
from infer_cli.prompt.pairs import Pair
from infer_cli.types import Finished, ScoreRequest

PairPolicy = Literal["error", "truncate-left"]
POLICIES: tuple[PairPolicy, ...] = ("error", "truncate-left")


def truncation_of(pair: Pair, overflow: PairPolicy) -> dict[str, object] | None:
    """What was left out of a pair's context, as JSON has it; None where nothing was."""
    if not pair.n_dropped:
        return None
    return report_of(overflow, [Dropped("the beginning of the context", pair.n_dropped)])


@dataclass(frozen=True)
class PreparedPair:
    """A row that can be scored. `text` is the continuation's, `overflow` what its context was cut by."""

    row: Row
    pair: Pair
    text: str
    overflow: PairPolicy
    n_samples: int = 1
    n_window: int = 0
    is_sampled: bool = False

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What is evaluated: the last token is not."""
        return (*self.pair.context, *self.pair.continuation[:-1])

    @property
    def n_score_window(self) -> int:
        return len(self.pair.context) + len(self.pair.continuation) - 1

    @property
    def n_dropped(self) -> int:
        """Tokens of the context that were left out."""
        return self.pair.n_dropped

    @property
    def truncation(self) -> dict[str, object] | None:
        """What was left out, as JSON has it."""
        return truncation_of(self.pair, self.overflow)

    def requests(self, sample: int) -> tuple[ScoreRequest]:
        """What the engine is asked: one request."""
        return (self.pair.request(f"{self.row.index}-{sample}"),)

    def answer(self, origin: Origin, sample: int, ends: Sequence[Finished]) -> ScoredPair:
        (end,) = ends
        return scored_pair_of(
            end,
            origin.came_from,
            pair_id=origin.answer_id(self.row, sample, self.n_samples),
            custom_id=self.row.custom_id,
            context=self.pair.context,
            continuation=self.pair.continuation,
            text=self.text,
            mode=origin.mode,
            promise=origin.promise,
            truncation=self.truncation,
        )


class PairLines:
    """Lines of likelihoods."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    def failure(self, row: Row, sample: int, code: int, message: str) -> ScoredPair:
        """An error row: nothing was computed for it, and its texts may be none."""
        return scored_pair_of(
            NOTHING_COMPUTED,
            self._origin.came_from,
            pair_id=self._origin.answer_id(row, sample, 1),
            custom_id=row.custom_id,
            context=(),
            continuation=(),
            text="",
            mode=self._origin.mode,
            promise=self._origin.promise,
            error=error_of_row(code, message),
        )

    def line(self, row: Row, answers: Sequence[ScoredPair]) -> bytes:
        (one,) = answers
        return json_line({**as_json(one), **row_keys(row)})
