"""A long prompt in `fast`: weights as F16 in memory read it, where that takes less time with all it costs.

The engine with the stored weights, which writes replies faster, goes on from there. By a rule: to measure
would take as long as many a prompt.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from infer_cli.engine.service import Submission
from infer_cli.errors import InferError, UnexpectedFailure
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.runtime.session import Session
from infer_cli.system.ids import new_id
from infer_cli.types import EngineRequest, Finished, Prefilled, SamplingParams, Segment

if TYPE_CHECKING:
    from infer_cli.engine.service import Service

_LOOK_S = 0.05  # how often a load is looked at


class Reading(NamedTuple):
    """What came of it: the seconds that it took, with all it costs, and the prompt's tokens that were in
    memory before. `n_before` None: the engine is left to read the prompt itself."""

    seconds: float = 0.0
    n_before: int | None = None

    def counted_in(self, end: Finished, sample: int) -> Finished:
        """The end of a reply that came after it: as of one that began with it, and had the prompt read."""
        usage, timings = end.usage, end.timings
        if self.n_before is not None and sample == 0:  # other samples found it in memory
            usage = usage._replace(cached_tokens=self.n_before)
        ttft_s, prefill_tps = timings.ttft_s, timings.prefill_tps
        if ttft_s is not None and prefill_tps is not None:
            ttft_s += self.seconds
            prefill_tps = (usage.prompt_tokens - usage.cached_tokens) / (ttft_s - timings.queue_s)
        return end._replace(
            usage=usage,
            timings=timings._replace(
                ttft_s=ttft_s, prefill_tps=prefill_tps, total_s=timings.total_s + self.seconds
            ),
        )


class ReadingView(Protocol):
    """What is told of it as it happens."""

    def status(self, text: str) -> None:
        """What is being waited for."""

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...


class PromptReader:
    """Has one prompt read with F16 weights for a running engine with the stored ones. Their memory is given
    back before the reply begins."""

    def __init__(self, session: Session, running: RunningEngine, view: ReadingView) -> None:
        self._session, self._running, self._view = session, running, view
        self._submission = Submission()

    def cancel(self) -> None:
        """Stop, before it begins too. Safe in a signal handler."""
        self._submission.cancel()

    def read(
        self, ids: tuple[int, ...], deadline_s: float | None, on_prefill: Callable[[int], None]
    ) -> Reading:
        """Let the idle engine hold all tokens of a prompt but the last, where F16 weights read them faster.

        `deadline_s` is seconds from now; `on_prefill` takes how many tokens are read. Never fails: the view
        is warned where F16 weights could not be had.
        """
        began = time.perf_counter()
        if not self._pays(ids):
            return Reading()
        until = None if deadline_s is None else began + deadline_s
        n_before = None
        try:
            n_before = self._read(ids, until, on_prefill)
        except (InferError, MemoryError) as e:
            why = e.message if isinstance(e, InferError) else "there is no memory for what was read"
            self._view.warn(f"weights are as they are stored: {why}")
        return Reading(time.perf_counter() - began, n_before)

    def _pays(self, ids: tuple[int, ...]) -> bool:
        from infer_cli.runtime.f16_weights import LEAST_READ

        policy = self._running.policy
        if policy.mode != "fast" or self._session.options.expand or not policy.fill_holes:
            return False
        if len(ids) < LEAST_READ or len(ids) - self._running.service.n_held(ids) < LEAST_READ:
            return False
        # Twice: what was read is there in a context, and on its way to the other one.
        return self._session.loaded.may_expand(2 * len(ids))

    def _read(
        self, ids: tuple[int, ...], until: float | None, on_prefill: Callable[[int], None]
    ) -> int | None:
        """Returns how many tokens were in memory before; None where it was stopped. Raises InferError,
        MemoryError."""
        self._view.status("making F16 weights, which read long prompts faster")
        expanded = self._session.with_f16_weights()
        if not self._is_loaded(expanded, until):
            _close_when_loaded(expanded)
            return None
        try:
            self._view.note("the prompt is long: F16 weights in memory read it")
            quick = expanded.start(len(ids))
            try:
                return self._read_with(quick, ids, until, on_prefill)
            finally:
                quick.close()
        finally:
            expanded.close()

    def _is_loaded(self, expanded: Session, until: float | None) -> bool:
        """Whether a load has ended in time. Raises what it failed with."""
        while not expanded.wait(_LOOK_S):
            if self._submission.is_cancelled or (until is not None and time.perf_counter() >= until):
                return False
        return True

    def _read_with(
        self,
        quick: RunningEngine,
        ids: tuple[int, ...],
        until: float | None,
        on_prefill: Callable[[int], None],
    ) -> int | None:
        stored, n_before = self._running.service, self._running.service.n_held(ids)
        if n_before:  # where it can't be handed over, it can't be gone on from either
            _hand_over(stored, quick.service, ids[:n_before])
        # The last token is the other engine's: its logits are those that the reply begins with.
        end = self._evaluate(quick.service, ids[:-1], until, on_prefill)
        if end.reason in ("cancelled", "deadline"):
            return None
        if end.error is not None:
            raise UnexpectedFailure(end.error)
        if not _hand_over(quick.service, stored, ids[:-1]):
            raise UnexpectedFailure("what they have read could not be handed over")
        return end.usage.cached_tokens

    def _evaluate(
        self,
        service: Service,
        ids: tuple[int, ...],
        until: float | None,
        on_prefill: Callable[[int], None],
    ) -> Finished:
        deadline_s = None if until is None else max(0.0, until - time.perf_counter())
        request = EngineRequest(
            new_id(), ids, SamplingParams(), max_tokens=1, deadline_s=deadline_s, streams=False
        )
        end: Finished | None = None
        for event in self._submission.submit(service, [request]):
            if isinstance(event, Prefilled):
                on_prefill(event.done)
            elif isinstance(event, Finished):
                end = event
        assert end is not None  # each request has one
        return end


def _hand_over(source: Service, target: Service, ids: tuple[int, ...]) -> bool:
    """Let an idle engine hold what another one has evaluated of just these tokens; whether it does. Raises
    MemoryError."""
    segments = (Segment("prompt", ids),)
    state = source.snapshot(segments)
    return state is not None and target.adopt(segments, state)


def _close_when_loaded(session: Session) -> None:
    """Nobody waits for it."""

    def close() -> None:
        with contextlib.suppress(InferError):  # then there is nothing to close
            session.close()

    threading.Thread(target=close, name="infer-close", daemon=True).start()
