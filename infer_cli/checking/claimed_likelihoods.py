"""What a results file says of likelihoods. The file may be anyone's: all that is read here is checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from infer_cli.answering.reply import finite
from infer_cli.batch.output_index import Line
from infer_cli.batch.pairs import POLICIES, PairPolicy
from infer_cli.checking.claimed_values import (
    custom_id_of,
    error_code_of,
    tokens_of,
    truncation_of,
    value_of,
    whole,
    wrong,
)
from infer_cli.settings.defaults import MOST_TOKENS

_MOST_BYTES = 2**63 - 1


class LikelihoodClaim(NamedTuple):
    """One likelihood as a line has it. `token_logprobs` None: it failed, and `error_code` is there."""

    row: int
    custom_id: str
    sample: int
    tokens: tuple[int, ...]
    token_logprobs: tuple[float, ...] | None
    logprob: float | None
    logprob_per_token: float | None
    logprob_per_byte: float | None
    n_tokens: int
    n_bytes: int
    n_chars: int
    digest: str
    n_prompt: int  # tokens
    truncation: Mapping[str, object] | None
    overflow: PairPolicy  # what its context was cut by
    error_code: int | None

    @property
    def has_answer(self) -> bool:
        return self.token_logprobs is not None or bool(self.tokens)

    @property
    def contradiction(self) -> str:
        """What of its own values does not fit together; empty where all does. The digest is over ids too that
        only the row has."""
        if (self.token_logprobs is None) != (self.error_code is not None):
            return "it has an error and a likelihood, or neither"
        if self.n_tokens != len(self.tokens):
            return f"its n_tokens is {self.n_tokens}, it has {len(self.tokens)}"
        if self.token_logprobs is None:
            return "" if self._sums == (None, None, None) else "it has failed, and has a likelihood"
        if not self.tokens or len(self.token_logprobs) != len(self.tokens) or not self.n_bytes:
            return "its token_logprobs are not as many as its tokens"
        logprob = math.fsum(self.token_logprobs)
        sums = (finite(logprob), finite(logprob / self.n_tokens), finite(logprob / self.n_bytes))
        return "" if self._sums == sums else "its logprob is not that of its token_logprobs"

    @property
    def _sums(self) -> tuple[float | None, float | None, float | None]:
        return self.logprob, self.logprob_per_token, self.logprob_per_byte


def likelihood_claim(line: Line) -> LikelihoodClaim:
    """Raises UsageError for a line that is not as it should be."""
    value = line.value
    usage = value_of(line, value, "usage", dict)
    return LikelihoodClaim(
        line.row,
        custom_id_of(line),
        whole(line, "sample", value.get("sample"), 0, 0),
        tokens_of(line),
        _token_logprobs(line),
        _logprob(line, "logprob"),
        _logprob(line, "logprob_per_token"),
        _logprob(line, "logprob_per_byte"),
        whole(line, "n_tokens", value.get("n_tokens"), 0, MOST_TOKENS),
        whole(line, "n_bytes", value.get("n_bytes"), 0, _MOST_BYTES),
        whole(line, "n_chars", value.get("n_chars"), 0, _MOST_BYTES),
        value_of(line, value, "digest", str),
        whole(line, "prompt_tokens", usage.get("prompt_tokens"), 0, MOST_TOKENS),
        *truncation_of(line, value, POLICIES, "error"),
        error_code_of(line),
    )


def _token_logprobs(line: Line) -> tuple[float, ...] | None:
    if line.value.get("token_logprobs") is None:
        return None
    found = value_of(line, line.value, "token_logprobs", list)
    return tuple(-math.inf if item is None else _real(line, "token_logprobs", item) for item in found)


def _logprob(line: Line, name: str) -> float | None:
    value = line.value.get(name)
    return None if value is None else _real(line, name, value)


def _real(line: Line, name: str, value: object) -> float:
    if not isinstance(value, float) or not math.isfinite(value):  # Python's JSON has NaN
        raise wrong(line, name, value)
    return value
