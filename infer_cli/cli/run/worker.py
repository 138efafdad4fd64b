"""What `infer run` does in its worker process: model, prompt, engine, sink, exit code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from infer_cli.cli.run.asking import (
    begin_load,
    caches_files,
    import_rest,
    plan_of,
    read_prompt,
    sampling_of,
    show_settings,
)
from infer_cli.cli.run.options import RunOptions, check
from infer_cli.cli.run.showing import status_of, stream_replies
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import wait_for
from infer_cli.errors import ExitStatus
from infer_cli.process.explain import explained
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.settings.origins import Given

if TYPE_CHECKING:
    from infer_cli.process.worker import Worker


def answer(values: Mapping[str, tuple[object, str]], worker: Worker) -> int:
    """Answer one command line, given as (value, origin) by name; returns the exit code. Raises InferError."""
    options = check({name: Given(*value) for name, value in values.items()})
    notices = Notices(quiet=options.quiet, stats=options.stats)
    try:
        with explained(worker), closed_at_end():
            return _answer(options, worker, notices)
    finally:
        notices.clear()


def _answer(options: RunOptions, worker: Worker, notices: Notices) -> int:
    session = begin_load(options, worker)
    # While the model loads:
    given = read_prompt(options, notices)
    caches = caches_files(options, given)
    import_rest(recording=not options.no_record, caching=caches)
    wait_for(session, notices)

    from infer_cli.answering.job import make_job

    sampling = sampling_of(options, session)
    prompt = plan_of(options, session, given, notices)
    n_window = prompt.needed_window(options.max_tokens, session.loaded.n_ctx_train)
    settings = (*options.settings, *sampling.settings)
    if options.show_params:
        show_settings(settings, notices)
    job = make_job(
        prompt.ids,
        sampling,
        prompt.reasoning,
        max_tokens=options.max_tokens,
        n_samples=options.n_samples,
        stop=options.stop,
        n_logprobs=options.n_logprobs,
        deadline_s=options.deadline_s,
        truncation=prompt.fitted.report(),
    )
    running = session.start(n_window)
    prefixes = None
    if caches:
        from infer_cli.prefix_cache.warming import open_cache

        prefixes = open_cache(session, running, session.model.sha256, options.cache_bytes, notices.detail)
        prefixes.restore(job.prompt_ids)
    replies, is_interrupted = stream_replies(job, running, session.loaded.vocab, options, notices)
    if not options.no_record:
        from infer_cli.records.answers import keep_answers

        if options.private:
            notices.note("private: the record holds hashes only, so it cannot be replayed")
        keep_answers(
            replies,
            job,
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
    if prefixes is not None and status == ExitStatus.OK:
        from infer_cli.prefix_cache.warming import keep_files

        keep_files(prefixes, prompt, replies[0].model.sha256, notices.detail)
    return status
