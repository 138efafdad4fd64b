"""Counts and times of a job, and the words for them."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infer_cli.batch.job import JobFile
from infer_cli.batch.kind import Answer
from infer_cli.batch.output_index import OutputIndex
from infer_cli.settings.sizes import size_text
from infer_cli.types import Mode, Promise, Reply, Timings, Usage

QUANTILES = (50, 90, 95, 99)


def _floats() -> array[float]:
    return array("d")


@dataclass
class Tally(ABC):
    """What came so far. `n_rows` and `n_replies` are the job's (this shard's), the rest this run's. What a
    row is answered with, a reply or a likelihood, is `what`."""

    n_rows: int
    n_replies: int
    width: int
    n_before: int = 0  # answers that an earlier run wrote
    n_failed_before: int = 0
    finish_reasons: dict[str, int] = field(default_factory=dict)  # earlier runs' included
    dropped: dict[int, int] = field(default_factory=dict)  # as `OutputIndex` has it; earlier runs' included
    n_reasoning_cut: int = 0  # replies that ended inside their reasoning; earlier runs' included
    error_codes: dict[int, int] = field(default_factory=dict)
    n_done: int = 0
    n_failed: int = 0
    n_prompt: int = 0
    n_cached: int = 0
    n_generated: int = 0
    n_read: int = 0  # prompt tokens evaluated, of unfinished replies too
    n_written: int = 0  # tokens chosen, of unfinished replies too
    n_decode_rows: int = 0  # that the engine evaluated
    n_dummy_rows: int = 0  # of these: idle slots that the mode fills

    @property
    @abstractmethod
    def what(self) -> str:
        """In the plural."""

    @property
    def done(self) -> int:
        """Answers that are written, earlier runs' too."""
        return self.n_before + self.n_done

    @property
    def failed(self) -> int:
        return self.n_failed_before + self.n_failed

    def take_over(self, held: OutputIndex) -> None:
        """Count what an output holds already."""
        self.finish_reasons, self.dropped = dict(held.finish_reasons), dict(held.dropped)
        self.n_reasoning_cut = held.n_reasoning_cut
        self.n_before = sum(held.finish_reasons.values())
        self.n_failed_before = sum(row.failed for row in held.rows.values())

    def truncated(self) -> str:
        """How many prompts were cut, in words; empty for none."""
        if not self.dropped:
            return ""
        rows = "1 row was" if len(self.dropped) == 1 else f"{len(self.dropped)} rows were"
        return f"{rows} cut to fit the window: {sum(self.dropped.values())} tokens were left out"

    def cut_in_reasoning(self) -> str:
        """How many replies have no answer for that, in words; empty for none."""
        if not self.n_reasoning_cut:
            return ""
        replies = "1 reply" if self.n_reasoning_cut == 1 else f"{self.n_reasoning_cut} replies"
        return (
            f"{replies} ended inside the reasoning, without an answer:"
            " raise -n, limit it with --reasoning-budget, or give --no-think"
        )

    @abstractmethod
    def begin(self, prompt_ids: tuple[int, ...]) -> None:
        """The engine will have a row with such a prompt."""

    def add(self, answer: Answer) -> None:
        """An answer is there."""
        self.n_done += 1
        self.finish_reasons[answer.finish_reason] = self.finish_reasons.get(answer.finish_reason, 0) + 1
        if answer.error is not None:
            self.n_failed += 1
            code = answer.error["code"]
            self.error_codes[code] = self.error_codes.get(code, 0) + 1
        if answer.tokens:
            self._add_computed(answer.usage, answer.timings)

    def _add_computed(self, usage: Usage, timings: Timings) -> None:
        self.n_prompt += usage.prompt_tokens
        self.n_cached += usage.cached_tokens
        self.n_generated += usage.completion_tokens

    @abstractmethod
    def speed(self, read_per_s: float, written_per_s: float) -> str:
        """Tokens a second, in words."""

    @abstractmethod
    def in_use(self, n_live: int) -> str:
        """What of the engine is in use where it has so many requests, in words; empty for nothing to say."""

    @abstractmethod
    def as_json(self, wall_s: float) -> dict[str, object]:
        """Counts and times as the summary has them. Seconds, bytes and rates; a rate of no time is null."""

    @abstractmethod
    def in_words(self, wall_s: float) -> list[str]:
        """A few lines for a person."""

    def _counts(self) -> dict[str, object]:
        return {
            "rows": self.n_rows,
            self.what: self.n_replies,
            "done": self.done,
            "done_before": self.n_before,
            "failed": self.failed,
            "error_codes": {str(code): n for code, n in sorted(self.error_codes.items())},
            "truncated": {"rows": len(self.dropped), "dropped_tokens": sum(self.dropped.values())},
        }

    def _count_in_words(self, why: str = "") -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        there = f"; {self.n_before} of them were there" if self.n_before and self.n_done else ""
        return f"{self.done} of {self.n_replies} {self.what}{failed}{why}{there}"


