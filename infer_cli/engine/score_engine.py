"""Turns texts into likelihoods: one decode call a `step`, single-threaded, no I/O, the clock passed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from infer_cli.backend.base import Backend, DecodeStatus
from infer_cli.engine.admission import why_no_score
from infer_cli.engine.engine import FAILURES
from infer_cli.engine.likelihood import LogSoftmax, RowNorm, is_likeliest
from infer_cli.engine.mode_policy import ModePolicy
from infer_cli.engine.score_memory import ChunkMemory, EvaluatedPart, ScoreMemory, TreeMemory
from infer_cli.engine.score_tree import TreeLimits, Wanted
from infer_cli.errors import ExitStatus
from infer_cli.types import (
    Event,
    Finished,
    FinishReason,
    Likelihood,
    Prefilled,
    ScoreRequest,
    Timings,
    Usage,
)

if TYPE_CHECKING:
    from infer_cli.backend.base import Floats

# Is shown the row of logits, of shape (n_vocab,), from which the token at a position of a request follows: a
# view that is valid during the call.
OnRow = Callable[[ScoreRequest, int, "Floats"], None]


@dataclass(eq=False)
class ActiveScore:
    """A request with everything that changes while it runs. Times are the engine clock's, in seconds."""

    request: ScoreRequest
    submitted: float
    admitted: float | None = None
    n_evaluated: int = 0  # rows for it, or for it first
    greedy: bool = True
    logprobs: list[float] = field(default_factory=list)

    @property
    def n_total(self) -> int:
        """Tokens that are evaluated: nothing is to be known of what follows the last one."""
        return len(self.request.ids) - 1

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.request.ids[:-1], self.request.first - 1 + len(self.logprobs))

    def expired(self, now: float) -> bool:
        limit = self.request.deadline_s
        return limit is not None and now - self.submitted >= limit


