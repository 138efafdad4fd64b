"""What `infer run --continue` does in its worker process: as `infer run`, one more turn of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from infer_cli.answering.job import make_job
from infer_cli.cli.chat import resumed
from infer_cli.cli.run.asking import (
    begin_load,
    import_rest,
    read_prompt,
    sampling_of,
    show_settings,
    variables_of_template,
)
from infer_cli.cli.run.options import RunOptions, check
from infer_cli.cli.run.showing import status_of, stream_replies
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import wait_for
from infer_cli.conversation.next_turn import plan_next_turn
from infer_cli.errors import ExitStatus
from infer_cli.process.explain import explained
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.settings.origins import Given

if TYPE_CHECKING:
    from infer_cli.conversation.continuing import Continued
    from infer_cli.process.worker import Worker


def answer(values: Mapping[str, tuple[object, str]], worker: Worker) -> int:
    """As `infer run`, the next turn of the last conversation. Raises InferError."""
    options = check({name: Given(*value) for name, value in values.items()})
    notices = Notices(quiet=options.quiet, stats=options.stats)
    try:
        with explained(worker), closed_at_end():
            continued = resumed.conversation(None, notices.warn)
            return _answer(resumed.as_before(options, continued), continued, worker, notices)
    finally:
        notices.clear()


def _answer(options: RunOptions, continued: Continued, worker: Worker, notices: Notices) -> int:
    session = begin_load(options, worker)
    # While the model loads:
    given = read_prompt(options, notices)
    caches = not (options.no_cache or options.no_record)
    import_rest(recording=not options.no_record, caching=caches)
    wait_for(session, notices)
    sampling = sampling_of(options, session)
    turn = plan_next_turn(
        session,
        continued,
        given.text(given.attachments),
        session.chat_template(options.chat_template),
        system=options.system,
        variables=variables_of_template(options),
        overflow=options.overflow,
        max_tokens=options.max_tokens,
        deadline_s=options.deadline_s,
        warn=notices.warn,
    )
    conversation, plan = turn.conversation, turn.plan
    settings = (*options.settings, *sampling.settings)
    if options.show_params:
        show_settings(settings, notices)
    job = make_job(
        plan.prompt_ids,
        sampling,
        turn.reasoning,
        max_tokens=options.max_tokens,
        stop=options.stop,
        n_logprobs=options.n_logprobs,
        deadline_s=options.deadline_s,
        history=plan.past,
        truncation=plan.report,
    )
    running = session.start(conversation.window)
    prefixes = None
    if caches:
        from infer_cli.prefix_cache.warming import open_cache

        prefixes = open_cache(session, running, session.model.sha256, options.cache_bytes, notices.detail)
        prefixes.restore_talk(conversation.evaluated)
    replies, is_interrupted = stream_replies(job, running, session.loaded.vocab, options, notices)
    (reply,) = replies
    if not options.no_record and reply.error is None and reply.tokens:
        turn.keep(
            reply,
            session,
            running,
            stop=options.stop,
            settings=settings,
            loras=options.engine.loras,
            warn=notices.warn,
        )
    if is_interrupted:
        return ExitStatus.INTERRUPTED
    status = status_of(replies, session.model.name, notices)
    if prefixes is not None and status == ExitStatus.OK:
        prefixes.keep_talk(conversation.evaluated)
    return status
