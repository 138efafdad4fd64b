"""`Loading` for the fake model, which has no weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.backend.spec import ContextSpec, ModelSpec
from infer_cli.engine.policy import ModelTraits, Policy, choose
from infer_cli.errors import UsageError
from infer_cli.runtime.options import FAKE, EngineOptions
from infer_cli.runtime.running import Running
from infer_cli.types import Mode

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.backend.fake import FakeBackend


class FakeLoading:
    """`Loading` for `-m fake` and `-m fake:SCRIPT.json`."""

    def __init__(
        self,
        model: str,
        options: EngineOptions,
        width: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        from infer_cli.backend.fake import FakeScript

        script = model.partition(":")[2]
        self.script = FakeScript.read(Path(script)) if script else FakeScript()
        self._options = options
        self.policy = self.choose_policy(width)
        self.n_ctx_train = self.script.n_ctx_train
        self.window = options.ctx or self.n_ctx_train
        if self.window > self.script.n_ctx_train:
            raise UsageError(
                f"--ctx {self.window} is larger than the window this model was trained for"
                f" ({self.script.n_ctx_train})"
            )
        self.notes: list[str] = []
        self.progress = 1.0
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        time.sleep(self.script.load_s)
        return True

    def vocab(self) -> Vocab:
        from infer_cli.backend.fake import FakeVocab

        return FakeVocab()

    def choose_policy(self, width: int, *, kv_unified: bool = False, mode: Mode | None = None) -> Policy:
        options = self._options
        return choose(
            mode or options.mode,
            width,
            ModelTraits(),
            type_k=options.type_k,
            type_v=options.type_v,
            speculate=options.speculate,
            kv_unified=kv_unified,
            exact_width=options.exact_width,
            fallback=options.fallback if mode is None else None,
        )

    def context(self, policy: Policy, n_ctx_seq: int) -> ContextSpec:
        return ContextSpec(
            n_ctx_seq,
            policy.n_seq_max,
            policy.n_batch,
            policy.n_outputs_max,
            self._options.threads,
            kv_unified=policy.kv_unified,
        )

    def fits(self, policy: Policy, n_ctx_seq: int) -> bool:
        return True

    def may_expand(self, n_ctx_seq: int) -> bool:
        return False

    def open(self, context: ContextSpec) -> FakeBackend:
        from infer_cli.backend.fake import FakeBackend

        return FakeBackend(self.script, context)

    def start(self, n_ctx_seq: int, policy: Policy | None = None) -> Running:
        from infer_cli.engine.service import Service
        from infer_cli.runtime.fingerprint import engine_facts

        policy = policy or self.policy
        context = self.context(policy, n_ctx_seq)
        backend = self.open(context)
        return Running(
            Service(backend, policy, self._clock, self.window, self.script.load_s),
            backend,
            policy,
            lambda: engine_facts({"llama_cpp": FAKE}, policy, ModelSpec(Path(FAKE)), context, {}),
        )

    def close(self) -> None:
        pass
