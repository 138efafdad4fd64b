"""Has untrusted templates rendered in a process of their own, with ceilings that hold whatever they do.

`infer_cli.prompt.sandbox` counts a template's work, and counting leaks: it makes most hostile templates fail
alike on every machine. What gets past it meets the ceilings here: the process has `MOST_BYTES` of memory,
and is killed when one answer takes `MOST_SECONDS`. One process answers any number of requests, one after
another; a new one takes the place of one that was killed. It is started as a fresh interpreter, never forked,
so that it imports while a model loads. It shares no descriptor, no working directory and next to no
environment with this process, and ends with it: at the end of its standard input.

A native engine with fuel was the other choice. It bounds time as well, but not memory, and it lacks the
methods of Python's strings that published templates call. A rendering here costs 25 microseconds more than
in this process; the start of the other one is hidden behind the load of a model.

Knows nothing of chats, models or exit codes.
"""

from __future__ import annotations

import atexit
import contextlib
import marshal
import signal
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.errors import UnexpectedFailure
from infer_cli.prompt.template_errors import TemplateFailed, TemplateRaised

if TYPE_CHECKING:
    from datetime import datetime

    from infer_cli.prompt.renderer_link import Link

# Published templates need a hundredth of a second; a start of the process on a busy machine, a second.
MOST_SECONDS = 10.0
# Of address space, the interpreter's own included. The largest prompt that infer reads fits.
MOST_BYTES = 10**9
OUT_OF_MEMORY = 70  # the exit code of a process that has not even the memory to say so


class TemplateSource(NamedTuple):
    """A template's text and what it is compiled with.

    `strict`: reading a variable that is not given is an error. `now` is the clock of `strftime_now`, which is
    there only with it.
    """

    text: str
    strict: bool = False
    now: datetime | None = None

    def told(self) -> tuple[object, ...]:
        """As plain values."""
        if self.now is None:
            return (self.text, self.strict, None)
        offset = self.now.utcoffset()
        zone = None if offset is None else (offset.total_seconds(), self.now.tzname())
        return (self.text, self.strict, (self.now.replace(tzinfo=None).isoformat(), zone))


class CeilingReached(TemplateFailed):
    """Time or memory of the process were used up. `of_time`: it was the time."""

    def __init__(self, reason: str, *, of_time: bool = False) -> None:
        super().__init__(reason)
        self.of_time = of_time


class Renderer:
    """A process that renders, started when it is needed first. Safe to use from several threads.

    `seconds` of wall clock are for one answer, `memory` bytes for the process. Every method raises
    TemplateFailed where the template fails (CeilingReached, where it meets a ceiling or ends the process),
    TemplateRaised where it raises an exception itself, UnexpectedFailure where the process does not start.
    """

    def __init__(self, *, seconds: float = MOST_SECONDS, memory: int = MOST_BYTES) -> None:
        self._seconds, self._memory = seconds, memory
        self._lock = threading.Lock()
        self._link: Link | None = None

    def begin(self) -> None:
        """Start the process, where it is not there, without waiting for it."""
        with self._lock:
            self._linked()

    def compile(self, source: TemplateSource) -> None:
        """Raises TemplateFailed where the source does not compile."""
        self._ask("compile", source, {}, None)

    def render(
        self, source: TemplateSource, variables: Mapping[str, object], *, seconds: float | None = None
    ) -> str:
        """The text. `variables` are strings, numbers, booleans, None, lists and dicts of these; `seconds` may
        be fewer than the renderer's own."""
        return self._ask("render", source, variables, seconds)

    def free_variables(self, source: TemplateSource) -> frozenset[str]:
        """Names that a template expects to be given."""
        return frozenset(self._ask("free_variables", source, {}, None).split())

    def cancel(self) -> None:
        """End a rendering that is under way, in any thread, as if it had failed. Safe in a signal handler."""
        if self._link is not None:
            self._link.kill()

    def close(self) -> None:
        """End the process. The next use starts another."""
        with self._lock:
            link, self._link = self._link, None
            if link is not None and link.is_ours:
                link.end()

    def _linked(self) -> Link:
        link = self._link
        if link is None or not link.is_ours or link.has_ended:
            from infer_cli.prompt.renderer_link import Link

            link = self._link = Link(self._seconds, self._memory)
        return link

    def _ask(
        self, what: str, source: TemplateSource, variables: Mapping[str, object], seconds: float | None
    ) -> str:
        request = marshal.dumps((what, source.told(), dict(variables)))  # type: ignore[arg-type]  # plain
        seconds = self._seconds if seconds is None else min(seconds, self._seconds)
        with self._lock:
            link = self._linked()
            try:
                reply = link.exchange(request, seconds)
            except BaseException as error:  # also an interrupt: this answer must not become that to the next
                self._link = None
                link.end(wait_s=0)
                if not isinstance(error, TimeoutError):
                    raise
                reason = f"it was not done in {seconds:.3g} s, and was stopped"
                raise CeilingReached(reason, of_time=True) from None
            if reply is None:
                self._link = None
                raise self._ended(link)
            if reply[:1] == b"M":  # what is left of its memory is in pieces
                self._link = None
                link.end(wait_s=0)
                raise CeilingReached(self._needs_more)
        return _text_of(reply)

    def _ended(self, link: Link) -> Exception:
        """Why a process ended that was asked something."""
        code = link.end()
        if link.was_killed:
            return CeilingReached("it was cancelled")
        if code == OUT_OF_MEMORY:
            return CeilingReached(self._needs_more)
        if code == 1:
            return UnexpectedFailure(
                "the process that renders templates does not start", "install infer again"
            )
        how = next((s.name for s in signal.Signals if s == -code), f"exit code {code}")
        return CeilingReached(f"its process ended ({how}): most often memory ran out")

    @property
    def _needs_more(self) -> str:
        from infer_cli.settings.sizes import size_text

        return f"it needs more than {size_text(self._memory)} of memory"


@cache
def shared() -> Renderer:
    """The renderer of this process: one is enough, since a rendering keeps one core busy for moments only."""
    renderer = Renderer()
    atexit.register(renderer.close)
    return renderer


@contextlib.contextmanager
def closed_at_end() -> Iterator[None]:
    """Ends the shared renderer with a command, so that no process is left for others to wait for."""
    try:
        yield
    finally:
        shared().close()


def _text_of(reply: bytes) -> str:
    kind, line = reply[:1], int.from_bytes(reply[1:9], "little", signed=True)
    text = reply[9:].decode("utf-8", "surrogatepass")
    if kind == b"F":
        raise TemplateFailed(text, None if line < 0 else line)
    if kind == b"R":
        raise TemplateRaised(text)
    if kind != b"T":
        raise UnexpectedFailure(f"the process that renders templates does not start: {text}")
    return text
