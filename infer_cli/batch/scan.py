"""A first pass over the input: how much there is, what it needs, and whether rows are as they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from infer_cli.batch.kind import RowPreparer
from infer_cli.batch.late_template import NoTemplate
from infer_cli.batch.output_index import OutputIndex
from infer_cli.batch.request import JobRequest
from infer_cli.batch.rows import Row
from infer_cli.batch.scanned import Scan
from infer_cli.errors import InferError
from infer_cli.system.hashing import sha256_hex

_PIECE = 64  # tokens


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
