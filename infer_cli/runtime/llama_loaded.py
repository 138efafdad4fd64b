"""A model that llama.cpp has in memory, and the contexts over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from infer_cli.backend.spec import ContextSpec, Device, ModelSpec
from infer_cli.engine.mode_policy import ModelTraits, ModePolicy, choose
from infer_cli.errors import ModelInvalid, OutOfMemory
from infer_cli.runtime.options import EngineOptions
from infer_cli.types import Mode, SamplingParams
from infer_cli.vocab.loaded import LoadedVocab

if TYPE_CHECKING:
    from infer_cli.backend.llama import LlamaBackend
    from infer_cli.backend.llama_draws import LlamaDraws
    from infer_cli.backend.llama_model import LlamaModel
    from infer_cli.models.gguf.header import Header
    from infer_cli.models.gguf.shape import ModelShape
    from infer_cli.runtime.engine_facts import EngineFacts

OnProgress = Callable[[float], None]  # of a load, 0 to 1


class LlamaLoaded:
    """`LoadedModel` of a GGUF file. Where a GPU has no room for a context, fewer layers are offloaded."""

    def __init__(
        self,
        shape: ModelShape,
        options: EngineOptions,
        policy: ModePolicy,
        spec: ModelSpec,
        model: LlamaModel,
        notes: list[str],
        load_s: float,
        on_progress: OnProgress,
    ) -> None:
        self.policy, self.notes, self.load_s = policy, notes, load_s
        self._shape, self.header = shape, shape.header
        self._options, self._on_progress = options, on_progress
        self._spec, self._model = spec, model
        self.vocab = LoadedVocab(model.vocab, shape.header)

    @property
    def n_ctx_train(self) -> int:
        return self._shape.n_ctx_train

    @property
    def window(self) -> int:
        return self._options.ctx or self.n_ctx_train

    @property
    def chat_template(self) -> str | None:
        return self.header.chat_template

    @property
    def recommended(self) -> Mapping[str, object]:
        return self.header.sampling

    def choose_policy(self, width: int, *, kv_unified: bool = False, mode: Mode | None = None) -> ModePolicy:
        return choose_policy(
            self._shape,
            self._options,
            width,
            on_gpu=self._spec.gpu_layers > 0,
            kv_unified=kv_unified,
            mode=mode,
        )

    def context(self, policy: ModePolicy, n_ctx_seq: int) -> ContextSpec:
        return ContextSpec(
            n_ctx_seq=-(-n_ctx_seq // 256) * 256,  # llama.cpp pads to 256 (llama_context)
            n_seq_max=policy.n_seq_max,
            n_batch=policy.n_batch,
            n_outputs_max=policy.n_outputs_max,
            n_threads=self._options.threads,
            type_k=policy.type_k,
            type_v=policy.type_v,
            flash_attn=policy.flash_attn,
            kv_unified=policy.kv_unified,
            loras=self._options.loras,
        )

    def fits(self, policy: ModePolicy, n_ctx_seq: int) -> bool:
        from infer_cli.system.memory import available_memory

        available = available_memory()
        if self._spec.gpu_layers > 0:
            available = sum(device.free for device in self._gpus())
        return available is None or self._context_bytes(self.context(policy, n_ctx_seq)) <= available

    def may_expand(self, n_ctx_seq: int) -> bool:
        from infer_cli.runtime.f16_weights import expanded_bytes, has_disk_room, may_gain
        from infer_cli.system.memory import available_memory

        if self.policy.mode != "fast" or self._spec.gpu_layers > 0 or not may_gain(self.header):
            return False
        available = available_memory()
        # Twice: where the temporary folder is in memory, the copy is there while it is read.
        needed = 2 * expanded_bytes(self.header) + self._context_bytes(self.context(self.policy, n_ctx_seq))
        return (available is None or needed <= available) and has_disk_room(self.header)

    def open(self, context: ContextSpec) -> LlamaBackend:
        from infer_cli.backend.llama import LlamaBackend
        from infer_cli.models.footprint import check_fits
        from infer_cli.system.memory import available_memory

        if self._spec.gpu_layers == 0:  # device memory answers by itself, and then we step down
            check_fits(self._context_bytes(context), available_memory())
        while True:
            try:
                return LlamaBackend(self._model, context)
            except OutOfMemory:
                fewer = step_down(self._spec, self._options, self.notes)
                if fewer is None:
                    raise
                self._model.close()
                self._model, self._spec = load_stepping_down(
                    fewer, self._options, self.notes, self._on_progress
                )
                self.vocab = LoadedVocab(self._model.vocab, self.header)

    def draws(self, params: SamplingParams, seed: int) -> LlamaDraws:
        from infer_cli.backend.llama_draws import LlamaDraws

        return LlamaDraws(params, seed)

    def facts(self, policy: ModePolicy, context: ContextSpec) -> EngineFacts:
        from infer_cli.backend import native
        from infer_cli.models.hashes import file_sha256
        from infer_cli.runtime.engine_facts import EngineFacts

        adapters = {file_sha256(lora.path): lora.scale for lora in self._options.loras}
        return EngineFacts.of(native.versions(), policy, self._spec, context, adapters)

    def close(self) -> None:
        self._model.close()

    def _gpus(self) -> list[Device]:
        """With what is free on them now."""
        from infer_cli.backend import native
        from infer_cli.runtime.offload import gpus_among

        return gpus_among(native.devices(), self._options.devices)

    def _context_bytes(self, context: ContextSpec) -> int:
        from infer_cli.models.footprint import compute_bytes, kv_bytes

        n_seqs = context.n_seq_max if context.n_cells is None else 1
        return kv_bytes(
            self._shape, context.n_ctx_seq, n_seqs, context.type_k, context.type_v
        ) + compute_bytes(
            self._shape,
            context.n_ctx_seq * (n_seqs if context.kv_unified else 1),
            context.n_batch,
            context.n_outputs_max,
            flash_attention=context.flash_attn != "off",
        )


def choose_policy(
    shape: ModelShape,
    options: EngineOptions,
    width: int,
    *,
    on_gpu: bool,
    kv_unified: bool = False,
    mode: Mode | None = None,
) -> ModePolicy:
    """The policy of the mode, or of another one, for a model at a width."""
    traits = ModelTraits(
        pairs_rows=shape.pairs_rows,
        recurrent=shape.is_recurrent,
        moe=shape.is_moe,
        mla=shape.header.hyperparameter("attention.kv_lora_rank") is not None,
        on_gpu=on_gpu,
    )
    return choose(
        mode or options.mode,
        width,
        traits,
        type_k=options.type_k,
        type_v=options.type_v,
        flash_attn=options.flash_attn,
        speculate=options.speculate,
        kv_unified=kv_unified,
        exact_width=options.exact_width,
        fallback=options.fallback if mode is None else None,
    )


def load_weights(
    header: Header, options: EngineOptions, spec: ModelSpec, notes: list[str], on_progress: OnProgress
) -> tuple[LlamaModel, ModelSpec]:
    """The model, and how it was loaded in the end. Raises ModelInvalid, OutOfMemory."""
    from infer_cli.backend.llama_model import LlamaModel
    from infer_cli.models.footprint import check_fits
    from infer_cli.models.hashes import parts_of
    from infer_cli.runtime.f16_weights import expanded_bytes, expanded_copy
    from infer_cli.system.memory import available_memory

    if spec.gpu_layers == 0:
        stored = sum(part.stat().st_size for part in parts_of(spec.path))
        check_fits(expanded_bytes(header) if spec.expanded else stored, available_memory())
    if not spec.expanded:
        return load_stepping_down(spec, options, notes, on_progress)
    with expanded_copy(header, options.threads) as path:
        # Not mapped: the file goes when it is read.
        return LlamaModel(spec._replace(path=path, use_mmap=False), on_progress), spec


def load_stepping_down(
    spec: ModelSpec, options: EngineOptions, notes: list[str], on_progress: OnProgress
) -> tuple[LlamaModel, ModelSpec]:
    """Load with as many GPU layers as have room; `notes` says where these became fewer."""
    from infer_cli.backend.llama_model import LlamaModel

    while True:
        try:
            return LlamaModel(spec, on_progress), spec
        except ModelInvalid:
            fewer = step_down(spec, options, notes)
            if fewer is None:
                raise
            spec = fewer


def step_down(spec: ModelSpec, options: EngineOptions, notes: list[str]) -> ModelSpec | None:
    """Fewer GPU layers after a failed allocation; None where there is nothing to give up."""
    if spec.gpu_layers == 0 or options.gpu_layers != "auto":
        return None
    fewer = spec.gpu_layers * 3 // 4
    notes.append(f"the GPU had no room for {spec.gpu_layers} layers, trying {fewer}")
    return spec._replace(gpu_layers=fewer)
