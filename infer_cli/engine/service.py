"""The engine on its own thread: requests in, events out. The only place with threads around the engine."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from infer_cli.engine.engine import Engine
from infer_cli.engine.score_engine import ScoreEngine
from infer_cli.errors import UnexpectedFailure
from infer_cli.types import EngineRequest, Event, Finished, ScoreRequest, Segment, Token

if TYPE_CHECKING:
    from infer_cli.backend.base import Buffer

T = TypeVar("T")

HAND_OVER_S = 0.05  # tokens that follow each other faster are handed over together


class Stream:
    """Events of the requests submitted together, until each has `Finished`. Leaving early cancels."""

    def __init__(self, service: Service, request_ids: Iterable[str]) -> None:
        self._service = service
        self._open = set(request_ids)
        self.mailbox: SimpleQueue[list[Event] | BaseException] = SimpleQueue()

    def __iter__(self) -> Iterator[Event]:
        with contextlib.closing(self.parcels()) as parcels:
            for events in parcels:
                yield from events

    def parcels(self) -> Generator[list[Event], None, None]:
        """The same events, those together that were handed over together."""
        try:
            while self._open:
                events = self._next()
                if isinstance(events, BaseException):
                    self._open.clear()
                    raise UnexpectedFailure(
                        f"the engine stopped: {type(events).__name__}: {events}"
                    ) from events
                self._open.difference_update(
                    event.request_id for event in events if isinstance(event, Finished)
                )
                yield events
        finally:
            self.cancel()

    def _next(self) -> list[Event] | BaseException:
        if sys.platform != "win32":
            return self.mailbox.get()
        while True:  # a wait without end would keep Ctrl-C out on Windows
            try:
                return self.mailbox.get(timeout=0.1)
            except Empty:
                continue

    def add(self, request_ids: Iterable[str]) -> None:
        """Wait for these too."""
        self._open.update(request_ids)

    def cancel(self) -> None:
        """End what still runs, with reason "cancelled". From any thread, and from a signal handler."""
        if self._open:
            self._service.cancel(tuple(self._open))


class Submission:
    """Requests of one stream, which may be cancelled before they are submitted: then they end at once."""

    def __init__(self) -> None:
        self._stream: Stream | None = None
        self.is_cancelled = False

    def cancel(self) -> None:
        """From any thread, and from a signal handler."""
        self.is_cancelled = True
        if self._stream is not None:
            self._stream.cancel()

    def submit(self, service: Service, requests: Iterable[EngineRequest | ScoreRequest]) -> Stream:
        """As `Service.submit`, once."""
        self._stream = service.submit(requests)
        if self.is_cancelled:
            self._stream.cancel()
        return self._stream


class Service:
    """Owns a thread that steps its engines while there is work and sleeps otherwise: one for replies, one for
    likelihoods, or both. In turn, where both have work.

    A decode call that runs past a deadline, or for a cancelled request, is aborted where the policy allows:
    the rest of its rows are evaluated again at the next step.

    Whoever reads a stream wakes on a core that the engine computes on, so tokens that come quickly are handed
    over together, every `HAND_OVER_S`; all else at once, and a token too where the next step may be long.
    """

    def __init__(
        self,
        engine: Engine | None,
        clock: Callable[[], float],
        score_engine: ScoreEngine | None = None,
    ) -> None:
        self._engine, self._score_engine = engine, score_engine
        self._engines = [found for found in (engine, score_engine) if found is not None]
        self._clock = clock
        # deque.append and Event.set are safe in a signal handler; a lock there could deadlock.
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._closed = False
        self._mailboxes: dict[str, SimpleQueue[list[Event] | BaseException]] = {}
        self._submitting = threading.Lock()  # ids are looked up, then taken
        self._failure: BaseException | None = None  # what ended the thread
        self._held: list[Event] = []
        self._handed_over = float("-inf")
        self._timers: dict[str, threading.Timer] = {}
        self._thread = threading.Thread(target=self._run, name="infer-engine", daemon=True)
        self._thread.start()

    @property
    def n_ahead(self) -> int:
        """How many requests are best given at once."""
        return max(engine.n_ahead for engine in self._engines)

    def n_ahead_of(self, request: EngineRequest | ScoreRequest) -> int:
        """How many requests such as this one are best given at once."""
        scores = isinstance(request, ScoreRequest) and self._score_engine is not None
        engine = self._score_engine if scores else self._engine
        return self.n_ahead if engine is None else engine.n_ahead

    def submit(self, requests: Iterable[EngineRequest | ScoreRequest], into: Stream | None = None) -> Stream:
        """Queue requests. Their events come through one stream, in the order they happen: a new one, or
        `into`, which may be in the middle of being read. A request that can't run ends alone, with reason
        "error".

        Raises ValueError, and queues none, where an id is in use: events are told apart by it. An id is free
        again when its `Finished` is read. Raises ValueError too for a request that there is no engine for.
        """
        requests = list(requests)
        commands = [self._submission(request, self._clock()) for request in requests]
        stream = Stream(self, ()) if into is None else into
        with self._submitting:
            self._check_ids([request.id for request in requests])
            self._mailboxes.update((request.id, stream.mailbox) for request in requests)
        stream.add(request.id for request in requests)
        for request, command in zip(requests, commands, strict=True):
            if request.deadline_s is not None and 0 <= request.deadline_s <= threading.TIMEOUT_MAX:
                timer = self._timers[request.id] = threading.Timer(request.deadline_s, self._abort)
                timer.daemon = True
                timer.start()
            self._post(command)
        if self._failure is not None:  # nobody is left to answer
            stream.mailbox.put(self._failure)
        return stream

    def _submission(self, request: EngineRequest | ScoreRequest, now: float) -> Callable[[], None]:
        """Hands a request to its engine."""
        if isinstance(request, ScoreRequest):
            scoring = self._score_engine
            if scoring is None:
                raise ValueError("there is no engine for likelihoods")
            return lambda: scoring.submit(request, now)
        engine = self._of_replies
        return lambda: engine.submit(request, now)

    @property
    def _of_replies(self) -> Engine:
        if self._engine is None:
            raise ValueError("there is no engine for replies")
        return self._engine

    def _check_ids(self, ids: list[str]) -> None:
        wrong = next((i for n, i in enumerate(ids) if i in self._mailboxes or i in ids[:n]), None)
        if wrong is not None:
            raise ValueError(f"request id {wrong!r} is in use")

    def cancel(self, request_ids: Iterable[str]) -> None:
        ids = tuple(request_ids)

        def cancel() -> None:
            for engine in self._engines:
                for i in ids:
                    engine.cancel(i)

        self._post(cancel)
        self._abort()

    def n_held(self, ids: tuple[int, ...]) -> int:
        """`Engine.n_held`. Waits for it."""
        engine = self._of_replies
        return self._call(lambda: engine.n_held(ids))

    def adopt(self, segments: tuple[Segment, ...], data: Buffer) -> bool:
        """`Engine.adopt`, before the requests that are submitted next. Waits for it."""
        engine = self._of_replies
        return self._call(lambda: engine.adopt(segments, data))

    def snapshot(self, segments: tuple[Segment, ...]) -> bytearray | None:
        """`Engine.snapshot`. Waits for it. Raises MemoryError."""
        engine = self._of_replies
        return self._call(lambda: engine.snapshot(segments))

    @property
    def decode_rows(self) -> tuple[int, int]:
        """Rows of all decode calls of replies so far, and how many of them were dummies."""
        engine = self._engine
        return (0, 0) if engine is None else (engine.n_decode_rows, engine.n_dummy_rows)

    def _call(self, function: Callable[[], T]) -> T:
        """Run a function on the engine's thread; returns or raises what it does."""
        outcome: SimpleQueue[tuple[T] | Exception] = SimpleQueue()

        def call() -> None:
            try:
                outcome.put((function(),))
            except Exception as e:  # the caller's, not the engine's
                outcome.put(e)

        self._post(call)
        while True:
            try:
                found = outcome.get(timeout=0.1)
            except Empty:
                if not self._thread.is_alive():
                    raise UnexpectedFailure("the engine has stopped") from None
                continue
            if isinstance(found, Exception):
                raise found
            return found[0]

    def close(self) -> None:
        """Stop the thread, and close the engines. Requests still running end without an event: who reads
        their stream hears it."""
        self._closed = True
        self._abort()
        self._wake.set()
        self._thread.join()
        self._fail(UnexpectedFailure("it was closed"))
        for timer in self._timers.values():
            timer.cancel()
        for engine in self._engines:
            engine.close()

    def _abort(self) -> None:
        for engine in self._engines:
            engine.abort()
        self._wake.set()  # to resume

    def _post(self, command: Callable[[], object]) -> None:
        self._commands.append(command)  # type: ignore[arg-type]
        self._wake.set()

    def _run(self) -> None:
        try:
            while not self._closed:
                if self._wake.is_set():
                    self._wake.clear()
                    for engine in self._engines:
                        engine.resume()  # before the commands: an abort must not outlive what it was for
                    while self._commands:
                        self._commands.popleft()()
                if all(engine.idle for engine in self._engines):
                    self._wake.wait()
                    continue
                events = [event for engine in self._engines if not engine.idle for event in engine.step()]
                self._held += events
                if self._is_due(events):
                    self._hand_over()
        except BaseException as e:  # handed to every waiting stream, and to those that come
            self._fail(e)

    def _fail(self, failure: BaseException) -> None:
        self._failure = self._failure or failure
        with self._submitting:
            mailboxes = set(self._mailboxes.values())
        for mailbox in mailboxes:
            mailbox.put(failure)

    def _is_due(self, events: list[Event]) -> bool:
        """Whether what is held has to go out after a step that gave these."""
        if any(type(event) is not Token for event in events) or any(
            engine.prefilling for engine in self._engines
        ):
            return bool(self._held)
        return self._clock() - self._handed_over >= HAND_OVER_S

    def _hand_over(self) -> None:
        now = self._clock()
        parcels: dict[SimpleQueue[list[Event] | BaseException], list[Event]] = {}
        for event in self._held:
            if isinstance(event, Finished):
                mailbox = self._mailboxes.pop(event.request_id)
                timer = self._timers.pop(event.request_id, None)
                if timer is not None:
                    timer.cancel()
            else:
                mailbox = self._mailboxes[event.request_id]
            parcels.setdefault(mailbox, []).append(event)
        self._held, self._handed_over = [], now
        for mailbox, events in parcels.items():
            mailbox.put(events)
