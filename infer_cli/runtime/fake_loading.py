"""The fake model as a `Loader` and a `LoadedModel`: it has no weights, and its script says what it does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.backend.spec import ContextSpec, ModelSpec
from infer_cli.engine.mode_policy import ModelTraits, ModePolicy, choose
from infer_cli.errors import UsageError
from infer_cli.models.installed import FAKE
from infer_cli.runtime.options import EngineOptions
from infer_cli.types import Mode, SamplingParams

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.backend.fake import FakeBackend, FakeDraws
    from infer_cli.runtime.engine_facts import EngineFacts


class FakeLoader:
    """`Loader` for `-m fake` and `-m fake:SCRIPT.json`."""

    progress = 1.0

    def __init__(self, model: str, options: EngineOptions, width: int) -> None:
        self._loaded = FakeLoaded(model, options, width)

    @property
    def chat_template(self) -> str | None:
        return self._loaded.chat_template

    def wait(self, timeout: float | None = None) -> bool:
        time.sleep(self._loaded.load_s)
        return True

    def loaded(self) -> FakeLoaded:
        return self._loaded


class FakeLoaded:
    """`LoadedModel` of a fake model's script."""

    notes: tuple[str, ...] = ()
    recommended: Mapping[str, object] = {}  # never changed

    def __init__(self, model: str, options: EngineOptions, width: int) -> None:
        from infer_cli.backend.fake import FakeScript, FakeVocab

        script = model.partition(":")[2]
        self._script = FakeScript.read(Path(script)) if script else FakeScript()
        self._options = options
        self.vocab: Vocab = FakeVocab()
        self.policy = self.choose_policy(width)
        self.load_s = self._script.load_s
        self.n_ctx_train = self._script.n_ctx_train
        self.window = options.ctx or self.n_ctx_train
        self.chat_template: str | None = self._script.template
        if self.window > self.n_ctx_train:
            raise UsageError(
                f"--ctx {self.window} is larger than the window this model was trained for"
                f" ({self.n_ctx_train})"
            )

    def choose_policy(self, width: int, *, kv_unified: bool = False, mode: Mode | None = None) -> ModePolicy:
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

    def context(self, policy: ModePolicy, n_ctx_seq: int) -> ContextSpec:
        return ContextSpec(
            n_ctx_seq,
            policy.n_seq_max,
            policy.n_batch,
            policy.n_outputs_max,
            self._options.threads,
            kv_unified=policy.kv_unified,
        )

    def fits(self, policy: ModePolicy, n_ctx_seq: int) -> bool:
        return True

    def may_expand(self, n_ctx_seq: int) -> bool:
        return False

    def open(self, context: ContextSpec) -> FakeBackend:
        from infer_cli.backend.fake import FakeBackend

        return FakeBackend(self._script, context)

    def draws(self, params: SamplingParams, seed: int) -> FakeDraws:
        from infer_cli.backend.fake import FakeDraws

        return FakeDraws(params, seed)

    def facts(self, policy: ModePolicy, context: ContextSpec) -> EngineFacts:
        from infer_cli.runtime.engine_facts import EngineFacts

        return EngineFacts.of({"llama_cpp": FAKE}, policy, ModelSpec(Path(FAKE)), context, {})

    def close(self) -> None:
        pass
