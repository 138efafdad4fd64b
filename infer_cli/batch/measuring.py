"""Short measurements before a batch begins: are F16 weights quicker, and how long will it take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.errors import InferError
from infer_cli.runtime.calibration import Pace, pace, quickest_pace

if TYPE_CHECKING:
    from infer_cli.batch.engine_choice import EngineChoice
    from infer_cli.batch.scanned import Scan
    from infer_cli.engine.mode_policy import ModePolicy
    from infer_cli.runtime.model_protocols import LoadedModel
    from infer_cli.runtime.session import Session

_PAYS = 1.25  # times as fast: less is not worth the memory, and may be chance


class Candidate(NamedTuple):
    """Weights in memory, and the engine that a job would have with them."""

    session: Session
    choice: EngineChoice


class WeightsTrial(NamedTuple):
    """What has the quicker weights, and why, in words. `failed`: F16 weights could not be had."""

    chosen: Candidate
    why: str
    failed: bool = False


class Estimate(NamedTuple):
    """What a job will take if every reply is as long as it may be."""

    pace: Pace
    seconds: float


def try_f16(
    stored: Candidate,
    scanned: Scan,
    load_f16: Callable[[], Session],
    choose: Callable[[Session], EngineChoice],
) -> WeightsTrial:
    """Which weights the whole job takes less time with, each in the engine that is best for them.

    The session that `load_f16` opens is closed where it is not quicker enough; `choose` chooses its engine.
    Raises OutOfMemory where not even the stored weights can be measured.
    """
    as_stored = _measured(stored, scanned)
    try:
        session = load_f16()
        try:
            expanded = Candidate(session, choose(session))
            as_f16 = _measured(expanded, scanned)
        except InferError:
            session.close()
            raise
    except InferError as e:
        return WeightsTrial(stored, f"weights are as they are stored: {e.message}", failed=True)
    found = (
        f"as F16 prompts are read {as_f16.pace.prefill_tps / as_stored.pace.prefill_tps:.1f} times as fast"
    )
    if scanned.n_reply_tokens:
        found += f", replies written {as_f16.pace.decode_tps / as_stored.pace.decode_tps:.1f} times"
    if as_stored.seconds >= _PAYS * as_f16.seconds:
        return WeightsTrial(expanded, f"weights are F16 in memory: {found}")
    session.close()
    return WeightsTrial(stored, f"weights are as they are stored: {found}")


def estimate(scanned: Scan, loaded: LoadedModel, policy: ModePolicy) -> Estimate:
    """Of a job that has replies to give. Raises OutOfMemory."""
    n_rows = scanned.n_mine - sum(scanned.failures.values())
    n_prompt = -(-scanned.n_prompt_tokens // n_rows)  # a mean
    return _estimate(scanned, pace(loaded, policy, scanned.n_to_answer, n_prompt))


def _measured(candidate: Candidate, scanned: Scan) -> Estimate:
    loaded, policy = candidate.session.loaded, candidate.choice.policy
    return _estimate(scanned, quickest_pace(loaded, policy, scanned.n_to_answer))


def _estimate(scanned: Scan, found: Pace) -> Estimate:
    seconds = found.seconds(scanned.n_distinct_tokens, scanned.n_reply_tokens, scanned.n_longest_reply)
    return Estimate(found, seconds)
