"""A first pass over the input: how much there is, what it needs, and whether rows are as they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from infer_cli.batch.kind import RowPreparer
from infer_cli.batch.late_template import NoTemplate
from infer_cli.batch.output_index import OutputIndex
from infer_cli.batch.request import JobRequest
from infer_cli.batch.rows import Row
from infer_cli.errors import ExitStatus, InferError
from infer_cli.system.hashing import sha256_hex

_PIECE = 64  # tokens
_SHARE = 4
_LEAST_READ = 4096  # tokens; to expand and to measure takes as long as to read some 1,000
_READ_SHARE = 2


@dataclass
class Scan:
    """`n_rows` and `rows_sha256` are of the whole input, everything else of this shard's rows."""

    n_rows: int = 0
    rows_sha256: str = ""
    n_mine: int = 0
    n_replies: int = 0
    n_window: int = 0  # the largest row's prompt and reply, tokens
    n_score_window: int = 0  # the largest row's tokens of which likelihoods are asked
    n_prompt_tokens: int = 0  # of the rows that are still to be answered
    n_distinct_tokens: int = 0  # of these, without beginnings that an earlier row has too, in whole pieces
    n_reply_tokens: int = 0  # of their replies at most
    n_longest_reply: int = 0  # tokens, at most
    n_to_answer: int = 0  # replies
    n_truncated: int = 0  # rows whose prompts are cut
    sampled: bool = False  # any row
    failures: dict[int, int] = field(default_factory=dict)  # rows that can't be answered, by exit code
    changed: list[int] = field(default_factory=list)  # rows that were answered when they said something else

    def failing(self) -> dict[str, float]:
        """Rows that can't be answered, and those of them that do not fit."""
        return {
            "failing": sum(self.failures.values()),
            "does_not_fit": self.failures.get(ExitStatus.DOES_NOT_FIT, 0),
        }

    @property
    def mostly_shared(self) -> bool:
        """Whether one memory for all pays (`ModePolicy.kv_unified`): what prompts begin alike with is by far
        more than all else that they and their replies hold.

        It lets short prompts be read together, but each step passes over what the others hold alone. GSM8K
        questions behind six examples (a share of 6) were answered 1.15 times as fast, behind four (4) 1.02
        times, behind two (2) 0.96 times.
        """
        n_shared = self.n_prompt_tokens - self.n_distinct_tokens
        return n_shared > _SHARE * (self.n_distinct_tokens + self.n_reply_tokens)

    @property
    def mostly_read(self) -> bool:
        """Whether weights of another type pay (`loading.EngineOptions.expand`): prompts are by far most of
        the work.

        As F16 a prompt is read 2.3 times as fast, but 16 replies go on 1.5 times, and one alone 0.8 times.
        Where replies are a larger part `fast` keeps the weights of `canonical`, which is to cost little more.
        """
        return self.n_distinct_tokens >= max(_LEAST_READ, _READ_SHARE * self.n_reply_tokens)


def scan(
    request: JobRequest,
    preparer: RowPreparer[Any],
    answered: OutputIndex,
    on_row: Callable[[int], None],
    on_failure: Callable[[int, InferError], None],
    *,
    count_distinct: bool,
) -> Scan:
    """Read all rows; those of this shard that are not answered yet are prepared too.

    `on_row` is told how many rows were read, `on_failure` of a row that can't be answered. Raises UsageError
    where the input can't be read, or rows need a chat template and there is none.
    """

    def pass_over(answered: OutputIndex) -> Scan:
        return _pass_over(request, preparer, answered, on_row, on_failure, count_distinct=count_distinct)

    try:
        found = pass_over(answered)
        if request.redo and answered.rows:  # all of them may go
            whole = pass_over(OutputIndex())
            found = replace(found, n_window=whole.n_window, n_score_window=whole.n_score_window)
        return found
    except NoTemplate as e:
        raise e.error from None


def _pass_over(
    request: JobRequest,
    preparer: RowPreparer[Any],
    answered: OutputIndex,
    on_row: Callable[[int], None],
    on_failure: Callable[[int, InferError], None],
    *,
    count_distinct: bool,
) -> Scan:
    found = Scan(sampled=preparer.is_sampling)
    beginnings: set[int] = set()
    for row in request.input.rows():
        found.n_rows += 1
        on_row(found.n_rows)
        found.rows_sha256 = sha256_hex(f"{found.rows_sha256}{row.sha256}".encode())
        if not request.shard.has(row.index):
            continue
        found.n_mine += 1
        before = answered.rows.get(row.index)
        if before is not None and before.row_sha256 != row.sha256:
            found.changed.append(row.index)
            before = None
        if before is not None and _has_one_sample(row, request.n_samples):
            found.n_replies += 1
            continue
        try:
            asked = preparer.prepare(row)
        except InferError as e:
            found.n_replies += 1
            found.failures[e.exit_status] = found.failures.get(e.exit_status, 0) + 1
            on_failure(row.index, e)
            continue
        found.n_replies += asked.n_samples
        found.n_window = max(found.n_window, asked.n_window)
        found.n_score_window = max(found.n_score_window, asked.n_score_window)
        found.n_prompt_tokens += len(asked.prompt_ids)
        n_reply = max(0, asked.n_window - len(asked.prompt_ids))
        found.n_reply_tokens += n_reply * asked.n_samples
        found.n_longest_reply = max(found.n_longest_reply, n_reply)
        found.n_to_answer += asked.n_samples
        found.n_truncated += bool(asked.n_dropped)
        if count_distinct:
            found.n_distinct_tokens += _distinct(asked.prompt_ids, beginnings)
        found.sampled = found.sampled or asked.is_sampled
    found.changed += [index for index in answered.rows if index >= found.n_rows]
    return found


def _distinct(ids: Sequence[int], seen: set[int]) -> int:
    """Tokens behind the longest beginning that was seen, counted in pieces of `_PIECE`; adds this one's.

    Of each beginning only a 64-bit hash is kept.
    """
    n_shared, beginning = 0, 0
    for end in range(_PIECE, len(ids) + 1, _PIECE):
        beginning = hash((beginning, *ids[end - _PIECE : end]))
        if beginning in seen:
            n_shared = end
        seen.add(beginning)
    return len(ids) - n_shared


def _has_one_sample(row: Row, n_samples: int) -> bool:
    return n_samples == 1 and (row.asked is None or "samples" not in row.asked.values)
