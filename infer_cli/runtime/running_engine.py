"""A model's engine at work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.engine.mode_policy import ModePolicy
from infer_cli.runtime.model_protocols import LoadedModel
from infer_cli.types import Provenance

if TYPE_CHECKING:
    from infer_cli.backend.base import Backend
    from infer_cli.engine.service import Service
    from infer_cli.runtime.engine_facts import EngineFacts


class RunningEngine(NamedTuple):
    """`facts` gathers what the fingerprint is taken of. `provenance` says what replies come from; it may have
    to wait for the hash of the model's file."""

    service: Service
    backend: Backend
    policy: ModePolicy
    facts: Callable[[], EngineFacts]
    provenance: Callable[[], Provenance]

    def close(self) -> None:
        self.service.close()
        self.backend.close()


def start_engine(
    loaded: LoadedModel,
    n_ctx_seq: int,
    policy: ModePolicy | None,
    provenance_of: Callable[[Callable[[], EngineFacts]], Callable[[], Provenance]],
    clock: Callable[[], float] = time.perf_counter,
) -> RunningEngine:
    """Make a context and an engine over it, with a window of at least `n_ctx_seq` tokens a slot.

    `policy` None: the one that the model was loaded for. `provenance_of` makes of the engine's facts what
    replies come from. Raises OutOfMemory where the context does not fit.
    """
    from infer_cli.engine.service import Service

    chosen = policy or loaded.policy
    context = loaded.context(chosen, n_ctx_seq)
    backend = loaded.open(context)
    service = Service(backend, chosen, clock, loaded.window, loaded.load_s)

    def facts() -> EngineFacts:
        return loaded.facts(chosen, context)

    return RunningEngine(service, backend, chosen, facts, provenance_of(facts))
