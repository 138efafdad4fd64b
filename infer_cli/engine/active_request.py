"""A request with everything that changes while the engine works on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from infer_cli.backend.base import SamplerHandle
from infer_cli.engine import history
from infer_cli.engine.drafting import PromptLookup
from infer_cli.text.stream import StopMatcher
from infer_cli.types import (
    EngineRequest,
    Segment,
    TokenLogprobs,
)


@dataclass(eq=False)
class ActiveRequest:
    """A request with everything that changes while it runs."""

    request: EngineRequest
    wanted: tuple[Segment, ...]  # all that is to be evaluated before the reply
    ids: tuple[int, ...]  # the same, flat
    submitted: float
    stops: StopMatcher
    sampler: SamplerHandle | None = None  # None: plain argmax
    admitted: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    n_cached: int = 0
    lookup: PromptLookup | None = None  # where speculation is allowed
    tokens: list[int] = field(default_factory=list)
    text: bytearray = field(default_factory=bytearray)
    logprobs: list[TokenLogprobs] = field(default_factory=list)

    @property
    def n_total(self) -> int:
        return len(self.ids) + len(self.tokens)

    def id_at(self, position: int) -> int:
        return self.ids[position] if position < len(self.ids) else self.tokens[position - len(self.ids)]

    def evaluated(self, n: int) -> tuple[Segment, ...]:
        """The first n tokens of all, as they were evaluated."""
        return history.first(history.normalized((*self.wanted, Segment("decoded", tuple(self.tokens)))), n)

    def expired(self, now: float) -> bool:
        limit = self.request.deadline_s
        return limit is not None and now - self.submitted >= limit
