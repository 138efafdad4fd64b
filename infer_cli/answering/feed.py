"""Keeps the engine fed with requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from infer_cli.engine.service import Service, Stream
from infer_cli.types import EngineRequest, Event, Finished, ScoreRequest

U = TypeVar("U")


class Feed(Generic[U]):
    """Gives an engine one unit of work after the other, and tells which has ended.

    `work` is read as the engine takes it. Each unit comes with its request, whose id is in use nowhere else;
    one that needs no engine comes with its end.
    """

    def __init__(
        self,
        service: Service,
        work: Iterable[tuple[U, EngineRequest | ScoreRequest | Finished]],
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._service, self._work, self._on_event = service, iter(work), on_event
        self._n_most = service.n_ahead
        self._open: dict[str, tuple[U, type]] = {}
        self._n_of: Counter[type] = Counter()  # that are open, by the type of the request
        # Until fewer requests of its type are open.
        self._held: tuple[U, EngineRequest | ScoreRequest] | None = None
        self._stream: Stream = service.submit([])
        self._is_cancelled = False

    @property
    def n_open(self) -> int:
        """Requests that are with the engine."""
        return len(self._open)

    def cancel(self) -> None:
        """Take no more work, and end what is under way with reason "cancelled". From any thread, and from a
        signal handler."""
        self._is_cancelled = True
        self._stream.cancel()

    def __iter__(self) -> Iterator[tuple[U, Finished]]:
        """Each unit with its end, as they end. Leaving early cancels the others."""
        parcels = self._stream.parcels()
        try:
            yield from self._fill()
            while self._open:
                for event in next(parcels):
                    if self._on_event is not None:
                        self._on_event(event)
                    if isinstance(event, Finished):
                        yield self._closed(event.request_id), event
                        yield from self._fill()
        finally:
            self._stream.cancel()

    def _closed(self, request_id: str) -> U:
        unit, kind = self._open.pop(request_id)
        self._n_of[kind] -= 1
        return unit

    def _fill(self) -> Iterator[tuple[U, Finished]]:
        """Submit until the engine has enough; yields what has ended without it."""
        while not self._is_cancelled and len(self._open) < self._n_most:
            unit, request = self._held or next(self._work, (None, None))
            self._held = None
            if request is None:
                return
            assert unit is not None
            if isinstance(request, Finished):
                yield unit, request
                continue
            kind = type(request)
            if self._n_of[kind] >= self._service.n_ahead_of(request):  # of replies fewer than of likelihoods
                self._held = unit, request
                return
            self._open[request.id] = unit, kind
            self._n_of[kind] += 1
            self._service.submit([request], self._stream)
        if self._is_cancelled:
            self._stream.cancel()  # it may have come while a request was on its way
