"""What commands do around a model: find it, wait for it, read its template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_cli.cli.screen.terminal import Notices
from infer_cli.runtime.session import Session

if TYPE_CHECKING:
    from infer_cli.answering.sink import Sink

STATUS_INTERVAL_S = 0.1


def wait_for(session: Session, notices: Notices) -> None:
    """Wait until a model is loaded, then tell what was chosen for it and what it can't promise."""
    while not session.wait(STATUS_INTERVAL_S):
        notices.status(f"loading the model {session.progress:.0%}")
    loaded = session.loaded
    for note in loaded.notes:
        notices.note(note)
    if loaded.policy.weaker_because:
        notices.warn(f"not {loaded.policy.mode}, only the seed is kept: {loaded.policy.weaker_because}")


class StatusSink:
    """Shows prefill progress on the status line and wipes it before the first text."""

    def __init__(self, sink: Sink, notices: Notices) -> None:
        self._sink, self._notices = sink, notices
        self.start, self.end, self.close = sink.start, sink.end, sink.close
        self.takes = sink.takes

    def prefill(self, sample: int, done: int, total: int) -> None:
        self._sink.prefill(sample, done, total)
        if done < total:
            self._notices.status(f"reading the prompt {done / total:.0%}")
        else:
            self._notices.clear()

    def delta(self, delta: object) -> None:
        self._sink.delta(delta)  # type: ignore[arg-type]
