"""A reply on its way to a program."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from types import TracebackType

from infer_cli.answering.job import Job
from infer_cli.answering.job_reply import reply_to
from infer_cli.answering.reply_text import ReplyText
from infer_cli.engine.service import Stream
from infer_cli.errors import UnexpectedFailure
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.types import Delta, Event, Finished, Reply, Token


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
