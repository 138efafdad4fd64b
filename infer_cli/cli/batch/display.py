"""How far a batch is: a bar on a terminal, a line every ten seconds otherwise."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from infer_cli.batch.summary import Tally, peak_memory
from infer_cli.cli.screen.terminal import console
from infer_cli.settings.durations import duration
from infer_cli.settings.sizes import size_text

if TYPE_CHECKING:
    from rich.progress import BarColumn, Progress, TaskID

DRAW_INTERVAL_S = 0.2
LINE_INTERVAL_S = 10.0
_RATE_WINDOW_S = 5.0  # tokens a second are a mean over at least so long
_LEAST_BAR = 5  # columns
_SPARE = 4  # columns behind the line: the terminal writes ^C there, on a full line into the next


class Display:
    """Call `update` as often as you like: it draws now and then. `score` is asked for what came of it so far,
    in words."""

    def __init__(self, tally: Tally, *, quiet: bool, score: Callable[[], str] = str) -> None:
        self._tally, self._quiet, self._score = tally, quiet, score
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._interval = DRAW_INTERVAL_S if self._is_terminal else LINE_INTERVAL_S
        self._began = self._drawn = time.monotonic()
        self._samples = deque([(self._began, 0, 0)])  # time, tokens in, tokens out
        self._bar: Progress | None = None
        self._bar_column: BarColumn | None = None
        self._task: TaskID | None = None

    def update(self, n_live: int) -> None:
        """`n_live`: requests that the engine has."""
        now = time.monotonic()
        if self._quiet or now - self._drawn < self._interval:
            return
        self._drawn = now
        tally = self._tally
        parts = self._parts(n_live, now)
        if self._is_terminal:
            self._draw(parts)
        elif sys.stderr is not None:
            text = ", ".join(part for part in parts if part)
            print(f"{tally.done} of {tally.n_replies} {tally.what}, {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _rates(self, now: float) -> tuple[float, float]:
        """Tokens a second, in and out, over the last seconds."""
        samples = self._samples
        samples.append((now, self._tally.n_read, self._tally.n_written))
        while len(samples) > 2 and now - samples[1][0] >= _RATE_WINDOW_S:
            samples.popleft()
        then, n_read, n_written = samples[0]
        elapsed = now - then
        return (self._tally.n_read - n_read) / elapsed, (self._tally.n_written - n_written) / elapsed

    def _parts(self, n_live: int, now: float) -> list[str]:
        """Failed, speed, slots, memory, time left, score; empty where there is nothing to say."""
        tally = self._tally
        peak = peak_memory()
        seconds = (now - self._began) / max(tally.n_done, 1) * (tally.n_replies - tally.done)
        return [
            f"{tally.failed} failed" if tally.failed else "",
            tally.speed(*self._rates(now)),
            tally.in_use(n_live),
            "" if peak is None else size_text(peak),
            f"{duration(seconds)} left" if tally.n_done else "",
            self._score(),
        ]

    def _draw(self, parts: list[str]) -> None:
        if self._bar is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._bar_column = BarColumn()
            self._bar = Progress(
                self._bar_column,
                MofNCompleteColumn(),
                TextColumn("{task.description}", markup=False),
                console=console(sys.stderr),
                transient=True,
            )
            self._task = self._bar.add_task("", total=self._tally.n_replies)
            self._bar.start()
        assert self._task is not None
        assert self._bar_column is not None
        n_count = 2 * len(str(self._tally.n_replies)) + 1
        room = self._bar.console.width - _SPARE - n_count - 2  # for the bar and the text
        text = fitting(parts, room - _LEAST_BAR)
        self._bar_column.bar_width = max(_LEAST_BAR, room - len(text))
        self._bar.update(self._task, completed=self._tally.done, description=text)


def fitting(parts: list[str], room: int) -> str:
    """What `Display` says, in at most `room` columns: memory goes first, then slots, speed, failures,
    time left; the score goes last."""
    kept = list(parts)
    for i in (None, 3, 2, 1, 0, 4, 5):
        if i is not None:
            kept[i] = ""
        text = ", ".join(part for part in kept if part)
        if len(text) <= room:
            return text
    return ""
