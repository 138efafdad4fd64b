"""What `infer run` does in its worker process: model, prompt, engine, sink, exit code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from infer_cli.cli.run.asking import (
    begin_load,
    caches_files,
    finish_load,
    job_of,
    open_prefixes,
    perform,
    plan_of,
    read_prompt,
    sampling_of,
    settings_of,
)
from infer_cli.cli.run.options import RunOptions
from infer_cli.cli.run.showing import status_of, stream_replies
from infer_cli.cli.screen.suggesting import suggest_once
from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import ExitStatus

if TYPE_CHECKING:
    from infer_cli.process.worker import Worker


def answer(values: Mapping[str, tuple[object, str]], worker: Worker) -> int:
    """Answer one command line, given as (value, origin) by name; returns the exit code. Raises InferError."""
    return perform(_answer, values, worker)


def _answer(options: RunOptions, worker: Worker, notices: Notices) -> int:
    session = begin_load(options, worker, notices)
    # While the model loads:
    given = read_prompt(options, notices)
    if options.choices:
        from infer_cli.cli.run.choosing import answer_choice

        return answer_choice(options, session, given, notices)
    caches = caches_files(options, given)
    finish_load(session, notices, recording=not options.no_record, caching=caches)
    sampling = sampling_of(options, session)
    prompt = plan_of(options, session, given, notices)
    n_window = prompt.needed_window(options.max_tokens, session.loaded.n_ctx_train)
    settings = settings_of(options, sampling, notices)
    vocab = session.loaded.vocab
    job = job_of(options, sampling, prompt.ids, prompt.reasoning, vocab, prompt.fitted.report(), notices)
    running = session.start(n_window)
    prefixes = open_prefixes(options, session, running, notices) if caches else None
    if prefixes is not None:
        prefixes.restore(job.prompt_ids)
    replies, is_interrupted = stream_replies(job, session, running, options, notices)
    if not options.no_record:
        from infer_cli.records.answers import keep_answers

        if options.private:
            notices.note("private: the record holds hashes only, so it cannot be replayed")
        keep_answers(
            replies,
            job.prompt_ids,
            prompt,
            session,
            running,
            n_window=n_window,
            settings=settings,
            private=options.private,
            warn=notices.warn,
        )
    if is_interrupted:
        return ExitStatus.INTERRUPTED
    status = status_of(replies, session.model.name, notices)
    if options.format == "text" and status == ExitStatus.OK:
        suggest_once(session.model.name, replies[0].timings.decode_tps, notices, quiet=options.quiet)
    if prefixes is not None and status == ExitStatus.OK:
        from infer_cli.prefix_cache.warming import keep_files

        keep_files(prefixes, prompt, replies[0].model.sha256, notices.detail)
    return status
