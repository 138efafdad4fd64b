"""A sink that shows nothing of a reply."""

from __future__ import annotations

from infer_cli.answering.sink import Grain
from infer_cli.types import Delta, Reply


class SilentSink:
    takes: Grain = "reply"

    def start(self, info: dict[str, object]) -> None:
        pass

    def prefill(self, sample: int, done: int, total: int) -> None:
        pass

    def delta(self, delta: Delta) -> None:
        pass

    def end(self, reply: Reply) -> None:
        pass

    def close(self) -> None:
        pass
