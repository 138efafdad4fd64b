"""A reply that is claimed, walked through token by token: what ends it, and how far each token is from the
one that the model takes here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from infer_cli.checking.draw_bounds import MOST, Penalties, drawn_distance, greedy_distance
from infer_cli.engine.active_request import ActiveRequest, piece_of
from infer_cli.engine.logprobs import token_logprobs
from infer_cli.engine.reasoning_limit import ReasoningLimit
from infer_cli.errors import ExitStatus
from infer_cli.text.stream import StopMatcher
from infer_cli.types import EngineRequest, Finished, ScoreRequest, Segment, TokenLogprobs

if TYPE_CHECKING:
    from infer_cli.backend.base import Draws, Floats, Vocab
    from infer_cli.runtime.model_protocols import LoadedModel


LEAST_TOKENS = 32  # that an average is taken of: of fewer, one doubtful token would decide


class Step(NamedTuple):
    """A token of a reply that is `nats` from the one that the model takes here."""

    token: int  # its place in the reply, from 0
    nats: float
    was: int
    now: int


class WrongEnd(Exception):
    """A reply does not end where its tokens end it."""


class ClaimedWalk:
    """One reply. `window` is what a prompt and its reply may fill, in tokens. `draws` None: it is greedy.

    Raises WrongEnd.
    """

    def __init__(
        self, request: EngineRequest, tokens: tuple[int, ...], loaded: LoadedModel, draws: Draws | None
    ) -> None:
        self._request, self._tokens, self._draws = request, tokens, draws
        self._params = request.sampling if draws is None else draws.followed
        self._penalties = Penalties(self._params, loaded.n_ctx_train)
        self._penalties.accept(request.prompt_ids)
        walked = _walked(request, tokens, loaded.vocab, loaded.window)
        self._active, self._forced = walked.end, walked.forced
        self._logprobs: list[TokenLogprobs] = []
        self.farthest = Step(0, 0.0, tokens[0], tokens[0])
        self._total = 0.0

    @property
    def score_request(self) -> ScoreRequest:
        """What the engine for likelihoods is asked: it shows the rows that the reply's tokens follow from."""
        prompt = self._request.prompt_ids
        return ScoreRequest(self._request.id, (*prompt, *self._tokens), len(prompt))

    @property
    def mean(self) -> float:
        """How far its tokens are on average, in nats. A short reply counts as one of `LEAST_TOKENS`."""
        return self._total / max(len(self._tokens), LEAST_TOKENS)

    def see(self, position: int, row: Floats) -> None:
        """The row of logits that the token at a position of the request follows from; in their order."""
        number = position - len(self._request.prompt_ids)
        token = self._tokens[number]
        if number not in self._forced:
            self._measure(number, token, row)
        self._penalties.accept([token])
        if self._request.n_logprobs is not None:
            self._logprobs.append(token_logprobs(row, token, self._request.n_logprobs))

    def _measure(self, number: int, token: int, row: Floats) -> None:
        if self._draws is None:
            distance = greedy_distance(row, token, self._penalties)
        else:
            distance = drawn_distance(row, token, self._params, self._penalties, self._draws.draw())
        self._total += min(distance.nats, MOST)
        if distance.nats > self.farthest.nats:
            self.farthest = Step(number, distance.nats, token, distance.likeliest)

    def finished(self) -> Finished:
        """The end that the engine would have told, with log-probabilities of this model."""
        end = self._active
        return end._replace(logprobs=None if end.logprobs is None else tuple(self._logprobs))


class _Walked(NamedTuple):
    """`forced`: places of the tokens that a budget of reasoning put in, which the model did not choose."""

    end: Finished
    forced: frozenset[int]


def _walked(request: EngineRequest, tokens: tuple[int, ...], vocab: Vocab, window: int) -> _Walked:
    ids = request.prompt_ids
    active = ActiveRequest(
        request,
        (Segment("prompt", ids),),
        ids,
        window - len(ids),
        0.0,
        StopMatcher(request.stop),
        limit=None if request.reasoning is None else ReasoningLimit(request.reasoning),
    )
    forced = set()
    for number, token in enumerate(tokens, 1):
        due = None if active.limit is None else active.limit.next_token
        if due is not None:
            if token != due:
                raise WrongEnd(f"its reasoning goes on at token {number}, where its budget ends it")
            forced.add(number - 1)
        piece, is_end = piece_of(request, token, vocab)
        _, reason = active.append(token, piece, is_end, 0.0)
        if reason is not None:
            if number < len(tokens):
                raise WrongEnd(f"it goes on after token {number}, which ends it ({reason})")
            return _Walked(active.finish(reason, 0.0, 0.0, None, ExitStatus.OK), frozenset(forced))
    raise WrongEnd(f"nothing ends it after {len(tokens)} tokens")
