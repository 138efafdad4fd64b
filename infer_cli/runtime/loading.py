"""From a model file to a running engine: header, promise, memory, offload, load, vocabulary, context.

The load runs on its own thread and releases the GIL, so the caller can read and import meanwhile.
Knows no prompts, no sampling and no output.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.backend.spec import FREE_CHUNK, ContextSpec, Device, ModelSpec
from infer_cli.engine.policy import ModelTraits, Policy, choose
from infer_cli.errors import ModelInvalid, OutOfMemory, UsageError
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.running import Running
from infer_cli.types import Mode
from infer_cli.vocab.loaded import LoadedVocab

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.backend.llama import LlamaBackend
    from infer_cli.backend.llama_model import LlamaModel
    from infer_cli.models.gguf.header import Header

AUTO_PLAN_CTX = 8192  # window that the `auto` offload plan leaves room for when none is given


class Loading:
    """A model on its way into memory. Make one, do other things, then `vocab()` and `start()`."""

    def __init__(
        self,
        path: Path,
        options: EngineOptions,
        width: int,
        native_fd: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Read the header and begin to load. Raises ModelInvalid, ModelNotFound, OutOfMemory, UsageError."""
        from infer_cli.models.gguf.check import check_model
        from infer_cli.models.gguf.reading import read_model_header

        self._options, self._width, self._native_fd, self._clock = options, width, native_fd, clock
        self._began = clock()
        self.header = read_model_header(path)
        check_model(self.header)
        self._check_header(self.header)
        self.progress = 0.0  # of the load, 0 to 1
        self.notes: list[str] = []  # what was chosen or stepped down, for the user
        self._spec = ModelSpec(path, use_mmap=options.use_mmap, use_mlock=options.use_mlock)
        self._model: LlamaModel | None = None
        self._vocab: LoadedVocab | None = None
        self._error: BaseException | None = None
        self._load_s = 0.0
        self._thread = threading.Thread(target=self._load_thread, name="infer-load", daemon=True)
        self._thread.start()

    def _check_header(self, header: Header) -> None:
        for flag, name, length in (
            ("--cache-type-k", self._options.type_k, header.key_length),
            ("--cache-type-v", self._options.type_v, header.value_length),
        ):
            if name not in (None, "f32", "f16", "bf16") and length % 32:
                raise UsageError(f"{flag} {name} needs attention heads of a multiple of 32, not {length}")
        ctx = self._options.ctx
        if ctx is not None and ctx > header.n_ctx_train:
            raise UsageError(
                f"--ctx {ctx} is larger than the window this model was trained for ({header.n_ctx_train})"
            )

    @property
    def n_ctx_train(self) -> int:
        return self.header.n_ctx_train

    @property
    def window(self) -> int:
        """Tokens that a prompt and its reply may fill together."""
        return self._options.ctx or self.n_ctx_train

    # --- on the load thread --------------------------------------------------------------------

    def _load_thread(self) -> None:
        try:
            self._load()
        except BaseException as e:  # raised again where the result is asked for
            self._error = e
        self._load_s = self._clock() - self._began

    def _load(self) -> None:
        from infer_cli.backend import native
        from infer_cli.models.footprint import check_fits
        from infer_cli.system.memory import available_memory

        native.log_to(self._native_fd)
        native.last_words_to(self._native_fd)
        self._spec = self._spec._replace(devices=self._device_names())
        self._spec = self._spec._replace(gpu_layers=self._plan_layers())
        self.policy = self.choose_policy(self._width)
        self._spec = self._spec._replace(use_extra_bufts=self.policy.use_extra_bufts)
        # As asked, where no promise and no GPU depends on them.
        expands = self._options.expand and self.policy.mode == "fast" and self._spec.gpu_layers == 0
        self._spec = self._spec._replace(expanded=expands)
        if self._spec.gpu_layers == 0:
            check_fits(self._weights_bytes(), available_memory())
        os.environ.update(self.policy.environment)
        if self._spec.expanded:
            self._load_expanded()
        else:
            self._load_stepping_down()
        native.trim_heap()

    def _weights_bytes(self) -> int:
        if self._spec.expanded:
            from infer_cli.runtime.f16_weights import expanded_bytes

            return expanded_bytes(self.header)
        from infer_cli.models.hashes import parts_of

        return sum(part.stat().st_size for part in parts_of(self._spec.path))

    def _load_expanded(self) -> None:
        from infer_cli.backend.llama_model import LlamaModel
        from infer_cli.runtime.f16_weights import expanded_copy

        with expanded_copy(self.header, self._options.threads) as path:
            # Not mapped: the file goes when it is read.
            spec = self._spec._replace(path=path, use_mmap=False)
            self._model = LlamaModel(spec, self._on_progress)

    def choose_policy(self, width: int, *, kv_unified: bool = False, mode: Mode | None = None) -> Policy:
        """The policy of the mode, or of another one, for this model at a width. Needs the offload plan."""
        options, header = self._options, self.header
        traits = ModelTraits(
            pairs_rows=header.pairs_rows,
            recurrent=header.is_recurrent,
            moe=header.is_moe,
            mla=header.hyperparameter("attention.kv_lora_rank") is not None,
            on_gpu=self._spec.gpu_layers > 0,
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

    def _device_names(self) -> tuple[str, ...]:
        from infer_cli.backend import native

        known = {device.name for device in native.devices()}
        for name in self._options.devices:
            if name not in known:
                raise UsageError(f"--device {name!r} is not a device of this build", "see `infer devices`")
        return self._options.devices

    def _plan_layers(self) -> int:
        """Layers to offload: as asked, or all that the free device memory holds."""
        from infer_cli.backend import native
        from infer_cli.models.footprint import compute_bytes, plan_gpu_layers
        from infer_cli.settings.quantities import human_bytes

        all_layers = self.header.n_layer + 1
        wanted = self._options.gpu_layers
        gpus = self._gpus()
        if wanted == "0":
            return 0
        if not gpus or not native.supports_gpu():
            if wanted == "auto":
                return 0
            raise UsageError(
                f"--gpu-layers {wanted}: this build of llama.cpp has no GPU to use",
                "see `infer devices`; `infer doctor` says how to get a build for your GPU",
            )
        if wanted == "all":
            return all_layers
        if wanted != "auto":
            return min(int(wanted), all_layers)
        free = sum(device.free for device in gpus)
        n_ctx = min(self._options.ctx or AUTO_PLAN_CTX, self.header.n_ctx_train)
        layers = plan_gpu_layers(
            self.header,
            free,
            n_ctx,
            self._width,
            self._options.type_k or "f16",
            self._options.type_v or "f16",
            compute_bytes(self.header, n_ctx, FREE_CHUNK, self._width),
        )
        names = ", ".join(device.name for device in gpus)
        self.notes.append(f"offloading {layers} of {all_layers} layers to {names} ({human_bytes(free)} free)")
        return layers

    def _gpus(self) -> list[Device]:
        """Those that may be used, with what is free now."""
        from infer_cli.backend import native

        names = self._options.devices
        gpus = [device for device in native.devices() if device.kind in ("gpu", "igpu")]
        return [device for device in gpus if not names or device.name in names]

    def _load_stepping_down(self) -> None:
        from infer_cli.backend.llama_model import LlamaModel

        while True:
            try:
                self._model, self._vocab = LlamaModel(self._spec, self._on_progress), None
                return
            except ModelInvalid:
                if not self._step_down():
                    raise

    def _step_down(self) -> bool:
        """Fewer GPU layers after a failed allocation; False where there is nothing to give up."""
        if self._spec.gpu_layers == 0 or self._options.gpu_layers != "auto":
            return False
        fewer = self._spec.gpu_layers * 3 // 4
        self.notes.append(f"the GPU had no room for {self._spec.gpu_layers} layers, trying {fewer}")
        self._spec = self._spec._replace(gpu_layers=fewer)
        return True

    def _on_progress(self, fraction: float) -> None:
        self.progress = fraction

    # --- on the caller's thread ----------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the load has ended. Raises what it failed with."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True

    def vocab(self) -> Vocab:
        """The vocabulary, once the model is loaded."""
        self.wait()
        assert self._model is not None
        if self._vocab is None:
            self._vocab = LoadedVocab(self._model.vocab, self.header)
        return self._vocab

    def start(self, n_ctx_seq: int, policy: Policy | None = None) -> Running:
        """Make the context and start the engine, with a window of at least `n_ctx_seq` tokens a slot.

        `policy`: of another width than the one that was planned with. Raises OutOfMemory where it does not
        fit.
        """
        from infer_cli.engine.service import Service

        self.wait()
        policy = policy or self.policy
        context = self.context(policy, n_ctx_seq)
        backend = self.open(context)
        service = Service(backend, policy, self._clock, self.window, self._load_s)
        return Running(service, backend, policy, lambda: self.facts(policy, context))

    def context(self, policy: Policy, n_ctx_seq: int) -> ContextSpec:
        """What a policy wants of a context, with a window of at least `n_ctx_seq` tokens a slot."""
        self.wait()
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

    def fits(self, policy: Policy, n_ctx_seq: int) -> bool:
        """Whether such a context has room in the memory that is free now, as far as that is known."""
        from infer_cli.system.memory import available_memory

        available = available_memory()
        if self._spec.gpu_layers > 0:
            available = sum(device.free for device in self._gpus())
        return available is None or self._context_bytes(self.context(policy, n_ctx_seq)) <= available

    def may_expand(self, n_ctx_seq: int) -> bool:
        """Whether `EngineOptions.expand` may make this model quicker, and has room beside it."""
        from infer_cli.runtime.f16_weights import expanded_bytes, has_disk_room, may_gain
        from infer_cli.system.memory import available_memory

        self.wait()
        if self.policy.mode != "fast" or self._spec.gpu_layers > 0 or not may_gain(self.header):
            return False
        available = available_memory()
        # Twice: where the temporary folder is in memory, the copy is there while it is read.
        needed = 2 * expanded_bytes(self.header) + self._context_bytes(self.context(self.policy, n_ctx_seq))
        return (available is None or needed <= available) and has_disk_room(self.header)

    def open(self, context: ContextSpec) -> LlamaBackend:
        """A context over the model. Raises OutOfMemory where it does not fit."""
        self._check_memory(context)
        return self._make_context(context)

    def facts(self, policy: Policy, context: ContextSpec) -> dict[str, object]:
        """What the fingerprint of an engine with this context is taken of."""
        from infer_cli.backend import native
        from infer_cli.runtime.fingerprint import engine_facts

        return engine_facts(native.versions(), policy, self._spec, context, self._adapters())

    def _make_context(self, context: ContextSpec) -> LlamaBackend:
        from infer_cli.backend.llama import LlamaBackend

        while True:
            assert self._model is not None
            try:
                return LlamaBackend(self._model, context)
            except OutOfMemory:
                if not self._step_down():
                    raise
                self._model.close()
                self._load_stepping_down()

    def _check_memory(self, context: ContextSpec) -> None:
        if self._spec.gpu_layers > 0:
            return  # device memory: llama.cpp's own allocation answers, and we step down
        from infer_cli.models import footprint
        from infer_cli.system.memory import available_memory

        footprint.check_fits(self._context_bytes(context), available_memory())

    def _context_bytes(self, context: ContextSpec) -> int:
        from infer_cli.models import footprint

        return footprint.kv_bytes(
            self.header, context.n_ctx_seq, context.n_seq_max, context.type_k, context.type_v
        ) + footprint.compute_bytes(
            self.header,
            context.n_ctx_seq * (context.n_seq_max if context.kv_unified else 1),
            context.n_batch,
            context.n_outputs_max,
            flash_attention=context.flash_attn != "off",
        )

    def close(self) -> None:
        """Give the model's memory back, after its context was closed."""
        self.wait()
        if self._model is not None:
            self._model.close()

    def _adapters(self) -> dict[str, float]:
        from infer_cli.models.hashes import file_sha256

        return {file_sha256(lora.path): lora.scale for lora in self._options.loras}
