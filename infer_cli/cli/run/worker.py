"""What `infer run` does in its worker process: model, prompt, engine, sink, exit code."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from infer_cli.answering.reply import failure_of
from infer_cli.cli.run.options import RunOptions, check
from infer_cli.cli.screen.keyboard import unechoed
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices, settings_table
from infer_cli.cli.screen.waiting import StatusSink, wait_for
from infer_cli.errors import ExitStatus, InferError, UsageError
from infer_cli.models.installed import FAKE
from infer_cli.process.explain import explained
from infer_cli.process.stream_filter import styled
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.prompt.template import template_variables
from infer_cli.prompt.vouched import begin_for
from infer_cli.runtime.session import Session
from infer_cli.settings.defaults import FIT_RESERVE, MIN_PREFIX
from infer_cli.settings.origins import Given, Setting
from infer_cli.settings.sampling import effective_params, resolve_sampling
from infer_cli.settings.seeds import draw_seed
from infer_cli.system.files import read_bytes, read_stdin
from infer_cli.system.ids import new_id
from infer_cli.types import Message, Reply

if TYPE_CHECKING:
    from infer_cli.answering.job import Job
    from infer_cli.answering.sink import Sink
    from infer_cli.backend.base import Vocab
    from infer_cli.prefix_cache.cache import PrefixCache
    from infer_cli.process.worker import Worker
    from infer_cli.prompt.attachments import Attachment
    from infer_cli.prompt.encode import EncodedPrompt
    from infer_cli.prompt.fitting import Fitted
    from infer_cli.prompt.input import RunInput
    from infer_cli.prompt.template import ChatTemplate
    from infer_cli.runtime.running import Running

INTERRUPT_GRACE_S = 0.12  # for a cancelled reply to end by itself; then the process is left


def answer(values: Mapping[str, tuple[object, str]], worker: Worker) -> int:
    """Answer one command line, given as (value, origin) by name; returns the exit code. Raises InferError."""
    options = check({name: Given(*value) for name, value in values.items()})
    notices = Notices(quiet=options.quiet, stats=options.stats)
    try:
        with explained(worker), closed_at_end():
            return Run(options, worker, notices).answer()
    finally:
        notices.clear()


class Run:
    """One command line on its way to its answer."""

    def __init__(self, options: RunOptions, worker: Worker, notices: Notices) -> None:
        self._options, self._worker, self._notices = options, worker, notices
        self._tools: list[dict[str, object]] | None = None

    def answer(self) -> int:
        return self._stream(*self.prepare())

    def prepare(self) -> tuple[Session, Job]:
        """Load the model, and read and encode the prompt meanwhile. Raises InferError."""
        options = self._options
        model = find_model(options.model, offline=options.offline, quiet=options.quiet)
        session = Session(model, options.engine, options.n_samples, self._worker.native_fd)
        if not options.raw:
            begin_for(None if options.chat_template else session.own_template)
        # While the model loads:
        given = self._input()
        _import_rest(recording=not options.no_record, caching=self._caches)
        wait_for(session, self._notices)
        return session, self._job(session, given)

    # --- the prompt ----------------------------------------------------------------------------

    def _input(self) -> RunInput:
        """All parts of the prompt, read."""
        from infer_cli.prompt.input import RunInput
        from infer_cli.prompt.messages import build_messages, parse_messages, parse_tools

        options = self._options
        stdin_named = "-" in (*options.files, options.messages, options.tools)
        attachments = [
            _attachment("stdin" if name == "-" else name, read_bytes(name)) for name in options.files
        ]
        if not stdin_named and (piped := self._piped_stdin()) is not None:
            item = _attachment("stdin", piped)
            if options.raw or item.text.strip("\r\n"):  # else nothing was piped
                attachments.append(item)
        history: list[Message] = []
        if options.tools is not None:
            self._tools = parse_tools(read_bytes(options.tools))
        if options.messages is not None:
            history = parse_messages(read_bytes(options.messages))
        fill = None
        if options.prompt_template is not None:
            from infer_cli.prompt import stored as promptlib

            fill = partial(promptlib.load(options.prompt_template).render, options.variables)
        tagged = not options.raw and self._tags(attachments)
        given = RunInput((), tuple(attachments), options.words, options.raw, tagged, fill)
        if not options.raw:
            text = given.text(attachments)
            messages = build_messages(options.system, args=(text,), history=history)
            given = replace(given, messages=tuple(messages[:-1] if text.strip() else messages))
        self._given = given
        return given

    def _tags(self, attachments: Sequence[Attachment]) -> bool:
        """Whether names of attachments are said."""
        from infer_cli.prompt.attachments import are_several

        return are_several(attachments, " ".join(self._options.words))

    def _piped_stdin(self) -> bytes | None:
        """What is piped or redirected in; None for a terminal, /dev/null or no stdin at all."""
        if sys.stdin is None or sys.stdin.isatty():
            return None
        mode = os.fstat(sys.stdin.fileno()).st_mode
        if stat.S_ISCHR(mode):
            return None
        if not stat.S_ISREG(mode):
            self._notices.status("reading stdin")
        try:
            return read_stdin()
        finally:
            self._notices.clear()

    def _encoder(
        self, session: Session, vocab: Vocab, given: RunInput
    ) -> tuple[ChatTemplate | None, Callable[[Sequence[Message], Sequence[Attachment]], EncodedPrompt]]:
        """The template, and what makes token ids of messages and attachments that are kept."""
        from infer_cli.prompt.encode import EncodedPrompt, encode_prompt, encode_raw

        options = self._options
        template = None
        if not given.raw:
            template = session.chat_template(options.chat_template).within(options.deadline_s)
        variables = {} if options.prompt_template else template_variables(options.variables)

        def encode(messages: Sequence[Message], attachments: Sequence[Attachment]) -> EncodedPrompt:
            built = given.built(messages, attachments)
            if template is None:
                assert isinstance(built, str)
                ids = encode_raw(built, vocab, parse_special=options.parse_special)
                return EncodedPrompt(ids, built, None)
            assert not isinstance(built, str)
            return encode_prompt(template, built, vocab, variables=variables, tools=self._tools)

        return template, encode

    def _encode(
        self, session: Session, vocab: Vocab, given: RunInput
    ) -> tuple[EncodedPrompt, ChatTemplate | None, Fitted]:
        """The prompt, and what of the input is in it."""
        from infer_cli.prompt.fitting import fit_encoded

        options = self._options
        template, encode = self._encoder(session, vocab, given)
        reserve = min(options.max_tokens, FIT_RESERVE)
        assert options.overflow != "summarize"
        encoded, fitted = fit_encoded(
            given.messages,
            given.attachments,
            encode,
            window=session.loaded.window,
            reserve=reserve,
            policy=options.overflow,
            answers_last=not given.has_text,
        )
        self._fitted = fitted
        if options.show_context:
            self._show_context(encoded, fitted, given, vocab, session.loaded.window, reserve)
        if fitted.dropped:
            self._notices.warn(f"--overflow {fitted.policy}: {fitted.told()}")
        return encoded, template, fitted

    def _show_context(
        self,
        encoded: EncodedPrompt,
        fitted: Fitted,
        given: RunInput,
        vocab: Vocab,
        window: int,
        reserve: int,
    ) -> None:
        from infer_cli.cli.screen.context_view import show_budget
        from infer_cli.prompt.budget import budget_of

        parts = given.parts(
            fitted.messages, fitted.attachments, lambda text: len(vocab.tokenize(text.encode()))
        )
        rest = "separators" if given.raw else "chat template"
        budget = budget_of(len(encoded.ids), parts, window=window, reserve=reserve, rest=rest)
        self._notices.clear()
        show_budget(budget, fitted.report(), as_json=self._options.format != "text")

    # --- the reply -----------------------------------------------------------------------------

    def _job(self, session: Session, given: RunInput) -> Job:
        from infer_cli.answering.job import Job
        from infer_cli.prompt.encode import tag_tokens
        from infer_cli.prompt.fitting import needed_window
        from infer_cli.text.reasoning import pairs_of

        options = self._options
        sampling, settings = resolve_sampling(options.sampling, *session.recommended, default_temperature="0")
        if sampling.greedy and options.n_samples > 1:
            raise UsageError("--samples above 1 needs sampling: greedy replies would all be the same")
        run_seed = None
        if not sampling.greedy:
            seed = options.seed or Given(draw_seed(), "drawn")
            settings.append(Setting("seed", *seed))
            run_seed = int(str(seed.value))
        self._settings = [*options.settings, *settings]
        vocab = session.loaded.vocab
        encoded, template, fitted = self._encode(session, vocab, given)
        messages = given.built(fitted.messages, fitted.attachments)
        self._prompt_text, self._template_sha256 = encoded.text, template.sha256 if template else None
        self._asked = None if isinstance(messages, str) else messages
        if not encoded.ids:
            raise UsageError("the prompt is empty", "give it as an argument, with -f FILE, or on stdin")
        self._n_window = needed_window(
            len(encoded.ids), options.max_tokens, session.loaded.window, session.loaded.n_ctx_train
        )
        if options.show_params:
            self._notices.clear()
            print(settings_table(self._settings), file=sys.stderr)
        pairs = pairs_of(template.source) if template is not None else ()
        return Job(
            id=new_id(),
            prompt_ids=encoded.ids,
            sampling=sampling,
            params=effective_params(sampling, options.max_tokens, options.stop),
            max_tokens=options.max_tokens,
            run_seed=run_seed,
            n_samples=options.n_samples,
            stop=options.stop,
            n_logprobs=options.n_logprobs,
            deadline_s=options.deadline_s,
            reasoning_pairs=pairs,
            open_reasoning=encoded.open_reasoning,
            tag_tokens=tag_tokens(vocab, pairs) if pairs else {},
            truncation=fitted.report(),
        )

    def _stream(self, session: Session, job: Job) -> int:
        from infer_cli.answering.oneshot import OneShot
        from infer_cli.process.worker import on_interrupt

        running = session.start(self._n_window)
        sink = StatusSink(self._sink(job), self._notices)
        shot = OneShot(job, running, session.loaded.vocab, sink)
        prefixes = self._prefixes(session, running, session.model.sha256)
        if prefixes is not None:
            self._restore(prefixes, job)
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
        self._record(replies, session, running, job)
        if interrupted.is_set():
            return ExitStatus.INTERRUPTED
        status = self._finish(replies, session.model.name)
        if prefixes is not None and status == ExitStatus.OK:
            self._keep(prefixes, session, job, replies[0])
        return status

    # --- the prefix cache ----------------------------------------------------------------------

    @property
    def _caches(self) -> bool:
        """Whether files and stdin may be worth keeping: a token is at least one character."""
        options = self._options
        if options.no_cache or options.private or options.no_record:
            return False
        return sum(len(item.text) for item in self._given.attachments) >= MIN_PREFIX

    def _prefixes(self, session: Session, running: Running, sha256: str | None) -> PrefixCache | None:
        if not self._caches:
            return None
        name, sha256 = (FAKE, FAKE) if session.model.is_fake else (session.model.name, sha256)
        from infer_cli.prefix_cache.cache import PrefixCache
        from infer_cli.prefix_cache.store import PrefixStore

        store = PrefixStore(most_bytes=self._options.cache_bytes)
        return PrefixCache(running, store, name, sha256, self._notices.detail)

    def _restore(self, prefixes: PrefixCache, job: Job) -> None:
        prefixes.restore(job.prompt_ids)

    def n_shared(self, session: Session, ids: tuple[int, ...]) -> int:
        """Tokens that the prompt would begin with whatever was asked about its files. Raises InferError."""
        from infer_cli.text.common_prefix import n_same

        other = replace(self._given, words=() if self._options.words else ("?",))
        encode = self._encoder(session, session.loaded.vocab, other)[1]
        return n_same(ids, encode(self._fitted.messages, self._fitted.attachments).ids)

    def _keep(self, prefixes: PrefixCache, session: Session, job: Job, reply: Reply) -> None:
        """Keep what was evaluated of the files. The answer is out: a failure concerns `--stats` alone."""
        if not prefixes.worth_keeping(job.prompt_ids):
            return
        if reply.model.sha256 is not None:  # of a model never seen before, it has been hashed meanwhile
            prefixes.model_sha256 = reply.model.sha256
        from infer_cli.prefix_cache.cache import reason

        try:
            kept = prefixes.keep(job.prompt_ids, self.n_shared(session, job.prompt_ids))
        except (InferError, OSError, ValueError, MemoryError) as e:
            self._notices.detail(f"prefix cache: nothing kept: {reason(e)}")
        else:
            if kept is not None and kept.written:
                self._notices.detail(f"prefix cache: kept {kept}")

    def _record(self, replies: list[Reply], session: Session, running: Running, job: Job) -> None:
        """Keep what was answered. The answer is out; a failure is a warning."""
        options = self._options
        if options.no_record:
            return
        from infer_cli.records.record import adapters_of, record_of
        from infer_cli.records.store import keep

        if options.private:
            self._notices.note("private: the record holds hashes only, so it cannot be replayed")
        records = (
            record_of(
                reply,
                prompt_ids=job.prompt_ids,
                prompt_text=self._prompt_text,
                messages=self._asked,
                model_path=None if session.model.is_fake else session.model.path,
                template_sha256=self._template_sha256,
                settings=self._settings,
                width=running.policy.width,
                n_ctx=self._n_window,
                adapters=adapters_of(options.engine.loras),
                reasoning_pairs=job.reasoning_pairs,
                open_reasoning=job.open_reasoning,
                private=options.private,
            )
            for reply in replies
        )
        keep(records, self._notices.warn)

    def _sink(self, job: Job) -> Sink:
        options, n = self._options, job.n_samples
        out: BinaryIO = sys.stdout.buffer
        if options.format != "text":
            from infer_cli.sinks.jsonl import JsonlSink, JsonSink

            return JsonSink(out) if options.format == "json" else JsonlSink(out, n_samples=n)
        is_terminal = sys.stdout.isatty()
        reasoning = options.reasoning or ("show" if is_terminal else "hide")
        rendered = options.markdown or (is_terminal and os.environ.get("TERM") != "dumb" and not options.raw)
        if rendered and not options.plain:
            from infer_cli.sinks.markdown import MarkdownSink

            return MarkdownSink(styled(sys.stdout), reasoning=reasoning, n_samples=n, live=is_terminal)
        from infer_cli.sinks.plain import PlainSink

        return PlainSink(out, raw=options.raw, sanitize=is_terminal, reasoning=reasoning, n_samples=n)

    def _finish(self, replies: list[Reply], name: str) -> int:
        status = ExitStatus.OK
        for reply in replies:
            self._notices.statistics(reply, name)
            if reply.error is not None:
                raise failure_of(reply, name)
            if reply.finish_reason == "deadline":
                self._notices.warn(f"the deadline ended the reply after {len(reply.tokens)} tokens")
                status = ExitStatus.DEADLINE
            elif reply.finish_reason == "context":
                self._notices.warn("the window is full: the reply ends here")
        return status


def _attachment(name: str, data: bytes) -> Attachment:
    """Raises UsageError for what is not text."""
    from infer_cli.prompt.attachments import Attachment
    from infer_cli.prompt.messages import decode_input

    return Attachment(name, decode_input(data, name))


def _import_rest(*, recording: bool, caching: bool) -> None:
    """Import what is needed later. The load has begun and holds no Python lock."""
    import infer_cli.answering.oneshot
    import infer_cli.backend.llama
    import infer_cli.runtime.fingerprint

    if recording:
        import infer_cli.records.store
    if caching:
        import infer_cli.prefix_cache.cache  # noqa: F401
