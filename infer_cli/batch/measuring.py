"""Short measurements before a batch begins: are F16 weights quicker, and how long will it take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.errors import InferError
from infer_cli.runtime.calibration import EXPANSION_PAYS, Pace, pace, reading_tps

if TYPE_CHECKING:
    from infer_cli.batch.scanned import Scan
    from infer_cli.engine.mode_policy import ModePolicy
    from infer_cli.runtime.model_protocols import LoadedModel
    from infer_cli.runtime.session import Session


class WeightsTrial(NamedTuple):
    """The session with the quicker weights, and why, in words. `failed`: F16 weights could not be had."""

    session: Session
    why: str
    failed: bool = False


class Estimate(NamedTuple):
    """What a job will take if every reply is as long as it may be."""

    pace: Pace
    seconds: float


def try_f16(session: Session, load_f16: Callable[[], Session]) -> WeightsTrial:
    """Compare a session with the one that `load_f16` opens, which is closed where it is not quicker enough.

    Raises OutOfMemory where not even the first can be measured.
    """
    as_stored = reading_tps(session.loaded)
    try:
        expanded = load_f16()
        try:
            ratio = reading_tps(expanded.loaded) / as_stored
        except InferError:
            expanded.close()
            raise
    except InferError as e:
        return WeightsTrial(session, f"weights are as they are stored: {e.message}", failed=True)
    found = f"as F16 prompts are read {ratio:.1f} times as fast"
    if ratio >= EXPANSION_PAYS:
        return WeightsTrial(expanded, f"weights are F16 in memory: {found}")
    expanded.close()
    return WeightsTrial(session, f"weights are as they are stored: {found}")


def estimate(scanned: Scan, loaded: LoadedModel, policy: ModePolicy) -> Estimate:
    """Of a job that has replies to give. Raises OutOfMemory."""
    n_rows = scanned.n_mine - sum(scanned.failures.values())
    n_prompt = -(-scanned.n_prompt_tokens // n_rows)  # a mean
    found = pace(loaded, policy, scanned.n_to_answer, n_prompt)
    seconds = found.seconds(scanned.n_distinct_tokens, scanned.n_reply_tokens, scanned.n_longest_reply)
    return Estimate(found, seconds)
