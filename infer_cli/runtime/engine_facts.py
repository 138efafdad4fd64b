"""What a reply depends on besides its model, prompt, parameters and seed: the engine, and its fingerprint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeVar, get_args

from infer_cli import __version__
from infer_cli.backend.ggml_types import KV_TYPES
from infer_cli.backend.spec import ContextSpec, ModelSpec
from infer_cli.engine.mode_policy import ModePolicy
from infer_cli.system.hashing import sha256_hex
from infer_cli.system.processors import MAX_THREADS
from infer_cli.types import Mode

FlashAttention = Literal["auto", "on", "off"]

# As `backend.native.versions` names them; the fake model has `llama_cpp` alone.
_VERSIONS = frozenset({"llama_cpp_python", "llama_cpp", "ggml", "commit", "system"})
_MAX_INT = 2**31 - 1

T = TypeVar("T")


class EngineFacts(NamedTuple):
    """Everything that may change a reply's bytes under its mode. `versions` has `llama_cpp`, and by name what
    belongs to it.

    `width`, `chunk` and `threads` are None where `invariant` is promised: the promise is that they do not
    matter.
    """

    infer: str
    versions: Mapping[str, str]
    mode: Mode
    type_k: str
    type_v: str
    flash_attn: FlashAttention
    repack: bool
    gpu_layers: int
    devices: tuple[str, ...]
    adapters: Mapping[str, float]  # sha256 -> scale
    has_f16_weights: bool
    kv_unified: bool
    width: int | None
    chunk: int | None  # tokens
    threads: int | None

    @classmethod
    def of(
        cls,
        versions: Mapping[str, str],
        policy: ModePolicy,
        model: ModelSpec,
        context: ContextSpec,
        adapters: Mapping[str, float],
    ) -> EngineFacts:
        """Of an engine that runs here. `adapters`: sha256 -> scale."""
        is_free = policy.promise == "invariant"
        return cls(
            __version__,
            versions,
            policy.mode,
            context.type_k,
            context.type_v,
            context.flash_attn,
            model.use_extra_bufts,
            model.gpu_layers,
            model.devices,
            adapters,
            model.expanded,
            context.kv_unified,
            None if is_free else policy.width,
            None if is_free else policy.chunk,
            None if is_free else context.n_threads,
        )

    @classmethod
    def read(cls, value: Mapping[str, object]) -> EngineFacts:
        """What `as_json` gave. Facts that are unknown here, another version's, are left out.

        Raises ValueError that names the fact which is not as it should be.
        """
        return cls(
            infer=_text(value, "infer"),
            versions={name: _text(value, name) for name in (*value, "llama_cpp") if name in _VERSIONS},
            mode=_one_of(value, "mode", get_args(Mode)),
            type_k=_one_of(value, "type_k", KV_TYPES),
            type_v=_one_of(value, "type_v", KV_TYPES),
            flash_attn=_one_of(value, "flash_attn", get_args(FlashAttention)),
            repack=_one_of(value, "repack", (None, False, True)) or False,
            gpu_layers=_count(value, "gpu_layers", 0) or 0,
            devices=_texts(value, "devices"),
            adapters=_scales(value, "adapters"),
            has_f16_weights=_one_of(value, "weights", (None, "f16")) == "f16",
            kv_unified=_one_of(value, "kv_unified", (None, True)) or False,
            width=_count(value, "width", 1),
            chunk=_count(value, "chunk", 1),
            threads=_count(value, "threads", 1, MAX_THREADS),
        )

    @property
    def llama_cpp(self) -> str:
        return self.versions["llama_cpp"]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.as_json())

    def as_json(self) -> dict[str, object]:
        """As replies, records and jobs have them; what is off, or does not matter, is left out."""
        facts: dict[str, object] = {
            "infer": self.infer,
            **self.versions,
            "mode": self.mode,
            "type_k": self.type_k,
            "type_v": self.type_v,
            "flash_attn": self.flash_attn,
            "repack": self.repack,
            "gpu_layers": self.gpu_layers,
            "devices": list(self.devices),
            "adapters": dict(self.adapters),
        }
        if self.has_f16_weights:
            facts["weights"] = "f16"
        if self.kv_unified:
            facts["kv_unified"] = True
        shape = {"width": self.width, "chunk": self.chunk, "threads": self.threads}
        return facts | {name: value for name, value in shape.items() if value is not None}


def fingerprint(facts: Mapping[str, object]) -> str:
    """16 hex digits of SHA-256 over facts as JSON with sorted keys."""
    return sha256_hex(json.dumps(facts, sort_keys=True).encode())[:16]


# --- facts of a file, which may be anyone's ---------------------------------------------------------


def _wrong(facts: Mapping[str, object], name: str) -> ValueError:
    return ValueError(f"the engine's {name} is not as it should be: {str(facts.get(name))[:60]!r}")


def _text(facts: Mapping[str, object], name: str) -> str:
    value = facts.get(name)
    if not isinstance(value, str):
        raise _wrong(facts, name)
    return value


def _one_of(facts: Mapping[str, object], name: str, known: Iterable[T]) -> T:
    value = facts.get(name)
    for item in known:
        if type(item) is type(value) and item == value:  # 1 is not True
            return item
    raise _wrong(facts, name)


def _count(facts: Mapping[str, object], name: str, least: int, most: int = _MAX_INT) -> int | None:
    value = facts.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong(facts, name)
    return value


def _texts(facts: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = facts.get(name)
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
        raise _wrong(facts, name)
    return tuple(value)


def _scales(facts: Mapping[str, object], name: str) -> dict[str, float]:
    value = facts.get(name) or {}
    if not isinstance(value, dict) or not all(type(scale) in (int, float) for scale in value.values()):
        raise _wrong(facts, name)
    return value
