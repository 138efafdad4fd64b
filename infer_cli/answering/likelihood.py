"""How likely a model finds a continuation: the public form of it, its JSON object and its digest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from infer_cli.answering.reply import digest_of, finite, timings_json
from infer_cli.errors import ExitStatus
from infer_cli.types import (
    EngineIdentity,
    Finished,
    FinishReason,
    Mode,
    ModelIdentity,
    Promise,
    Provenance,
    ReplyError,
    Timings,
    Usage,
)


@dataclass(frozen=True)
class ScoredPair:
    """The likelihood of one continuation after its context. `as_json` gives its public form.

    `tokens` are the continuation's ids, `n_bytes` and `n_chars` the length of its text, in UTF-8 and in code
    points. `token_logprobs` are natural logarithms, one a token; None where it failed: `error` says why.
    `greedy`: each token is the one that greedy decoding would have chosen.
    """

    id: str
    custom_id: str | None
    tokens: tuple[int, ...]
    n_bytes: int
    n_chars: int
    token_logprobs: tuple[float, ...] | None
    greedy: bool | None
    digest: str
    usage: Usage
    timings: Timings
    mode: Mode
    promise: Promise
    probed: bool
    model: ModelIdentity
    engine: EngineIdentity
    truncation: dict[str, object] | None = None
    error: ReplyError | None = None
    sample: int = 0

    @property
    def finish_reason(self) -> FinishReason:
        """As a reply has it: `stop` where there is a likelihood."""
        return "stop" if self.error is None else "error"

    @property
    def logprob(self) -> float | None:
        """Of the whole continuation: the exact sum, rounded once."""
        return None if self.token_logprobs is None else math.fsum(self.token_logprobs)

    @property
    def logprob_per_token(self) -> float | None:
        return None if self.logprob is None else self.logprob / len(self.tokens)

    @property
    def logprob_per_byte(self) -> float | None:
        return None if self.logprob is None else self.logprob / self.n_bytes


def digest(
    context: Sequence[int], continuation: Sequence[int], token_logprobs: Sequence[float] | None
) -> str:
    """`sha256:` and the hex hash over exactly these three values; equal digests mean the same likelihood.

    Hashed is the JSON object `{"context", "continuation", "token_logprobs"}`, ids and natural logarithms, in
    the canonical form of `answering.reply.digest`. `context` is what was evaluated before the continuation,
    BOS included. The logarithm of a token that can't come is null.
    """
    return digest_of(
        {
            "context": list(context),
            "continuation": list(continuation),
            "token_logprobs": _logprobs_json(token_logprobs),
        }
    )


def scored_pair_of(
    end: Finished,
    came_from: Provenance,
    *,
    pair_id: str,
    custom_id: str | None = None,
    context: Sequence[int],
    continuation: Sequence[int],
    text: str,
    mode: Mode,
    promise: Promise,
    truncation: dict[str, object] | None = None,
    error: ReplyError | None = None,
) -> ScoredPair:
    """The likelihood that the engine's last word on a `ScoreRequest` tells; `text` is the continuation's.

    `error`: why it failed before it came to the engine; `end` is `NOTHING_COMPUTED` then.
    """
    error = error or _error_of(end)
    found = None if error is not None else end.likelihood
    logprobs = None if found is None else found.token_logprobs
    return ScoredPair(
        id=pair_id,
        custom_id=custom_id,
        tokens=tuple(continuation),
        n_bytes=len(text.encode()),
        n_chars=len(text),
        token_logprobs=logprobs,
        greedy=None if found is None else found.greedy,
        digest=digest(context, continuation, logprobs),
        usage=end.usage,
        timings=end.timings,
        mode=mode,
        promise=promise,
        probed=came_from.probed,
        model=came_from.model,
        engine=came_from.engine,
        truncation=truncation,
        error=error,
    )


def _error_of(end: Finished) -> ReplyError | None:
    if end.reason == "deadline":
        return {"code": int(ExitStatus.DEADLINE), "message": "the deadline came before the likelihood"}
    if end.reason == "cancelled":
        return {"code": int(ExitStatus.INTERRUPTED), "message": "it was cancelled"}
    if end.reason == "error":
        return {"code": int(end.error_status), "message": end.error}
    return None


def as_json(pair: ScoredPair) -> dict[str, object]:
    """The object of `infer score --json` and of a line of its output, in its fixed key order.

    Logarithms that are not finite become null.
    """
    return {
        "id": pair.id,
        "custom_id": pair.custom_id,
        "sample": pair.sample,
        "logprob": finite(pair.logprob),
        "n_tokens": len(pair.tokens),
        "n_bytes": pair.n_bytes,
        "n_chars": pair.n_chars,
        "logprob_per_token": finite(pair.logprob_per_token),
        "logprob_per_byte": finite(pair.logprob_per_byte),
        "token_logprobs": _logprobs_json(pair.token_logprobs),
        "greedy": pair.greedy,
        "tokens": list(pair.tokens),
        "digest": pair.digest,
        "usage": pair.usage._asdict(),
        "timings": timings_json(pair.timings),
        "mode": pair.mode,
        "promise": pair.promise,
        "probed": pair.probed,
        "model": pair.model._asdict(),
        "engine": pair.engine._asdict(),
        "truncation": pair.truncation,
        "error": pair.error,
    }


def _logprobs_json(logprobs: Sequence[float] | None) -> list[float | None] | None:
    return None if logprobs is None else [finite(logprob) for logprob in logprobs]
