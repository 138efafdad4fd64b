"""Streams the replies to one prompt, and says how they ended."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from infer_cli.answering.reply import failure_of, reasoning_cut_in_words
from infer_cli.cli.run.options import RunOptions
from infer_cli.cli.screen.keyboard import unechoed
from infer_cli.cli.screen.terminal import Notices, stats_line
from infer_cli.cli.screen.waiting import StatusSink
from infer_cli.errors import ExitStatus
from infer_cli.process.stream_filter import styled
from infer_cli.types import Reply

if TYPE_CHECKING:
    from infer_cli.answering.choosing import Question
    from infer_cli.answering.job import Job
    from infer_cli.answering.sink import Sink
    from infer_cli.backend.base import Vocab
    from infer_cli.runtime.running_engine import RunningEngine
    from infer_cli.runtime.session import Session

INTERRUPT_GRACE_S = 0.12  # for a cancelled reply to end by itself; then the process is left


class _Shot(Protocol):
    """What asks the engine, once, and hands what comes to a sink."""

    def run(self) -> list[Reply]: ...

    def cancel(self) -> None:
        """Safe in a signal handler."""


def stream_replies(
    job: Job, session: Session, running: RunningEngine, options: RunOptions, notices: Notices
) -> tuple[list[Reply], bool]:
    """The replies, when all have ended and were shown; and whether they were interrupted."""
    from infer_cli.answering.oneshot import OneShot
    from infer_cli.runtime.long_prompt import PromptReader

    vocab, reader = session.loaded.vocab, PromptReader(session, running, notices)
    return _stream(lambda sink: OneShot(job, running, vocab, sink, reader), vocab, options, notices)


def show_choice(
    question: Question, running: RunningEngine, vocab: Vocab, options: RunOptions, notices: Notices
) -> tuple[list[Reply], bool]:
    """The one reply, when it was shown; and whether it was interrupted."""
    from infer_cli.answering.one_question import OneQuestion

    return _stream(lambda sink: OneQuestion(question, running, sink), vocab, options, notices)


def _stream(
    shot_into: Callable[[Sink], _Shot], vocab: Vocab, options: RunOptions, notices: Notices
) -> tuple[list[Reply], bool]:
    from infer_cli.process.worker import on_interrupt

    sink = StatusSink(_sink(options, vocab), notices)
    shot = shot_into(sink)
    interrupted = threading.Event()

    def interrupt(_signal_name: str) -> None:
        interrupted.set()
        shot.cancel()
        # The engine aborts its decode call at once, except on a GPU: then the process is left as it is.
        timer = threading.Timer(INTERRUPT_GRACE_S, os._exit, [int(ExitStatus.INTERRUPTED)])
        timer.daemon = True
        timer.start()

    on_interrupt(interrupt)
    with unechoed() if sys.stdout.isatty() else contextlib.nullcontext():
        try:
            replies = shot.run()
        finally:
            sink.close()
    return replies, interrupted.is_set()


def _sink(options: RunOptions, vocab: Vocab) -> Sink:
    n, out = options.n_samples, sys.stdout.buffer
    if options.format != "text":
        from infer_cli.sinks.jsonl import JsonlSink, JsonSink

        if options.format == "json":
            return JsonSink(out, vocab.token_text)
        return JsonlSink(out, vocab.token_text, n_samples=n)
    is_terminal = sys.stdout.isatty()
    reasoning = options.reasoning or ("show" if is_terminal else "hide")
    is_text = options.raw or bool(options.choices)
    rendered = options.markdown or (is_terminal and os.environ.get("TERM") != "dumb" and not is_text)
    if rendered and not options.plain:
        from infer_cli.sinks.markdown import MarkdownSink

        return MarkdownSink(styled(sys.stdout), reasoning=reasoning, n_samples=n, live=is_terminal)
    from infer_cli.sinks.plain import PlainSink

    return PlainSink(out, raw=options.raw, sanitize=is_terminal, reasoning=reasoning, n_samples=n)


def status_of(replies: Sequence[Reply], model: str, notices: Notices) -> ExitStatus:
    """The exit code, and what there is to say of the replies. Raises InferError where one failed."""
    status = ExitStatus.OK
    for reply in replies:
        notices.statistics(f"[{stats_line(reply, model)}]")
        if reply.error is not None:
            raise failure_of(reply, model)
        if reply.finish_reason == "deadline":
            status = ExitStatus.DEADLINE
        if reply.reasoning_cut:
            notices.warn(reasoning_cut_in_words(reply))
        elif reply.finish_reason == "deadline":
            notices.warn(f"the deadline ended the reply after {len(reply.tokens)} tokens")
        elif reply.finish_reason == "context":
            notices.warn("the window is full: the reply ends here")
    return status
