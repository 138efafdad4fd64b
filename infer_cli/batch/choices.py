"""Rows whose answer is one of several texts: the likeliest is the reply."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from infer_cli.answering.choosing import Question, chosen_reply
from infer_cli.batch.kind import Origin
from infer_cli.batch.rows import Row
from infer_cli.errors import ExitStatus
from infer_cli.prompt.fitting import Dropped
from infer_cli.types import Finished, Reply, ScoreRequest


@dataclass(frozen=True)
class PreparedChoice:
    """A row that can be answered without sampling. `dropped` is what was left out of its prompt."""

    row: Row
    question: Question
    dropped: tuple[Dropped, ...]
    n_samples: int = 1
    n_window: int = 0
    is_sampled: bool = False
    n_logprobs: int | None = None
    run_seed: int | None = None
    own_seed: bool = False

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self.question.prompt_ids

    @property
    def n_score_window(self) -> int:
        return self.question.window

    @property
    def n_dropped(self) -> int:
        """Tokens that were left out of the prompt."""
        return sum(part.tokens for part in self.dropped)

    @property
    def max_tokens(self) -> int:
        return self.question.n_longest

    @property
    def params(self) -> dict[str, object]:
        return self.question.params

    @property
    def truncation(self) -> dict[str, object] | None:
        return self.question.truncation

    @property
    def deadline_s(self) -> float | None:
        return self.question.deadline_s

    def seed(self, sample: int) -> None:
        return None

    def without_deadline(self) -> PreparedChoice:
        return dataclasses.replace(self, question=dataclasses.replace(self.question, deadline_s=None))

    def requests(self, sample: int) -> list[ScoreRequest]:
        """What the engine is asked: how likely each choice is."""
        return self.question.requests(f"{self.row.index}-{sample}")

    def answer(self, origin: Origin, sample: int, ends: Sequence[Finished]) -> Reply:
        """The likeliest choice. Where a deadline came before all were scored, it is an error."""
        question = dataclasses.replace(self.question, id=origin.answer_id(self.row, sample, self.n_samples))
        reply = chosen_reply(
            question, ends, origin.came_from, origin.mode, origin.promise, custom_id=self.row.custom_id
        )
        if reply.finish_reason != "deadline":
            return reply
        return dataclasses.replace(
            reply,
            error={"code": int(ExitStatus.DEADLINE), "message": "the deadline came before the choice"},
        )
