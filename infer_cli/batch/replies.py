"""Replies of rows: from the engine's last word on a request to a line of the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infer_cli.answering import openai_form, reply
from infer_cli.answering.reply_text import whole_text
from infer_cli.batch.job import OutputFormat
from infer_cli.batch.preparing import PreparedRow
from infer_cli.batch.rows import Row
from infer_cli.errors import ExitStatus
from infer_cli.text.reasoning import TagPair
from infer_cli.types import Finished, Mode, Promise, Provenance, Reply, ReplyError

_MAX_MESSAGE = 1000  # characters


@dataclass(frozen=True)
class Origin:
    """What all replies of a job have in common."""

    job_id: str
    mode: Mode
    promise: Promise
    came_from: Provenance


def reply_of(
    origin: Origin, asked: PreparedRow, sample: int, end: Finished, pairs: Sequence[TagPair]
) -> Reply:
    """The reply to a row. One that a deadline cut is an error: its tokens are kept, its text is not."""
    text = whole_text(end.text, pairs, asked.open_reasoning)
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
        reply_id=_id(origin, asked.row, sample, asked.n_samples),
        custom_id=asked.row.custom_id,
        sample=sample,
        text=None if error else text.answer,
        reasoning=text.reasoning,
        params=asked.params,
        run_seed=asked.run_seed,
        seed=asked.seed(sample),
        mode=origin.mode,
        promise=origin.promise,
        truncation=asked.truncation,
        error=error,
    )


def failure(origin: Origin, row: Row, sample: int, code: int, message: str) -> Reply:
    """An error row: nothing was computed for it. What a message quotes of the row may be long: it is cut."""
    if len(message) > _MAX_MESSAGE:
        message = message[: _MAX_MESSAGE - 1] + "…"
    return reply.reply_of(
        reply.NOTHING_COMPUTED,
        origin.came_from,
        reply_id=_id(origin, row, sample, 1 if sample == 0 else 2),
        custom_id=row.custom_id,
        sample=sample,
        text=None,
        params={},
        run_seed=None,
        seed=None,
        mode=origin.mode,
        promise=origin.promise,
        error={"code": code, "message": message},
    )


def line_of(
    row: Row,
    replies: Sequence[Reply],
    form: OutputFormat,
    token_text: Callable[[int], bytes],
    *,
    is_chat: bool,
) -> bytes:
    """One line of output: of one reply in our form, of all of a row's samples in OpenAI's."""
    keys: dict[str, object] = {"row": row.index, "row_sha256": row.sha256}
    if form == "openai":
        return reply.json_line(openai_form.answer(keys, replies, token_text, is_chat=is_chat))
    (one,) = replies
    return reply.json_line({**reply.as_json(one, token_text), **keys})


def _id(origin: Origin, row: Row, sample: int, n_samples: int) -> str:
    return f"{origin.job_id}-{row.index}" + (f"-{sample}" if n_samples > 1 else "")
