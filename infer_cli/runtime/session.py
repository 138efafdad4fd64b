"""A loaded model: what every command and the Python API work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.runtime.model_protocols import LoadedModel, Loader
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.reply_provenance import EngineProvenance, ModelHash
from infer_cli.runtime.running_engine import RunningEngine, open_score_engine, start_engine

if TYPE_CHECKING:
    from infer_cli.engine.mode_policy import ModePolicy
    from infer_cli.engine.score_engine import OnRow, ScoreEngine
    from infer_cli.models.installed import InstalledModel
    from infer_cli.prompt.template import ChatTemplate
    from infer_cli.types import Provenance


class Recommended(NamedTuple):
    """Sampling parameters: of the model's catalogue entry, and of its file."""

    entry: Mapping[str, object]
    file: Mapping[str, object]


class Session:
    """One model, from the moment that its load begins. The load runs beside the caller, who waits with
    `wait`, or simply asks for `loaded`.

    `width` is the number of slots that memory and promise are planned for; `native_fd` takes llama.cpp's log;
    `sha256` is that of the model, where it is being found out already.
    Raises InferError where the header says already that the model can't be used.
    """

    def __init__(
        self,
        model: InstalledModel,
        options: EngineOptions,
        width: int,
        native_fd: int,
        sha256: ModelHash | None = None,
    ) -> None:
        self.model, self.options = model, options
        self._width, self._native_fd = width, native_fd
        self._loader: Loader = _loader(model, options, width, native_fd)
        self._sha256 = sha256 or ModelHash(model)

    def with_f16_weights(self) -> Session:
        """The same model with other weights in memory, in `fast`: see `f16_weights`. Its load begins."""
        options = replace(self.options, expand=True)
        return Session(self.model, options, self._width, self._native_fd, self._sha256)

    @property
    def progress(self) -> float:
        """Of the load, 0 to 1."""
        return self._loader.progress

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the load has ended. Raises what it failed with."""
        if not self._loader.wait(timeout):
            return False
        self._loader.loaded()
        return True

    @property
    def loaded(self) -> LoadedModel:
        """Waits for the end of the load. Raises what it failed with."""
        return self._loader.loaded()

    @property
    def recommended(self) -> Recommended:
        entry = self.model.entry
        return Recommended((entry.sampling if entry is not None else None) or {}, self.loaded.recommended)

    @property
    def own_template(self) -> str | None:
        """The source of the model's chat template; known before the load has ended. None for a base model."""
        return self._loader.chat_template

    def chat_template(self, file: str | None) -> ChatTemplate:
        """The model's own, or the one in a file. Raises UsageError where there is none."""
        from infer_cli.prompt.template import compiled_template

        return compiled_template(self.loaded.chat_template, self.loaded.vocab, file)

    def start(
        self, n_ctx_seq: int, policy: ModePolicy | None = None, *, score_window: int = 0
    ) -> RunningEngine:
        """An engine with a window of at least `n_ctx_seq` tokens a slot; with `score_window`, it takes
        requests for likelihoods of texts of up to so many tokens too. Raises OutOfMemory.

        `policy`: of another width than the one that the session was opened for.
        """
        name, sha256 = self.model.name, self._sha256
        sha256.begin()
        return start_engine(
            self.loaded,
            n_ctx_seq,
            policy,
            lambda facts: EngineProvenance(name, sha256, facts),
            score_window=score_window,
        )

    def start_scoring(self, window: int, policy: ModePolicy | None = None) -> RunningEngine:
        """An engine for likelihoods alone, of texts of up to `window` tokens. Raises OutOfMemory."""
        return self.start(0, policy, score_window=window)

    def score_engine(
        self,
        window: int,
        policy: ModePolicy | None = None,
        *,
        on_row: OnRow | None = None,
        n_rows: int | None = None,
    ) -> ScoreEngine:
        """An engine for likelihoods that the caller steps: see `open_score_engine`."""
        return open_score_engine(self.loaded, window, policy, on_row=on_row, n_rows=n_rows)

    def provenance(self, n_ctx_seq: int) -> Provenance:
        """What an engine with the session's own policy and such a window computes with. Waits for the hash of
        the model's file."""
        policy = self.loaded.policy
        context = self.loaded.context(policy, n_ctx_seq)
        return EngineProvenance(self.model.name, self._sha256, lambda: self.loaded.facts(policy, context))()

    def sha256(self) -> str | None:
        """Of the model's file: waits until it is hashed. None for the fake model."""
        return self._sha256.get()

    def close(self) -> None:
        """Give the model's memory back, after its engines were closed."""
        self.loaded.close()


def _loader(model: InstalledModel, options: EngineOptions, width: int, native_fd: int) -> Loader:
    if model.is_fake:
        from infer_cli.runtime.fake_loading import FakeLoader

        return FakeLoader(model.name, options, width)
    from infer_cli.runtime.llama_loading import LlamaLoader

    return LlamaLoader(model.path, options, width, native_fd)
