"""Where a reply goes. A sink knows streams and formats; it knows no engine and no command line."""

from __future__ import annotations

from typing import Literal, Protocol

from infer_cli.types import Delta, Reply

Grain = Literal["token", "text", "reply"]


class Sink(Protocol):
    """Receives the stream of one command's replies, in order.

    With several samples their deltas may interleave; a sink that shows text in order keeps what is not
    yet due.
    `OSError`s of the stream (a closed pipe) are passed on to the caller.
    `takes`: deltas of one token at most each, deltas of any size, or all of a reply at its end.
    """

    takes: Grain

    def start(self, info: dict[str, object]) -> None: ...

    def prefill(self, sample: int, done: int, total: int) -> None: ...

    def delta(self, delta: Delta) -> None: ...

    def end(self, reply: Reply) -> None: ...

    def close(self) -> None: ...
