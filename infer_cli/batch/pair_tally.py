"""Counts and times of a job of likelihoods, and the words for them."""

from __future__ import annotations

from dataclasses import dataclass

from infer_cli.batch.summary import Tally, peak_memory, rate
from infer_cli.settings.sizes import size_text
from infer_cli.text.common_prefix import n_same


@dataclass
class PairTally(Tally):
    """What came of pairs. `n_prompt` counts the tokens that were asked for, `n_prompt - n_cached` those that
    were evaluated."""

    n_distinct: int = 0  # tokens behind what the pair before, in the order of the engine, begins with too
    last_ids: tuple[int, ...] = ()

    @property
    def what(self) -> str:
        return "pairs"

    @property
    def n_evaluated(self) -> int:
        return self.n_prompt - self.n_cached

    def begin(self, prompt_ids: tuple[int, ...]) -> None:
        self.n_distinct += len(prompt_ids) - n_same(self.last_ids, prompt_ids)
        self.last_ids = prompt_ids

    def speed(self, read_per_s: float, written_per_s: float) -> str:
        return f"{read_per_s:.0f} tok/s"

    def in_use(self, n_live: int) -> str:
        return ""

    def as_json(self, wall_s: float) -> dict[str, object]:
        return {
            **self._counts(),
            "tokens": {
                "asked": self.n_prompt,
                "distinct": self.n_distinct,
                "evaluated": self.n_evaluated,
            },
            "shared_factor": rate(self.n_prompt, self.n_evaluated),
            "repeated_factor": rate(self.n_evaluated, self.n_distinct),
            "seconds": wall_s,
            "pairs_per_s": rate(self.n_done, wall_s),
            "tokens_per_s": rate(self.n_evaluated, wall_s),
            "peak_memory_bytes": peak_memory(),
        }

    def in_words(self, wall_s: float) -> list[str]:
        lines = [self._count_in_words()]
        if self.n_evaluated and wall_s > 0:
            lines.append(
                f"{wall_s:.1f} s: {self.n_done / wall_s:.1f} pairs/s, {self.n_evaluated / wall_s:.0f} tok/s"
            )
            times = self.n_evaluated / max(self.n_distinct, 1)
            lines.append(
                f"{self.n_evaluated} of {self.n_prompt} tokens were evaluated,"
                f" {times:.2f} times the {self.n_distinct} that are distinct"
            )
            if (peak := peak_memory()) is not None:
                lines[-1] += f"; {size_text(peak)} of memory"
        return lines
