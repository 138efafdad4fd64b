"""What a first pass over the input has found: how much there is, and what it needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from infer_cli.errors import ExitStatus

_SHARE = 4
# Tokens. To expand and to measure takes as long as to read some 2,000 (500 for the copy, 550 for two
# readings, 900 for decode steps), or as 16 replies side by side take for 1,400.
_LEAST_READ, _LEAST_WRITTEN = 4096, 16_384
_MANY = 16  # replies side by side
_READ_SHARE = 2  # a token of a lone reply then costs what reading about one more would
_LIKELY_REPLY = 256  # tokens; most replies end long before they must


@dataclass
class Scan:
    """`n_rows` and `rows_sha256` are of the whole input, everything else of this shard's rows."""

    n_rows: int = 0
    rows_sha256: str = ""
    n_mine: int = 0
    n_replies: int = 0
    n_window: int = 0  # the largest row's prompt and reply, tokens
    n_score_window: int = 0  # the largest row's tokens of which likelihoods are asked
    n_prompt_tokens: int = 0  # of the rows that are still to be answered
    n_distinct_tokens: int = 0  # of these, without beginnings that an earlier row has too, in whole pieces
    n_reply_tokens: int = 0  # of their replies at most
    n_longest_reply: int = 0  # tokens, at most
    n_to_answer: int = 0  # replies
    n_truncated: int = 0  # rows whose prompts are cut
    sampled: bool = False  # any row
    failures: dict[int, int] = field(default_factory=dict)  # rows that can't be answered, by exit code
    changed: list[int] = field(default_factory=list)  # rows that were answered when they said something else

    def failing(self) -> dict[str, float]:
        """Rows that can't be answered, and those of them that do not fit."""
        return {
            "failing": sum(self.failures.values()),
            "does_not_fit": self.failures.get(ExitStatus.DOES_NOT_FIT, 0),
        }

    @property
    def mostly_shared(self) -> bool:
        """Whether one memory for all pays (`ModePolicy.kv_unified`): what prompts begin alike with is by far
        more than all else that they and their replies hold.

        It lets short prompts be read together, but each step passes over what the others hold alone. GSM8K
        questions behind six examples (a share of 6) were answered 1.15 times as fast, behind four (4) 1.02
        times, behind two (2) 0.96 times.
        """
        n_shared = self.n_prompt_tokens - self.n_distinct_tokens
        return n_shared > _SHARE * (self.n_distinct_tokens + self.n_reply_tokens)

    def is_worth_trying_f16(self, n_beside: int) -> bool:
        """Whether weights of another type (`EngineOptions.expand`) may save far more than it takes to have
        them and to measure. `n_beside`: replies side by side.

        As F16 a prompt is read 2.3 times as fast, and 16 replies go on 1.5 times as fast, 520 tokens a second
        in place of 350: all the work counts. One alone goes on 0.8 times as fast: where they are few, prompts
        have to be by far most of the work.
        """
        if n_beside < _MANY:
            return self.n_distinct_tokens >= max(_LEAST_READ, _READ_SHARE * self.n_reply_tokens)
        n_written = min(self.n_reply_tokens, _LIKELY_REPLY * self.n_to_answer)
        return self.n_distinct_tokens / _LEAST_READ + n_written / _LEAST_WRITTEN >= 1
