"""Which layers go to a GPU. Pure: devices and their free memory are passed in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.backend.spec import FREE_CHUNK, Device
from infer_cli.errors import UsageError
from infer_cli.models.footprint import compute_bytes, plan_gpu_layers
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.sizes import size_text

if TYPE_CHECKING:
    from infer_cli.models.gguf.shape import ModelShape

AUTO_PLAN_CTX = 8192  # window that the `auto` plan leaves room for when none is given


class OffloadPlan(NamedTuple):
    """`layers` go to the GPU, the output layer counted as one more. `note` is for the user."""

    layers: int
    note: str = ""


def gpus_among(devices: Sequence[Device], names: Sequence[str]) -> list[Device]:
    """The GPUs that may be used: those with these names, or all. Raises UsageError for another name."""
    known = {device.name for device in devices}
    for name in names:
        if name not in known:
            raise UsageError(f"--device {name!r} is not a device of this build", "see `infer devices`")
    gpus = [device for device in devices if device.kind in ("gpu", "igpu")]
    return [device for device in gpus if not names or device.name in names]


def plan_offload(
    shape: ModelShape, options: EngineOptions, width: int, gpus: Sequence[Device], *, supports_gpu: bool
) -> OffloadPlan:
    """Layers to offload: as asked, or all that the free device memory holds. Raises UsageError."""
    all_layers = shape.n_layer + 1
    wanted = options.gpu_layers
    if wanted == "0":
        return OffloadPlan(0)
    if not gpus or not supports_gpu:
        if wanted == "auto":
            return OffloadPlan(0)
        raise UsageError(
            f"--gpu-layers {wanted}: this build of llama.cpp has no GPU to use",
            "see `infer devices`; `infer doctor` says how to get a build for your GPU",
        )
    if wanted == "all":
        return OffloadPlan(all_layers)
    if wanted != "auto":
        return OffloadPlan(min(int(wanted), all_layers))
    free = sum(device.free for device in gpus)
    n_ctx = min(options.ctx or AUTO_PLAN_CTX, shape.n_ctx_train)
    layers = plan_gpu_layers(
        shape,
        free,
        n_ctx,
        width,
        options.type_k or "f16",
        options.type_v or "f16",
        compute_bytes(shape, n_ctx, FREE_CHUNK, width),
    )
    names = ", ".join(device.name for device in gpus)
    return OffloadPlan(
        layers, f"offloading {layers} of {all_layers} layers to {names} ({size_text(free)} free)"
    )
