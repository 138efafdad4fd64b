"""From a model file to a model in memory, in three steps: header, plan, load.

The load runs on its own thread and releases the GIL, so the caller can read and import meanwhile.
Knows no prompts, no sampling and no output.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.backend.spec import ModelSpec
from infer_cli.errors import UsageError
from infer_cli.runtime.llama_environment import PROCESS_SWITCHES
from infer_cli.runtime.llama_loaded import LlamaLoaded, choose_policy, load_weights
from infer_cli.runtime.options import EngineOptions

if TYPE_CHECKING:
    from infer_cli.models.gguf.shape import ModelShape


class LlamaLoader:
    """`Loader` of a GGUF file. `progress` is of the load, 0 to 1."""

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
        from infer_cli.models.gguf.shape import ModelShape

        self.progress = 0.0
        self._began = clock()
        self._options, self._width, self._native_fd, self._clock = options, width, native_fd, clock
        header = read_model_header(path)
        check_model(header)
        self._shape = ModelShape(header)
        check_options(self._shape, options)
        self._loaded: LlamaLoaded | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(path,), name="infer-load", daemon=True)
        self._thread.start()

    @property
    def chat_template(self) -> str | None:
        return self._shape.header.chat_template

    def _run(self, path: Path) -> None:
        try:
            self._loaded = self._load(path)
        except BaseException as e:  # raised again where the result is asked for
            self._error = e

    def _load(self, path: Path) -> LlamaLoaded:
        from infer_cli.backend import native
        from infer_cli.runtime.offload import gpus_among, plan_offload

        native.log_to(self._native_fd)
        native.last_words_to(self._native_fd)
        shape, options = self._shape, self._options
        gpus = gpus_among(native.devices(), options.devices)
        plan = plan_offload(shape, options, self._width, gpus, supports_gpu=native.supports_gpu())
        policy = choose_policy(shape, options, self._width, on_gpu=plan.layers > 0)
        spec = ModelSpec(
            path,
            gpu_layers=plan.layers,
            devices=options.devices,
            use_mmap=options.use_mmap,
            use_mlock=options.use_mlock,
            use_extra_bufts=policy.use_extra_bufts,
            # As asked, where no promise and no GPU depends on it.
            expanded=options.expand and policy.mode == "fast" and plan.layers == 0,
        )
        PROCESS_SWITCHES.hold(policy.environment)
        notes = [plan.note] if plan.note else []
        model, spec = load_weights(shape.header, options, spec, notes, self._on_progress)
        native.trim_heap()
        load_s = self._clock() - self._began
        return LlamaLoaded(shape, options, policy, spec, model, notes, load_s, self._on_progress)

    def _on_progress(self, fraction: float) -> None:
        self.progress = fraction

    def wait(self, timeout: float | None = None) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def loaded(self) -> LlamaLoaded:
        self._thread.join()
        if self._loaded is None:
            assert self._error is not None  # a thread that has ended left one or the other
            raise self._error
        return self._loaded


def check_options(shape: ModelShape, options: EngineOptions) -> None:
    """Raises UsageError for what llama.cpp would refuse or abort on with this model."""
    for flag, name, length in (
        ("--cache-type-k", options.type_k, shape.key_length),
        ("--cache-type-v", options.type_v, shape.value_length),
    ):
        if name not in (None, "f32", "f16", "bf16") and length % 32:
            raise UsageError(f"{flag} {name} needs attention heads of a multiple of 32, not {length}")
    if options.ctx is not None and options.ctx > shape.n_ctx_train:
        raise UsageError(
            f"--ctx {options.ctx} is larger than the window this model was trained for ({shape.n_ctx_train})"
        )
