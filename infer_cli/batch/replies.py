"""Replies of rows: from a row that can be answered to a line of the output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from infer_cli.answering import openai_form, reply
from infer_cli.answering.reply_text import whole_text
from infer_cli.batch.job import OutputFormat
from infer_cli.batch.kind import Origin, error_of_row, row_keys
from infer_cli.batch.rows import Row, RowRequest
from infer_cli.errors import ExitStatus
from infer_cli.prompt.fitting import Dropped, Policy, report_of
from infer_cli.settings.seeds import row_seed, sample_seed
from infer_cli.text.reasoning import TagPair
from infer_cli.types import EngineRequest, Finished, ReasoningBudget, Reply, ReplyError, SamplingParams


@dataclass(frozen=True)
class PreparedRow:
    """A row that can be answered. `raw`: without a chat template. `n_window` is the tokens that its prompt
    and reply may fill, `dropped` what `overflow` left out of the prompt. `pairs` are the tags that reasoning
    stands between, `shown_tokens` those that are tokens of their own."""

    row: Row
    raw: bool
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    params: Mapping[str, object]
    max_tokens: int
    n_samples: int
    stop: tuple[str, ...]
    n_logprobs: int | None
    deadline_s: float | None
    run_seed: int | None  # None for greedy
    own_seed: bool  # the row's own, not the job's
    open_reasoning: TagPair | None
    n_window: int
    overflow: Policy
    dropped: tuple[Dropped, ...]
    pairs: Sequence[TagPair] = ()
    shown_tokens: Mapping[int, bytes] = field(default_factory=dict)
    n_score_window: int = 0
    budget: ReasoningBudget | None = None

    @property
    def is_sampled(self) -> bool:
        return not self.sampling.greedy

    @property
    def n_dropped(self) -> int:
        """Tokens that were left out of the prompt."""
        return sum(part.tokens for part in self.dropped)

    @property
    def truncation(self) -> dict[str, object] | None:
        """What was left out, as JSON has it."""
        return report_of(self.overflow, self.dropped) if self.dropped else None

    def seed(self, sample: int) -> int | None:
        if self.run_seed is None:
            return None
        if self.own_seed:
            return sample_seed(self.run_seed, sample)
        return row_seed(self.run_seed, self.row.key, sample)

    def without_deadline(self) -> PreparedRow:
        return dataclasses.replace(self, deadline_s=None)

    def requests(self, sample: int) -> tuple[EngineRequest]:
        """What the engine is asked for one sample: one request."""
        return (
            EngineRequest(
                f"{self.row.index}-{sample}",
                self.prompt_ids,
                self.sampling,
                self.max_tokens,
                self.seed(sample),
                tuple(text.encode() for text in self.stop),
                self.n_logprobs,
                self.deadline_s,
                self.shown_tokens,
                reasoning=self.budget,
            ),
        )

    def answer(self, origin: Origin, sample: int, ends: Sequence[Finished]) -> Reply:
        """The reply. One that a deadline cut is an error: its tokens are kept, its text is not."""
        (end,) = ends
        text = whole_text(end.text, self.pairs, self.open_reasoning)
        error: ReplyError | None = None
        if end.reason == "error":
            error = {"code": int(end.error_status), "message": end.error}
        elif end.reason == "deadline":
            error = {
                "code": int(ExitStatus.DEADLINE),
                "message": f"the deadline ended the reply after {len(end.tokens)} tokens",
            }
        return reply.reply_of(
            end,
            origin.came_from,
            reply_id=origin.answer_id(self.row, sample, self.n_samples),
            custom_id=self.row.custom_id,
            sample=sample,
            text=None if error else text.answer,
            reasoning=text.reasoning,
            params=self.params,
            run_seed=self.run_seed,
            seed=self.seed(sample),
            mode=origin.mode,
            promise=origin.promise,
            truncation=self.truncation,
            error=error,
            in_reasoning=text.ends_in_reasoning,
        )


class ReplyLines:
    """Lines of replies, in our form or OpenAI's. `is_raw`: whether a row is completed without a template."""

    def __init__(
        self,
        origin: Origin,
        form: OutputFormat,
        token_text: Callable[[int], bytes],
        is_raw: Callable[[RowRequest], bool],
    ) -> None:
        self._origin, self._form, self._token_text, self._is_raw = origin, form, token_text, is_raw

    def failure(self, row: Row, sample: int, code: int, message: str) -> Reply:
        """An error row: nothing was computed for it."""
        return reply.reply_of(
            reply.NOTHING_COMPUTED,
            self._origin.came_from,
            reply_id=self._origin.answer_id(row, sample, 1 if sample == 0 else 2),
            custom_id=row.custom_id,
            sample=sample,
            text=None,
            params={},
            run_seed=None,
            seed=None,
            mode=self._origin.mode,
            promise=self._origin.promise,
            error=error_of_row(code, message),
        )

    def line(self, row: Row, answers: Sequence[Reply]) -> bytes:
        """One line: of one reply in our form, of all of a row's samples in OpenAI's."""
        keys = row_keys(row)
        if self._form == "openai":
            is_chat = row.asked is None or not self._is_raw(row.asked)
            return reply.json_line(openai_form.answer(keys, answers, self._token_text, is_chat=is_chat))
        (one,) = answers
        return reply.json_line({**reply.as_json(one, self._token_text), **keys})
