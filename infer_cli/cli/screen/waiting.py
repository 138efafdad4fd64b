"""What commands show while a model is waited for: its load, and its reading of the prompt."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from infer_cli.cli.screen.terminal import Notices
from infer_cli.runtime.session import Session
from infer_cli.settings.durations import duration

if TYPE_CHECKING:
    from infer_cli.answering.sink import Sink
    from infer_cli.prompt.template import ChatTemplate
    from infer_cli.types import Delta, Reply

STATUS_INTERVAL_S = 0.1
_LONG_S = 2.0  # to the end of a prompt: what is shorter needs no rate


def loading(name: str, notices: Notices, progress: float | None = None) -> None:
    """Say on the status line which model is loaded, and how much of it, a fraction, is."""
    notices.status(f"loading {name}…" + ("" if progress is None else f" {100 * progress:.0f} %"))


def wait_for(session: Session, notices: Notices) -> None:
    """Wait until a model is loaded, then tell what was chosen for it and what it can't promise."""
    while not session.wait(STATUS_INTERVAL_S):
        loading(session.model.name, notices, session.progress)
    loaded = session.loaded
    for note in loaded.notes:
        notices.note(note)
    if loaded.policy.weaker_because:
        notices.warn(f"not {loaded.policy.mode}, only the seed is kept: {loaded.policy.weaker_because}")


def warn_of_unused(template: ChatTemplate, variables: Iterable[str], notices: Notices) -> None:
    """Tell of variables that a chat template does not name."""
    for name in variables:
        if not re.search(rf"\b{re.escape(name)}\b", template.source):
            notices.warn(f"--var {name}: the chat template does not use it")


def begin_reading(notices: Notices) -> None:
    """Say on the status line that the prompt is being read: made into tokens first."""
    notices.status("reading the prompt 0 %")


def switched(
    template: ChatTemplate, think: bool | None, given: Mapping[str, object], notices: Notices
) -> Mapping[str, object]:
    """The variables that have a model think or not, beside those that were given; told where there are none.

    Raises UsageError where its reasoning can't be turned off.
    """
    if think is None:
        return {}
    from infer_cli.prompt.thinking import thinking_variables

    found = thinking_variables(template, think, given)
    if found.unused:
        notices.warn(f"--{'think' if think else 'no-think'}: {found.unused}")
    return found.variables


class StatusSink:
    """Shows on the status line how much of the prompt is read, and wipes it before the first text."""

    def __init__(self, sink: Sink, notices: Notices, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sink, self._notices, self._clock = sink, notices, clock
        self._first: tuple[int, float] | None = None  # tokens that were read, and when that was told
        self.close = sink.close
        self.takes = sink.takes

    def start(self, info: dict[str, object]) -> None:
        self._sink.start(info)
        begin_reading(self._notices)

    def prefill(self, sample: int, done: int, total: int) -> None:
        self._sink.prefill(sample, done, total)
        if done < total:
            self._notices.status(f"reading the prompt {100 * done // total} %{self._speed(done, total)}")
        else:
            self._notices.clear()

    def _speed(self, done: int, total: int) -> str:
        """Rate and time left, once they are known, of a prompt that takes long."""
        now = self._clock()
        if self._first is None:
            self._first = (done, now)  # what was kept from before is done at once: no rate yet
            return ""
        n_before, began = self._first
        rate = (done - n_before) / max(now - began, 1e-9)
        if rate <= 0 or (total - done) / rate < _LONG_S:
            return ""
        return f", {rate:.0f} tok/s, {duration((total - done) / rate)} left"

    def delta(self, delta: Delta) -> None:
        self._notices.clear()
        self._sink.delta(delta)

    def end(self, reply: Reply) -> None:
        self._notices.clear()
        self._sink.end(reply)
