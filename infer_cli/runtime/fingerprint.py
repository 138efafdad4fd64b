"""What a reply depends on besides its model, prompt, parameters and seed: the engine, as one short hash."""

from __future__ import annotations

import json
from collections.abc import Mapping

from infer_cli import __version__
from infer_cli.backend.spec import ContextSpec, ModelSpec
from infer_cli.engine.mode_policy import ModePolicy
from infer_cli.system.hashing import sha256_hex


def engine_facts(
    versions: Mapping[str, str],
    policy: ModePolicy,
    model: ModelSpec,
    context: ContextSpec,
    adapters: Mapping[str, float],
) -> dict[str, object]:
    """Everything that may change a reply's bytes under its mode. `adapters`: sha256 -> scale.

    Under `invariant` width, chunk and threads are left out: the promise is that they do not matter.
    """
    facts: dict[str, object] = {
        "infer": __version__,
        **versions,
        "mode": policy.mode,
        "type_k": context.type_k,
        "type_v": context.type_v,
        "flash_attn": context.flash_attn,
        "repack": model.use_extra_bufts,
        "gpu_layers": model.gpu_layers,
        "devices": list(model.devices),
        "adapters": dict(adapters),
    }
    if model.expanded:
        facts["weights"] = "f16"
    if context.kv_unified:
        facts["kv_unified"] = True
    if policy.promise != "invariant":
        facts |= {"width": policy.width, "chunk": policy.chunk, "threads": context.n_threads}
    return facts


def fingerprint(facts: Mapping[str, object]) -> str:
    """16 hex digits of SHA-256 over the facts as JSON with sorted keys."""
    return sha256_hex(json.dumps(facts, sort_keys=True).encode())[:16]
