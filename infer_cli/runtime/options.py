"""What the user may say about the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from infer_cli.backend.ggml_types import KV_TYPES
from infer_cli.backend.spec import LoraSpec
from infer_cli.engine.mode_policy import OF_TALKS
from infer_cli.errors import UsageError
from infer_cli.system.files import not_a_file
from infer_cli.types import Mode

if TYPE_CHECKING:
    from infer_cli.runtime.engine_facts import EngineFacts


@dataclass(frozen=True)
class EngineOptions:
    """What the user may say about the engine. None leaves the choice to the mode or the machine."""

    threads: int
    mode: Mode = OF_TALKS.mode
    fallback: Mode | None = None  # where the model can't keep its promise; None: the mode was asked for
    ctx: int | None = None
    gpu_layers: str = "auto"  # auto, all or a number
    devices: tuple[str, ...] = ()
    type_k: str | None = None
    type_v: str | None = None
    flash_attn: Literal["auto", "on", "off"] | None = None
    use_mmap: bool = True
    use_mlock: bool = False
    loras: tuple[LoraSpec, ...] = ()
    speculate: bool = True  # where the mode allows it
    expand: bool = False  # weights as F16 in memory, in `fast` on the CPU: see `expansion`
    exact_width: bool = False  # W as it is given, even where it keeps no promise

    @classmethod
    def of_facts(
        cls, facts: EngineFacts, *, threads: int, ctx: int | None, loras: tuple[LoraSpec, ...]
    ) -> EngineOptions:
        """The engine that facts were taken of, at the width that it had; the rest is what they leave out."""
        own = facts.mode == "invariant" and facts.width is None  # the mode set its types itself
        return cls(
            threads=threads,
            mode=facts.mode,
            ctx=ctx,
            gpu_layers=str(facts.gpu_layers),
            devices=facts.devices,
            type_k=None if own else facts.type_k,
            type_v=None if own else facts.type_v,
            flash_attn=None if own else facts.flash_attn,
            loras=loras,
            expand=facts.has_f16_weights,
            exact_width=True,
        )

    def check(self) -> None:
        """Raises UsageError for a combination that llama.cpp would refuse or abort on."""
        for flag, value in (("--cache-type-k", self.type_k), ("--cache-type-v", self.type_v)):
            if value is not None and value not in KV_TYPES:
                raise UsageError(f"{flag} {value!r} is no cache type", "it takes " + ", ".join(KV_TYPES))
        if self.type_v not in (None, "f32", "f16", "bf16") and self.flash_attn == "off":
            raise UsageError(
                f"--cache-type-v {self.type_v} needs flash attention", "leave out --flash-attn off"
            )
        if self.gpu_layers not in ("auto", "all") and not self.gpu_layers.isdecimal():
            raise UsageError(f"--gpu-layers {self.gpu_layers!r} is not auto, all or a number of layers")
        for lora in self.loras:
            if not lora.path.is_file():
                raise UsageError(f"--lora: {not_a_file(lora.path)}")
