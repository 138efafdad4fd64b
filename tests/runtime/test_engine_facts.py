"""The engine's facts: the same JSON and fingerprint as ever, read back as they were, refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infer_cli.backend.spec import ContextSpec, ModelSpec
from infer_cli.engine.mode_policy import ModelTraits, choose
from infer_cli.runtime.engine_facts import EngineFacts, fingerprint
from infer_cli.types import Mode

VERSIONS = {
    "llama_cpp_python": "0.3.1", "llama_cpp": "b1", "ggml": "0.1", "commit": "abc", "system": "CPU : AVX = 1",
}  # fmt: skip


def facts_of(mode: Mode, **of_model: Any) -> EngineFacts:
    policy = choose(mode, 4, ModelTraits())
    model = ModelSpec(Path("m.gguf"))._replace(**of_model)
    context = ContextSpec(256, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 2)
    return EngineFacts.of(VERSIONS, policy, model, context, {"ab": 0.5})._replace(infer="1.0")


def test_as_files_have_them() -> None:
    facts = facts_of("canonical")
    assert json.dumps(facts.as_json()) == (
        '{"infer": "1.0", "llama_cpp_python": "0.3.1", "llama_cpp": "b1", "ggml": "0.1", "commit": "abc",'
        ' "system": "CPU : AVX = 1", "mode": "canonical", "type_k": "f16", "type_v": "f16",'
        ' "flash_attn": "auto", "repack": true, "gpu_layers": 0, "devices": [], "adapters": {"ab": 0.5},'
        f' "width": {facts.width}, "chunk": {facts.chunk}, "threads": 2}}'
    )
    assert facts.fingerprint == fingerprint(facts.as_json())
    assert (facts.infer, facts.llama_cpp) == ("1.0", "b1")


def test_what_does_not_matter_is_left_out() -> None:
    assert not {"width", "chunk", "threads", "weights", "kv_unified"} & facts_of("invariant").as_json().keys()
    expanded = facts_of("fast", expanded=True)._replace(kv_unified=True).as_json()
    assert (expanded["weights"], expanded["kv_unified"]) == ("f16", True)


@pytest.mark.parametrize("mode", ["fast", "canonical", "invariant"])
def test_they_come_back_as_they_were(mode: Mode) -> None:
    facts = facts_of(mode, gpu_layers=3, devices=("CUDA0",), expanded=mode == "fast")
    text = json.dumps(facts.as_json())
    assert EngineFacts.read(json.loads(text)) == facts
    assert json.dumps(EngineFacts.read(json.loads(text)).as_json()) == text


def test_facts_of_another_version() -> None:
    older = dict.fromkeys(("type_k", "type_v"), "f16")
    facts = EngineFacts.read(
        {"infer": "0", "llama_cpp": "b0", "mode": "canonical", **older, "flash_attn": "on", "new": 5}
    )
    assert (facts.gpu_layers, facts.devices, facts.repack, facts.width) == (0, (), False, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("infer", None), ("llama_cpp", 5), ("system", []), ("mode", "odd"), ("mode", ["fast"]),
        ("type_k", "x"), ("type_v", None), ("flash_attn", True), ("repack", 1), ("gpu_layers", -1),
        ("gpu_layers", "0"), ("devices", "CUDA0"), ("devices", [1]), ("adapters", ["ab"]),
        ("adapters", {"ab": "1"}), ("weights", "f32"), ("kv_unified", 1), ("width", 0), ("width", True),
        ("chunk", 1.5), ("threads", "2"), ("threads", 10**9),
    ],
)  # fmt: skip
def test_a_wrong_fact_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"the engine's {name} is not as it should be"):
        EngineFacts.read({**facts_of("canonical").as_json(), name: value})
