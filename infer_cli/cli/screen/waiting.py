"""What commands do around a model: find it, wait for it, read its template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_cli.cli.screen.terminal import Notices
from infer_cli.runtime.fake_loading import FakeLoading
from infer_cli.runtime.loading import Loading

if TYPE_CHECKING:
    from infer_cli.answering.sink import Sink

STATUS_INTERVAL_S = 0.1


def wait_for(loading: Loading | FakeLoading, notices: Notices) -> None:
    """Wait until a model is loaded, then tell what was chosen for it and what it can't promise."""
    while not loading.wait(STATUS_INTERVAL_S):
        notices.status(f"loading the model {loading.progress:.0%}")
    for note in loading.notes:
        notices.note(note)
    if loading.policy.weaker_because:
        notices.warn(f"not {loading.policy.mode}, only the seed is kept: {loading.policy.weaker_because}")


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
