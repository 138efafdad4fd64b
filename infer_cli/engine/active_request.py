"""A request with everything that changes while the engine works on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from infer_cli.backend.base import SamplerHandle, Vocab
from infer_cli.engine import history
from infer_cli.engine.drafting import PromptLookup
from infer_cli.engine.reasoning_limit import ReasoningLimit
from infer_cli.errors import ExitStatus
from infer_cli.text.stream import StopMatcher
from infer_cli.types import EngineRequest, Finished, FinishReason, Segment, Timings, TokenLogprobs, Usage


def piece_of(request: EngineRequest, token: int, vocab: Vocab) -> tuple[bytes, bool]:
    """What a token of a reply stands for in its text, and whether the reply ends with it."""
    if vocab.is_eog(token):
        return b"", True
    return request.shown_tokens.get(token) or vocab.piece(token), False


@dataclass(eq=False)
class ActiveRequest:
    """A request with everything that changes while it runs. Times are the engine clock's, in seconds."""

    request: EngineRequest
    wanted: tuple[Segment, ...]  # all that is to be evaluated before the reply
    ids: tuple[int, ...]  # the same, flat
    window_room: int  # tokens of the reply, at most, that fit the window behind them
    submitted: float
    stops: StopMatcher
    sampler: SamplerHandle | None = None  # None: plain argmax
    admitted: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    n_cached: int = 0
    lookup: PromptLookup | None = None  # where speculation is allowed
    limit: ReasoningLimit | None = None  # where the reasoning has a budget
    tokens: list[int] = field(default_factory=list)
    text: bytearray = field(default_factory=bytearray)
    logprobs: list[TokenLogprobs] = field(default_factory=list)

    def id_at(self, position: int) -> int:
        return self.ids[position] if position < len(self.ids) else self.tokens[position - len(self.ids)]

    def evaluated(self, n: int) -> tuple[Segment, ...]:
        """The first n tokens of all, as they were evaluated."""
        return history.first(history.normalized((*self.wanted, Segment("decoded", tuple(self.tokens)))), n)

    def expired(self, now: float) -> bool:
        limit = self.request.deadline_s
        return limit is not None and now - self.submitted >= limit

    def append(self, token: int, piece: bytes, is_end: bool, now: float) -> tuple[bytes, FinishReason | None]:
        """Add a token that stands for `piece`; `is_end` where the model ends the reply with it.

        Returns what of the text can be shown by now, and why the reply ends here, or None where it goes on.
        """
        self.last_token = now
        if self.first_token is None:
            self.first_token = now
        self.tokens.append(token)
        if self.lookup is not None:
            self.lookup.append(token)
        if self.limit is not None:
            self.limit.take(piece)
        released, matched = self.stops.feed(piece)
        self.text += released
        if is_end:
            return released, "stop"
        if matched is not None:
            return released, "stop_string"
        n = len(self.tokens)
        if n >= self.request.max_tokens:
            return released, "length"
        return released, "context" if n >= self.window_room else None

    def finish(
        self, reason: FinishReason, now: float, load_s: float, error: str | None, error_status: ExitStatus
    ) -> Finished:
        """The end at clock time `now`, for `reason`, unless what was held back turns out to be a stop string.

        Gives the sampler back.
        """
        tail, matched = self.stops.finish()
        self.text += tail
        if matched is not None:
            reason = "stop_string"
        if self.sampler is not None:
            self.sampler.close()
        return Finished(
            self.request.id,
            reason,
            tail,
            tuple(self.tokens),
            bytes(self.text),
            tuple(self.logprobs) if self.request.n_logprobs is not None else None,
            Usage(len(self.ids), self.n_cached, len(self.tokens)),
            self._timings(now, load_s),
            error,
            error_status,
        )

    def _timings(self, now: float, load_s: float) -> Timings:
        admitted = self.admitted if self.admitted is not None else now
        first, last, n = self.first_token, self.last_token, len(self.tokens)
        prefill_tps = decode_tps = None
        if first is not None and first > admitted:
            prefill_tps = (len(self.ids) - self.n_cached) / (first - admitted)
        if first is not None and last is not None and last > first:
            decode_tps = (n - 1) / (last - first)
        return Timings(
            load_s=load_s,
            queue_s=admitted - self.submitted,
            ttft_s=None if first is None else first - self.submitted,
            total_s=now - self.submitted,
            prefill_tps=prefill_tps,
            decode_tps=decode_tps,
        )
