"""Which engine a batch has: what is asked for, what the job was begun with, or the best for its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from infer_cli.batch.job import DEFAULT_WIDTH, LEAST_WINDOW, JobFile, Shard
from infer_cli.engine.mode_policy import canonical_width
from infer_cli.runtime.calibration import LEAST_REPLIES, best_width

if TYPE_CHECKING:
    from infer_cli.batch.scanned import Scan
    from infer_cli.engine.mode_policy import ModePolicy
    from infer_cli.runtime.model_protocols import LoadedModel
    from infer_cli.runtime.options import EngineOptions

# Tokens a second by width, for a window of so many tokens and so many replies.
MeasureWidths = Callable[[int, int], Mapping[int, float]]


class EngineWishes(Protocol):
    """What of a request decides the engine."""

    @property
    def engine(self) -> EngineOptions: ...

    @property
    def parallel(self) -> int | None: ...

    @property
    def shard(self) -> Shard: ...


class LoadPlan(NamedTuple):
    """What a model is loaded for. `width`: replies side by side."""

    engine: EngineOptions
    width: int


class EngineChoice(NamedTuple):
    """`policy` is the engine's: no more slots than replies, where their number means nothing to the promise.
    `width` is what the job is planned with, `window` the tokens of each slot. `notes` say why, for the user.
    """

    policy: ModePolicy
    width: int
    window: int
    notes: tuple[str, ...] = ()


class QuickerEngine(NamedTuple):
    """How a small canonical job would take less time: with this width, or where every width keeps the
    promise."""

    width: int
    invariant: bool


def plan_load(request: EngineWishes, begun: JobFile | None) -> LoadPlan:
    """A job that goes on keeps its width and mode, unless others are asked for, and its weights."""
    engine = request.engine
    if begun is None:
        return LoadPlan(replace(engine, expand=False), request.parallel or DEFAULT_WIDTH)
    if engine.fallback is not None:  # no mode was asked for
        engine = replace(engine, mode=begun.engine.mode, fallback=None)
    engine = replace(engine, expand=begun.engine.has_f16_weights)
    return LoadPlan(engine, request.parallel or begun.width)


def may_try_f16(request: EngineWishes, begun: JobFile | None, scanned: Scan, loaded: LoadedModel) -> bool:
    """Whether the weights may be quicker as F16: the job is large enough, and the mode and model let it."""
    if begun is not None or request.shard.of > 1:
        return False  # all shards have the same engine
    n_beside = min(request.parallel or DEFAULT_WIDTH, scanned.n_to_answer)
    return scanned.is_worth_trying_f16(n_beside) and loaded.may_expand(slot_window(scanned))


def choose_engine(
    request: EngineWishes,
    begun: JobFile | None,
    scanned: Scan,
    loaded: LoadedModel,
    measure: MeasureWidths,
) -> EngineChoice:
    """The mode's policy, with the width and memory that are given, or recorded, or the best here where the
    mode lets them be. `measure` is called only where nothing else decides the width."""
    policy, window, notes = loaded.policy, slot_window(scanned), list[str]()
    if policy.mode == "canonical":
        if request.parallel not in (None, policy.width):
            notes.append(f"{policy.width} replies side by side: canonical has no width of {request.parallel}")
    else:
        width = policy.width
        if _width_is_free(request, begun, scanned, policy):
            rates = measure(window, scanned.n_to_answer)
            width = best_width(rates)
            listed = ", ".join(f"{rate:.0f} with {n}" for n, rate in rates.items())
            notes.append(f"{width} replies side by side: tokens a second are {listed}")
        policy = loaded.choose_policy(width, kv_unified=_shares_memory(request, begun, scanned))
        if policy.kv_unified and not loaded.fits(policy, window):
            policy = loaded.choose_policy(width)
    planned = policy.width
    if policy.promise == "invariant":
        policy = loaded.choose_policy(min(planned, max(1, scanned.n_to_answer)))
    return EngineChoice(policy, planned, window, tuple(notes))


def _width_is_free(request: EngineWishes, begun: JobFile | None, scanned: Scan, policy: ModePolicy) -> bool:
    if request.parallel or begun is not None:
        return False
    if request.shard.of > 1 and policy.promise != "invariant":
        return False  # shards of several widths could not be merged
    return scanned.n_to_answer >= LEAST_REPLIES


def _shares_memory(request: EngineWishes, begun: JobFile | None, scanned: Scan) -> bool:
    """Whether the replies are to share one memory, where the mode lets them."""
    if begun is not None:
        return begun.engine.kv_unified
    return request.shard.of == 1 and scanned.mostly_shared  # all shards have the same engine


def slot_window(scanned: Scan) -> int:
    """Tokens that each slot is to hold."""
    return max(scanned.n_window, LEAST_WINDOW)


def quicker_than_canonical(begun: JobFile | None, scanned: Scan, loaded: LoadedModel) -> QuickerEngine | None:
    """None where a job is not canonical, not new, or has replies for all slots."""
    policy, width = loaded.policy, canonical_width(scanned.n_to_answer)
    if policy.mode != "canonical" or not policy.fixed_width or begun is not None:
        return None
    if not 0 < width < policy.width:
        return None
    return QuickerEngine(width, loaded.choose_policy(policy.width, mode="invariant").promise == "invariant")
