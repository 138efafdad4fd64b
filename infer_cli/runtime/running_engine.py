"""A model's engine at work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.engine.mode_policy import ModePolicy
from infer_cli.errors import InferError
from infer_cli.runtime.model_protocols import LoadedModel
from infer_cli.runtime.scoring_context import scoring_context
from infer_cli.types import Provenance

if TYPE_CHECKING:
    from infer_cli.engine.score_engine import OnRow, ScoreEngine
    from infer_cli.engine.service import Service
    from infer_cli.runtime.engine_facts import EngineFacts


class RunningEngine(NamedTuple):
    """`facts` gathers what the fingerprint is taken of. `provenance` says what replies come from; it may have
    to wait for the hash of the model's file."""

    service: Service
    policy: ModePolicy
    facts: Callable[[], EngineFacts]
    provenance: Callable[[], Provenance]

    def close(self) -> None:
        self.service.close()


def start_engine(
    loaded: LoadedModel,
    n_ctx_seq: int,
    policy: ModePolicy | None,
    provenance_of: Callable[[Callable[[], EngineFacts]], Callable[[], Provenance]],
    *,
    score_window: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> RunningEngine:
    """Make contexts and engines over them: for replies, with a window of at least `n_ctx_seq` tokens a slot,
    and for likelihoods of texts of up to `score_window` tokens. 0: there is none.

    `policy` None: the one that the model was loaded for. `provenance_of` makes of the engine's facts what
    replies come from: they are those of replies, whose kernels and promise likelihoods share. Raises
    OutOfMemory where a context does not fit.
    """
    from infer_cli.engine.engine import Engine
    from infer_cli.engine.service import Service

    chosen = policy or loaded.policy
    context = loaded.context(chosen, n_ctx_seq or score_window)
    engine = score_engine = None
    if n_ctx_seq:
        engine = Engine(loaded.open(context), chosen, clock, loaded.window, loaded.load_s)
    if score_window:
        try:
            score_engine = open_score_engine(loaded, score_window, chosen, clock=clock)
        except InferError:
            if engine is not None:
                engine.close()
            raise

    def facts() -> EngineFacts:
        return loaded.facts(chosen, context)

    return RunningEngine(Service(engine, clock, score_engine), chosen, facts, provenance_of(facts))


def open_score_engine(
    loaded: LoadedModel,
    window: int,
    policy: ModePolicy | None = None,
    *,
    on_row: OnRow | None = None,
    n_rows: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> ScoreEngine:
    """An engine for likelihoods of texts of up to `window` tokens, to be stepped by the caller.

    `on_row` is shown each row of logits that a likelihood is taken of; `n_rows` is the most of a call (as
    many as `LOGITS_BYTES` hold). Raises OutOfMemory where its context does not fit.
    """
    from infer_cli.engine.score_engine import ScoreEngine

    chosen = policy or loaded.policy
    context = scoring_context(loaded.context(chosen, window), chosen, window, loaded.vocab.n_tokens, n_rows)
    return ScoreEngine(loaded.open(context), chosen, clock, window, loaded.load_s, on_row)
