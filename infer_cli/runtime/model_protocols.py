"""What a model can do on its way into memory, and once it is there: llama.cpp's and the fake one alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from infer_cli.backend.base import Backend, Draws, Vocab
    from infer_cli.backend.spec import ContextSpec
    from infer_cli.engine.mode_policy import ModePolicy
    from infer_cli.runtime.engine_facts import EngineFacts
    from infer_cli.types import Mode, SamplingParams


class LoadedModel(Protocol):
    """A model in memory, without an engine. Counts are tokens."""

    @property
    def policy(self) -> ModePolicy:
        """The mode's, for this model at the width that it was loaded for."""

    @property
    def notes(self) -> Sequence[str]:
        """What was chosen or stepped down, for the user."""

    @property
    def n_ctx_train(self) -> int: ...

    @property
    def window(self) -> int:
        """Tokens that a prompt and its reply may fill together."""

    @property
    def load_s(self) -> float: ...

    @property
    def chat_template(self) -> str | None:
        """The template's source; None for a base model."""

    @property
    def recommended(self) -> Mapping[str, object]:
        """Sampling parameters that the model's file recommends."""

    @property
    def vocab(self) -> Vocab: ...

    def choose_policy(self, width: int, *, kv_unified: bool = False, mode: Mode | None = None) -> ModePolicy:
        """The policy of the mode, or of another one, for this model at a width."""

    def context(self, policy: ModePolicy, n_ctx_seq: int) -> ContextSpec:
        """What a policy wants of a context, with a window of at least `n_ctx_seq` tokens a slot."""

    def fits(self, policy: ModePolicy, n_ctx_seq: int) -> bool:
        """Whether such a context has room in the memory that is free now, as far as that is known."""

    def may_expand(self, n_ctx_seq: int) -> bool:
        """Whether `EngineOptions.expand` may make this model quicker, and has room beside it."""

    def open(self, context: ContextSpec) -> Backend:
        """A context over the model. Raises OutOfMemory where it does not fit."""

    def draws(self, params: SamplingParams, seed: int) -> Draws:
        """What a sampler of this model draws."""

    def facts(self, policy: ModePolicy, context: ContextSpec) -> EngineFacts:
        """What the fingerprint of an engine with this context is taken of."""

    def close(self) -> None:
        """Give the model's memory back, after its contexts were closed."""


class Loader(Protocol):
    """A model on its way into memory, which takes a while. Do other things, then ask for `loaded`."""

    @property
    def progress(self) -> float:
        """Of the load, 0 to 1."""

    @property
    def chat_template(self) -> str | None:
        """The source of the model's template, from the header alone."""

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the load has ended, after at most `timeout` seconds."""

    def loaded(self) -> LoadedModel:
        """Waits for the end of the load. Raises what it failed with."""
