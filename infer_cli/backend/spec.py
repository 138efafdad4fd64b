"""How a model is loaded and its context made. Values only: chosen above, obeyed below."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple


class LoraSpec(NamedTuple):
    """A LoRA adapter file and the factor it is applied with."""

    path: Path
    scale: float = 1.0


class ModelSpec(NamedTuple):
    """What `llama_model_load_from_file` is told."""

    path: Path
    gpu_layers: int = 0  # number of layers, the output layer counted as one more
    devices: tuple[str, ...] = ()  # names as `infer devices` lists them; empty: all GPU devices
    use_mmap: bool = True
    use_mlock: bool = False
    use_extra_bufts: bool = True  # repack weights for the CPU's fast kernels
    vocab_only: bool = False
    expanded: bool = False  # the file is a copy with F16 weights


class ContextSpec(NamedTuple):
    """What `llama_init_from_model` is told. Counts are tokens or rows."""

    n_ctx_seq: int
    n_seq_max: int
    n_batch: int
    n_outputs_max: int
    n_threads: int
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: Literal["auto", "on", "off"] = "auto"
    kv_unified: bool = False  # one memory for all sequences: what two begin with is held once
    n_cells: int | None = None  # tokens that this one memory holds; None: a window for each sequence
    loras: tuple[LoraSpec, ...] = ()


class Device(NamedTuple):
    """A compute device of this build. Memory in bytes."""

    name: str
    description: str
    kind: Literal["cpu", "gpu", "igpu", "accel", "meta"]
    free: int
    total: int


FREE_CHUNK = 512  # llama.cpp's n_ubatch: large enough for full prefill speed, small enough to interrupt