@dataclass
class ReplyTally(Tally):
    """What came of replies."""

    busy_s: float = 0.0  # of all slots together
    queue_s: array[float] = field(default_factory=_floats)
    ttft_s: array[float] = field(default_factory=_floats)
    token_s: array[float] = field(default_factory=_floats)  # each reply's mean time between tokens
    total_s: array[float] = field(default_factory=_floats)

    @property
    def what(self) -> str:
        return "replies"

    def begin(self, prompt_ids: tuple[int, ...]) -> None:
        pass

    def add(self, answer: Answer) -> None:
        super().add(answer)
        self.n_reasoning_cut += isinstance(answer, Reply) and answer.reasoning_cut

    def _add_computed(self, usage: Usage, timings: Timings) -> None:
        super()._add_computed(usage, timings)
        self.queue_s.append(timings.queue_s)
        self.total_s.append(timings.total_s)
        if timings.ttft_s is not None:  # a choice has none, nor a slot
            self.busy_s += timings.total_s - timings.queue_s
            self.ttft_s.append(timings.ttft_s)
        if timings.decode_tps:
            self.token_s.append(1 / timings.decode_tps)

    def speed(self, read_per_s: float, written_per_s: float) -> str:
        return f"{read_per_s:.0f} tok/s in, {written_per_s:.0f} out"

    def in_use(self, n_live: int) -> str:
        return f"{min(n_live, self.width)}/{self.width} slots"

    def as_json(self, wall_s: float) -> dict[str, object]:
        evaluated = self.n_prompt - self.n_cached
        return {
            **self._counts(),
            "finish_reasons": dict(sorted(self.finish_reasons.items())),
            "reasoning_cut": self.n_reasoning_cut,
            "tokens": {"prompt": self.n_prompt, "cached": self.n_cached, "generated": self.n_generated},
            "seconds": wall_s,
            "replies_per_s": rate(self.n_done, wall_s),
            "prompt_tokens_per_s": rate(evaluated, wall_s),
            "generated_tokens_per_s": rate(self.n_generated, wall_s),
            "latency_s": {
                "queue": _quantiles(self.queue_s),
                "ttft": _quantiles(self.ttft_s),
                "inter_token": _quantiles(self.token_s),
                "total": _quantiles(self.total_s),
            },
            "width": self.width,
            "slot_occupancy": rate(self.busy_s, wall_s * self.width),
            "padding_share": rate(self.n_dummy_rows, self.n_decode_rows),
            "peak_memory_bytes": peak_memory(),
        }

    def in_words(self, wall_s: float) -> list[str]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(self.finish_reasons.items()))
        lines = [self._count_in_words(f" ({reasons})" if reasons else "")]
        if self.n_generated and wall_s > 0:
            cached = f" ({self.n_cached} cached)" if self.n_cached else ""
            lines.append(
                f"{self.n_prompt} prompt tokens{cached} and {self.n_generated} generated in {wall_s:.1f} s:"
                f" {self.n_done / wall_s:.2f} replies/s,"
                f" {(self.n_prompt - self.n_cached) / wall_s:.0f} tok/s in,"
                f" {self.n_generated / wall_s:.0f} tok/s out"
            )
            lines += _table(
                {
                    "queue": self.queue_s,
                    "first token": self.ttft_s,
                    "between tokens": self.token_s,
                    "in all": self.total_s,
                }
            )
            if self.busy_s:
                lines.append(
                    f"{self.width} slots, {self.busy_s / (wall_s * self.width):.0%} of their time in use"
                )
            if padding := round(100 * self.n_dummy_rows / max(self.n_decode_rows, 1)):
                lines[-1] += f", {padding}% of the decode rows padding"
        if (peak := peak_memory()) is not None:
            lines[-1] += f"; {size_text(peak)} of memory"
        return lines


def summary_of(
    job: JobFile,
    tally: Tally,
    wall_s: float,
    mode: Mode,
    promise: Promise,
    quicker: Sequence[str],
    output: Path | None,
) -> dict[str, object]:
    """The object of `--summary`. `quicker`: flags with which the job would have taken less time."""
    return {
        "id": job.id,
        "output": None if output is None else str(output),
        "model": job.model._asdict(),
        "fingerprint": job.fingerprint,
        "mode": mode,
        "promise": promise,
        "quicker": list(quicker),
        "run_seed": job.run_seed,
        **tally.as_json(wall_s),
    }


def peak_memory() -> int | None:
    """Bytes of this process at their most; None where the system does not say (Windows)."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _table(seconds: Mapping[str, Iterable[float]]) -> list[str]:
    """Quantiles, a line for each name that has values."""
    lines = [f"{'seconds':<15}" + "".join(f"{f'p{q}':>9}" for q in QUANTILES)]
    for name, values in seconds.items():
        if ordered := sorted(values):
            lines.append(f"{name:<15}" + "".join(f"{_quantile(ordered, q):9.3f}" for q in QUANTILES))
    return lines


def rate(n: float, of: float) -> float | None:
    """None for a rate of nothing."""
    return n / of if of > 0 else None


def _quantiles(values: Iterable[float]) -> dict[str, float] | None:
    ordered = sorted(values)
    return {f"p{q}": _quantile(ordered, q) for q in QUANTILES} if ordered else None


def _quantile(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that at least so many percent of all do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
