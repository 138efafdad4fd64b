"""What Python programs use: a model that answers requests in the program's own process.

It prints nothing, sets no signal handler and does not fork. The one process that it starts renders chat
templates. A crash of llama.cpp ends the program; `infer` is a program of its own, which survives it.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import count
from types import TracebackType
from typing import get_args
from weakref import WeakSet

from infer_cli.answering.feed import Feed
from infer_cli.answering.job import Job
from infer_cli.answering.job_reply import reply_to
from infer_cli.answering.reply import NOTHING_COMPUTED, as_json, reply_of
from infer_cli.answering.reply_text import ReplyText, whole_text
from infer_cli.answering.request import Request, RequestPreparer
from infer_cli.batch.job import MAX_WIDTH
from infer_cli.batch.rows import key_of_id
from infer_cli.engine.service import Stream
from infer_cli.errors import ContextOverflow, InferError, UnexpectedFailure, UsageError
from infer_cli.models.installed import InstalledModel, fake_model, is_fake
from infer_cli.models.store import resolve
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.runtime.session import Session
from infer_cli.settings.defaults import MAX_TOKENS, MOST_TOKENS
from infer_cli.settings.seeds import check_seed, row_seed
from infer_cli.system.processors import MAX_THREADS, default_threads
from infer_cli.types import (
    Delta,
    EngineRequest,
    Event,
    Finished,
    Message,
    Mode,
    Promise,
    Reply,
    SamplingParams,
    Token,
)

__all__ = [
    "Delta",
    "InferError",
    "Message",
    "Model",
    "Reply",
    "ReplyStream",
    "Request",
    "SamplingParams",
    "as_json",
]

WINDOW = 4096  # tokens of each slot, where nothing else is asked for


class Model:
    """A loaded model. Its methods may be called from several threads. Close it, or use it in a `with`.

    What is wrong with a request is its reply's `error`. Raised are UsageError where the model is closed or
    belongs to the process that this one is a fork of, and UnexpectedFailure where the engine has stopped.
    """

    def __init__(self, session: Session, window: int = WINDOW, chat_template: str | None = None) -> None:
        """Waits for the session's load and starts its engine; `Model.open` makes the session too."""
        self._session = session
        self._window = min(window, session.loaded.window)
        given = None if chat_template is None else session.chat_template(chat_template)
        self._preparer = RequestPreparer(session, lambda: given or session.chat_template(None))
        self._running = session.start(self._window)
        self._using = threading.Lock()  # the model in memory, beside the engine
        self._is_closed = False
        self._owner = os.getpid()
        self._n = count()
        _open_models().add(self)

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        mode: Mode = "canonical",
        width: int = 1,
        window: int = WINDOW,
        threads: int | None = None,
        gpu_layers: int | str = "auto",
        chat_template: str | os.PathLike[str] | None = None,
        download: bool = False,
    ) -> Model:
        """Load a model by name, path or source; None is the default one. It is fetched only with `download`.

        `width` replies are computed side by side, each with room for `window` tokens of prompt and reply.
        `threads` None: one for each physical core. `gpu_layers`: auto, all or a number. `chat_template` is
        a file that takes the place of the model's own.

        Raises InferError: ModelNotFound, ModelInvalid, OutOfMemory, SourceUnreachable, UsageError.
        """
        if mode not in get_args(Mode):
            raise UsageError(f"mode {mode!r} is not one of {', '.join(get_args(Mode))}")
        _check("width", width, MAX_WIDTH)
        _check("window", window, MOST_TOKENS)
        n_threads = default_threads() if threads is None else threads
        _check("threads", n_threads, MAX_THREADS)
        options = EngineOptions(threads=n_threads, mode=mode, gpu_layers=str(gpu_layers))
        options.check()
        found = _find(None if model is None else os.fspath(model), download=download)
        session = Session(found, options, width, _null_device())
        session.wait()
        try:
            return cls(session, window, None if chat_template is None else os.fspath(chat_template))
        except BaseException:
            session.close()
            raise

    # --- what it is ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._session.model.name

    @property
    def mode(self) -> Mode:
        return self._running.policy.mode

    @property
    def promise(self) -> Promise:
        """What is kept of the mode's promise with this model on this machine."""
        return self._running.policy.promise

    @property
    def width(self) -> int:
        """Replies that are computed side by side. `canonical` takes the next width that keeps its promise."""
        return self._running.policy.width

    @property
    def window(self) -> int:
        """Tokens that a prompt and its reply may fill together."""
        return self._window

    # --- asking --------------------------------------------------------------------------------

    def reply(
        self,
        messages: str | Sequence[Message] = (),
        *,
        prompt: str | None = None,
        max_tokens: int = MAX_TOKENS,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        logprobs: int | None = None,
        deadline_s: float | None = None,
        **sampling: float | str,
    ) -> Reply:
        """The reply to one request, whose fields these are. `sampling`: its sampling parameters, by name."""
        request = Request(messages, prompt, sampling, max_tokens, stop, seed, logprobs, deadline_s)
        return self.submit(request).reply()

    def submit(self, request: Request) -> ReplyStream:
        """Ask, and go on: the stream has the text as it comes."""
        self._check_open()
        job, end = self._prepared(request)
        if job is None:
            return ReplyStream(None, None, _refused(request, end, self._running), self._running)
        stream = self._running.service.submit([job.request(0, self._new_id())])
        return ReplyStream(stream, job, None, self._running)

    def answer(self, requests: Iterable[Request], *, run_seed: int | None = None) -> Iterator[Reply]:
        """A reply to each request, as they end: `reply.id` says to which. Requests are read as there is room
        for them. Leaving early cancels the rest.

        With `run_seed`, a sampled request without a seed gets that of the row of a batch with this seed whose
        `custom_id` is the request's id.
        """
        self._check_open()
        if run_seed is not None:
            check_seed(run_seed, "run_seed")
        return self._replies(requests, run_seed)

    def _replies(self, requests: Iterable[Request], run_seed: int | None) -> Iterator[Reply]:
        running = self._running
        feed = Feed(running.service, self._work(requests, run_seed))
        for (request, job), end in feed:
            if job is None:
                yield _refused(request, end, running)
                continue
            text = whole_text(end.text, job.reasoning_pairs, job.open_reasoning)
            reply = reply_to(job, 0, end, text, running)
            yield replace(reply, run_seed=run_seed) if _derives(request, job, run_seed) else reply

    def _work(
        self, requests: Iterable[Request], run_seed: int | None
    ) -> Iterator[tuple[tuple[Request, Job | None], EngineRequest | Finished]]:
        for request in requests:
            job, end = self._prepared(request)
            if job is None:
                yield (request, None), end
                continue
            if run_seed is not None and _derives(request, job, run_seed):
                job = replace(job, run_seed=row_seed(run_seed, key_of_id(request.id), 0))
            yield (request, job), job.request(0, self._new_id(), streams=False)

    def _prepared(self, request: Request) -> tuple[Job | None, Finished]:
        """The job, or the end of a request that can't be answered."""
        try:
            with self._using:
                self._check_open()
                job, n_window = self._preparer.prepare(request)
            if n_window > self._window:
                raise ContextOverflow(
                    f"prompt and reply may take {n_window} tokens, and the model was opened for"
                    f" {self._window}",
                    f"lower max_tokens, or open the model with window={n_window}",
                )
        except _Closed:
            raise
        except InferError as e:
            return None, NOTHING_COMPUTED._replace(error=e.in_full, error_status=e.exit_status)
        return job, NOTHING_COMPUTED

    def _new_id(self) -> str:
        """Of a request to the engine: those of the program may be there twice."""
        return str(next(self._n))

    # --- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """End what is under way, without replies, and give the memory back. A second time does nothing."""
        with self._using:
            if self._is_closed:
                return
            self._is_closed = True
            _open_models().discard(self)
            if self._owner == os.getpid():  # a fork has no engine, and must leave alone what it shares
                self._running.close()
                self._session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise _Closed("the model is closed", "open it again")
        if self._owner != os.getpid():
            raise _Closed("the model was opened before this process was forked", "open it in this process")


