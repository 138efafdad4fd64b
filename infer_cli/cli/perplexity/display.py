"""How far a measurement is, and what it has found so far."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from infer_cli.cli.perplexity.view import kl_text, ppl_text
from infer_cli.settings.durations import duration

if TYPE_CHECKING:
    from infer_cli.cli.screen.terminal import Notices
    from infer_cli.scoring.statistics import Estimate
    from infer_cli.scoring.windowed_text import WindowedText

LINE_INTERVAL_S = 10.0  # with --stats


class Progress:
    """The status line, and with --stats a line now and then."""

    def __init__(self, text: WindowedText, notices: Notices) -> None:
        self._text, self._notices = text, notices
        self._n_all = len(text.spans)
        self._began = self._told = time.monotonic()
        notices.status(f"0 of {self._n_all} windows")

    def show(self, n_windows: int, ppl: Estimate, kl: Estimate | None = None) -> None:
        """So many windows are scored. `kl`: the mean divergence from the model that is compared with."""
        now = time.monotonic()
        left = (now - self._began) / n_windows * (self._n_all - n_windows)
        line = f"{n_windows} of {self._n_all} windows, perplexity {ppl_text(ppl)}"
        if kl is not None:
            line += f", KL {kl_text(kl)}"
        if n_windows < self._n_all:
            line += f", {duration(left)} left"
        if now - self._told >= LINE_INTERVAL_S:
            self._told = now
            self._notices.detail(line)
        self._notices.status(line)

    def end(self, model: str) -> None:
        """All is scored."""
        seconds = max(time.monotonic() - self._began, 1e-3)  # a clock may be coarse
        n_tokens = sum(span.end - span.start - 1 for span in self._text.spans)
        self._notices.detail(
            f"[{model} · {n_tokens} tokens read · {seconds:.2f} s · {n_tokens / seconds:.0f} tok/s]"
        )
