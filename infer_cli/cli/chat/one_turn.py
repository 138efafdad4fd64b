"""What `infer run --continue` does in its worker process: as `infer run`, one more turn of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from infer_cli.answering.choosing import room_for
from infer_cli.cli.chat.resumed import as_before
from infer_cli.cli.run.asking import (
    begin_load,
    finish_load,
    job_of,
    open_prefixes,
    perform,
    read_prompt,
    sampling_of,
    settings_of,
    variables_of_template,
)
from infer_cli.cli.run.choosing import answer_turn
from infer_cli.cli.run.options import RunOptions
from infer_cli.cli.run.showing import status_of, stream_replies
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import switched, warn_of_unused
from infer_cli.conversation.continuing import find_conversation
from infer_cli.conversation.next_turn import plan_next_turn
from infer_cli.errors import ExitStatus

if TYPE_CHECKING:
    from infer_cli.process.worker import Worker


def answer(values: Mapping[str, tuple[object, str]], worker: Worker) -> int:
    """As `infer run`, the next turn of the last conversation. Raises InferError."""
    return perform(_answer, values, worker)


def _answer(options: RunOptions, worker: Worker, notices: Notices) -> int:
    kept = find_conversation(None, notices.warn)
    options = as_before(options, kept)
    session = begin_load(options, worker, notices)
    # While the model loads:
    given = read_prompt(options, notices)
    caches = not (options.no_cache or options.no_record)
    finish_load(session, notices, recording=not options.no_record, caching=caches)
    vocab = session.loaded.vocab
    max_tokens = room_for(options.choices, vocab) if options.choices else options.max_tokens
    template, variables = session.chat_template(options.chat_template), variables_of_template(options)
    warn_of_unused(template, variables, notices)
    variables |= switched(template, options.thinking.think, variables, notices)
    turn = plan_next_turn(
        session,
        kept,
        given.text(given.attachments),
        template,
        system=options.system,
        variables=variables,
        overflow=options.overflow,
        max_tokens=max_tokens,
        deadline_s=options.deadline_s,
        warn=notices.warn,
    )
    if options.choices:
        return answer_turn(options, session, turn, notices)
    sampling = sampling_of(options, session)
    conversation, plan = turn.conversation, turn.plan
    settings = settings_of(options, sampling, notices)
    job = job_of(options, sampling, plan.prompt_ids, turn.reasoning, vocab, plan.report, notices, plan.past)
    running = session.start(conversation.window)
    prefixes = open_prefixes(options, session, running, notices) if caches else None
    if prefixes is not None:
        prefixes.restore_conversation(conversation.evaluated)
    replies, is_interrupted = stream_replies(job, session, running, options, notices)
    (reply,) = replies
    if not options.no_record and reply.error is None and reply.tokens:
        turn.keep(reply, session, running, stop=options.stop, settings=settings, warn=notices.warn)
    if is_interrupted:
        return ExitStatus.INTERRUPTED
    status = status_of(replies, session.model.name, notices)
    if prefixes is not None and status == ExitStatus.OK:
        prefixes.keep_conversation(conversation.evaluated)
    return status