class _Closed(UsageError):
    """The model's, and no single request's."""


class ReplyStream:
    """A reply on its way: an iterator of its text as it comes. Safe to use from several threads.

    In a `with`, a reply that has not ended is cancelled at the end.
    """

    def __init__(
        self, stream: Stream | None, job: Job | None, reply: Reply | None, running: RunningEngine
    ) -> None:
        """`reply` is there already where there is nothing to stream."""
        self._stream, self._reply = stream, reply
        self._reading = threading.Lock()
        self._deltas: Iterator[Delta] = iter(())
        if stream is not None and job is not None:
            self._deltas = self._read(stream, job, running)

    def __iter__(self) -> ReplyStream:
        return self

    def __next__(self) -> Delta:
        """Text that can be shown now, whole characters only. Raises UnexpectedFailure as `reply`."""
        with self._reading:
            return next(self._deltas)

    def reply(self) -> Reply:
        """Waits for the end. Raises UnexpectedFailure where the engine stops, or the model is closed."""
        for _ in self:
            pass
        if self._reply is None:
            raise UnexpectedFailure("the engine stopped before the reply ended")
        return self._reply

    def cancel(self) -> None:
        """End the reply with what it has, and the finish reason "cancelled". Does not wait."""
        if self._stream is not None:
            self._stream.cancel()

    def __enter__(self) -> ReplyStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def _read(self, stream: Stream, job: Job, running: RunningEngine) -> Generator[Delta, None, None]:
        text = ReplyText(job.reasoning_pairs, job.open_reasoning)
        for event in stream:
            yield from self._shown(event, text, job, running)

    def _shown(self, event: Event, text: ReplyText, job: Job, running: RunningEngine) -> Iterator[Delta]:
        if isinstance(event, Token):
            yield from text.show([event])
        elif isinstance(event, Finished):
            yield from text.finish(event.tail)
            self._reply = reply_to(job, 0, event, text, running)


def _derives(request: Request, job: Job, run_seed: int | None) -> bool:
    """Whether a request's seed comes from that of the run."""
    return run_seed is not None and request.seed is None and job.run_seed is not None


def _refused(request: Request, end: Finished, running: RunningEngine) -> Reply:
    """The reply to a request that did not come to the engine."""
    return reply_of(
        end,
        running.provenance(),
        reply_id=request.id,
        sample=0,
        text=None,
        params={},
        run_seed=None,
        seed=None,
        mode=running.policy.mode,
        promise=running.policy.promise,
        error={"code": int(end.error_status), "message": end.error},
    )


def _find(name: str | None, *, download: bool) -> InstalledModel:
    if name is not None and is_fake(name):
        return fake_model(name)
    return resolve(name, offline=not download)


def _check(name: str, value: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise UsageError(f"{name} must be a whole number between 1 and {most}, not {value!r}")


@cache
def _null_device() -> int:
    """Where llama.cpp's log goes. Never closed: llama.cpp writes to it as long as the process lives."""
    return os.open(os.devnull, os.O_WRONLY)


@cache
def _open_models() -> WeakSet[Model]:
    """Models to be closed with the interpreter: an engine must not compute while it is taken apart."""
    models: WeakSet[Model] = WeakSet()

    def close_all() -> None:
        for model in list(models):
            model.close()

    atexit.register(close_all)
    return models
