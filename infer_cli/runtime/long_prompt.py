"""A long prompt in `fast`: weights as F16 in memory read it, where that takes less time with all it costs.

By a rule: to measure would take as long as many a prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from infer_cli.errors import InferError
from infer_cli.runtime.f16_weights import reading_pays
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.runtime.session import Session


class ChosenWeights(NamedTuple):
    """What computes, and why, in words; empty where there was nothing to choose. `failed`: F16 weights could
    not be had. `is_new`: the engine is another one."""

    session: Session
    running: RunningEngine
    why: str = ""
    is_new: bool = False
    failed: bool = False


def weights_for(
    session: Session,
    running: RunningEngine,
    n_window: int,
    *,
    n_read: int,
    n_reply: int,
    wait: Callable[[Session], None],
) -> ChosenWeights:
    """The engine for a prompt of which `n_read` tokens are to be read, and for replies of `n_reply` at most.

    `wait` waits for a load. The stored weights stay in memory: what made the prompt's ids uses their
    vocabulary.
    """
    loaded = session.loaded
    if loaded.policy.mode != "fast" or session.options.expand or not reading_pays(n_read, n_reply):
        return ChosenWeights(session, running)
    if not loaded.may_expand(n_window):
        return ChosenWeights(session, running)
    expanded: Session | None = None
    try:
        expanded = session.with_f16_weights()
        wait(expanded)
        quicker = expanded.start(n_window)
    except InferError as e:
        if expanded is not None and expanded.wait(0):
            expanded.close()
        why = f"weights are as they are stored: {e.message}"
        return ChosenWeights(session, running, why, failed=True)
    running.close()
    return ChosenWeights(expanded, quicker, "weights are F16 in memory: the prompt is long", is_new=True)
