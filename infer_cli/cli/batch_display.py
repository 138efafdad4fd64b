"""How far a batch is: a bar on a terminal, a line every ten seconds otherwise."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from infer_cli.batch.summary import Tally

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DRAW_INTERVAL_S = 0.2
LINE_INTERVAL_S = 10.0
_RATE_WINDOW_S = 5.0  # tokens a second are a mean over at least so long


class Display:
    """Call `update` as often as you like: it draws now and then."""

    def __init__(self, tally: Tally, *, quiet: bool) -> None:
        self._tally, self._quiet = tally, quiet
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._interval = DRAW_INTERVAL_S if self._is_terminal else LINE_INTERVAL_S
        self._began = self._drawn = time.monotonic()
        self._samples = deque([(self._began, 0, 0)])  # time, tokens in, tokens out
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def update(self, n_live: int) -> None:
        """`n_live`: requests that the engine has."""
        now = time.monotonic()
        if self._quiet or now - self._drawn < self._interval:
            return
        self._drawn = now
        text = self._text(n_live, now)
        if self._is_terminal:
            self._draw(text)
        elif sys.stderr is not None:
            print(f"{self._done} of {self._tally.n_replies} replies, {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @property
    def _done(self) -> int:
        return self._tally.n_before + self._tally.n_done

    def _rates(self, now: float) -> tuple[float, float]:
        """Tokens a second, in and out, over the last seconds."""
        samples = self._samples
        samples.append((now, self._tally.n_read, self._tally.n_written))
        while len(samples) > 2 and now - samples[1][0] >= _RATE_WINDOW_S:
            samples.popleft()
        then, n_read, n_written = samples[0]
        elapsed = now - then
        return (self._tally.n_read - n_read) / elapsed, (self._tally.n_written - n_written) / elapsed

    def _text(self, n_live: int, now: float) -> str:
        tally = self._tally
        parts = []
        if failed := tally.n_failed + tally.n_failed_before:
            parts.append(f"{failed} failed")
        rate_in, rate_out = self._rates(now)
        parts += [f"{rate_in:.0f} tok/s in", f"{rate_out:.0f} out"]
        parts.append(f"{min(n_live, tally.width)}/{tally.width} slots")
        if tally.n_done:
            left = (now - self._began) / tally.n_done * (tally.n_replies - self._done)
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)

    def _draw(self, text: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._bar = Progress(
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.description}", markup=False),
                console=Console(stderr=True),
                transient=True,
                expand=True,
            )
            self._task = self._bar.add_task("", total=self._tally.n_replies)
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, completed=self._done, description=text)


def duration(seconds: float) -> str:
    """`42s`, `3m10s`, `2h05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