class ScoreEngine:
    """Scores requests over a context of its own, first come, first served. Every submitted request gets
    exactly one `Finished`.

    Those that wait together share what they begin with alike: submit many, in the order of their ids.
    `window` is the most tokens that are evaluated of one.
    """

    def __init__(
        self,
        backend: Backend,
        policy: ModePolicy,
        clock: Callable[[], float],
        window: int,
        load_s: float = 0.0,
        on_row: OnRow | None = None,
    ) -> None:
        self._backend, self._clock, self._window, self._load_s = backend, clock, window, load_s
        self._on_row = on_row
        self._interruptible = policy.interruptible
        self._memory = memory_for(backend, policy)
        self._softmax = LogSoftmax(backend.vocab.n_tokens)
        self._waiting: dict[str, ActiveScore] = {}
        self._refused: dict[str, Finished] = {}
        self._cancelled: set[str] = set()
        self.n_ahead = 2 * backend.n_seq_max

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._refused

    @property
    def prefilling(self) -> bool:
        """Whether the next step may be long."""
        return bool(self._waiting)

    def submit(self, request: ScoreRequest, submitted: float) -> None:
        """Queue a request that came at clock time `submitted`. One that can't run ends with the next step,
        alone, with reason "error".

        Raises ValueError where its id is in use.
        """
        if request.id in self._waiting or request.id in self._refused:
            raise ValueError(f"request id {request.id!r} is in use")
        active = ActiveScore(request, submitted)
        error = why_no_score(request, self._window, self._backend.vocab.n_tokens)
        if error is None:
            self._waiting[request.id] = active
        else:
            self._refused[request.id] = self._end(active, "error", error)

    def cancel(self, request_id: str) -> None:
        """End a request at the next step. Unknown ids are ignored: it may just have ended."""
        if request_id in self._waiting:
            self._cancelled.add(request_id)

    def abort(self) -> None:
        """End the decode call that runs, if that can be taken up again. Any thread."""
        if self._interruptible:
            self._backend.abort()

    def resume(self) -> None:
        """Take `abort` back."""
        self._backend.resume()

    def close(self) -> None:
        """Give the context's memory back."""
        self._backend.close()

    def step(self) -> list[Event]:
        """One decode call, for as many requests as it takes."""
        events: list[Event] = [*self._refused.values()]
        self._refused.clear()
        events += self._end_expired()
        if not self._waiting:
            return events
        waiting = list(islice(self._waiting.values(), self._backend.n_seq_max))
        now = self._clock()
        done = self._memory.evaluate([active.wanted for active in waiting])
        if done.status is DecodeStatus.ABORTED:
            return events
        if done.status is not DecodeStatus.OK:
            message = FAILURES.get(done.status, "llama.cpp could not compute the batch")
            return events + [self._finish(active, "error", message) for active in waiting[: done.n_taken]]
        logits = self._backend.logits(done.n_outputs) if done.n_outputs else None
        norms: dict[int, RowNorm | None] = {}
        for n, (active, part) in enumerate(zip(waiting, done.parts, strict=False)):
            if active.admitted is None and n < done.n_taken:
                active.admitted = now
            if logits is not None and not self._take(active, part, logits, norms):
                message = "the model computed NaN"
                events.append(self._finish(active, "error", message, ExitStatus.MODEL_INVALID))
                continue
            active.n_evaluated += part.n_new
            if n < done.n_taken:
                events.append(Prefilled(active.request.id, part.end, active.n_total))
            if part.end == active.n_total:
                events.append(self._finish(active, "stop"))
        return events

    def _end_expired(self) -> list[Event]:
        now = self._clock()
        events: list[Event] = []
        for active in list(self._waiting.values()):
            if active.request.id in self._cancelled:
                events.append(self._finish(active, "cancelled"))
            elif active.expired(now):
                events.append(self._finish(active, "deadline"))
        self._cancelled.clear()
        return events

    def _take(
        self, active: ActiveScore, part: EvaluatedPart, logits: Floats, norms: dict[int, RowNorm | None]
    ) -> bool:
        """Take what a call has computed of a request; False where that is NaN. `norms` are of rows of logits,
        which others may share."""
        request = active.request
        for position, output in enumerate(part.outputs, part.first_output + 1):
            row, token = logits[output], request.ids[position]
            if output not in norms:
                norms[output] = self._softmax.norm(row)
            norm = norms[output]
            if norm is None:
                return False
            active.logprobs.append(norm.logprob(float(row[token])))
            active.greedy = active.greedy and is_likeliest(row, token, norm)
            if self._on_row is not None:
                self._on_row(request, position, row)
        return True

    def _finish(
        self,
        active: ActiveScore,
        reason: FinishReason,
        error: str | None = None,
        error_status: ExitStatus = ExitStatus.UNEXPECTED,
    ) -> Finished:
        del self._waiting[active.request.id]
        return self._end(active, reason, error, error_status)

    def _end(
        self,
        active: ActiveScore,
        reason: FinishReason,
        error: str | None = None,
        error_status: ExitStatus = ExitStatus.UNEXPECTED,
    ) -> Finished:
        now, n = self._clock(), active.n_total
        admitted = now if active.admitted is None else active.admitted
        total_s = now - active.submitted
        return Finished(
            active.request.id,
            reason,
            b"",
            (),
            b"",
            None,
            Usage(n, max(0, n - active.n_evaluated) if reason == "stop" else 0, 0),
            Timings(self._load_s, admitted - active.submitted, None, total_s, None, None),
            error,
            error_status,
            Likelihood(tuple(active.logprobs), active.greedy) if reason == "stop" else None,
        )


def memory_for(backend: Backend, policy: ModePolicy) -> ScoreMemory:
    """As the policy's shapes want it. A state that can't be cut is evaluated text by text too."""
    if policy.scores_as_tree:
        limits = TreeLimits(backend.n_batch, backend.n_outputs_max, backend.n_seq_max, policy.min_rows)
        return TreeMemory(backend, limits)
    chunk = policy.chunk if policy.fixed_width else min(policy.chunk, backend.n_outputs_max)
    return ChunkMemory(backend, chunk, every_row=policy.fixed_width)
