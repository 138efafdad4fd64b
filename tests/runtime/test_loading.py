"""How many layers go to a GPU, and what happens where they don't fit. The GPU is pretended."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from infer_cli.backend import llama_model, native
from infer_cli.backend.fake import FakeVocab
from infer_cli.backend.spec import Device, ModelSpec
from infer_cli.errors import ModelInvalid, OutOfMemory, UsageError
from infer_cli.runtime.llama_loaded import LlamaLoaded
from infer_cli.runtime.llama_loading import LlamaLoader
from infer_cli.runtime.options import EngineOptions
from infer_cli.system import memory
from tests.tiny_gguf import write_tiny_gguf

CPU = Device("CPU", "a processor", "cpu", 2**34, 2**34)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[LlamaLoaded, list[int]]]:
    """Loads the tiny model beside a pretended GPU; returns the model and the layers of each attempt."""
    path = write_tiny_gguf(tmp_path / "tiny.gguf")

    def load(
        gpu_layers: str, free: int, room: int, devices: tuple[str, ...] = ()
    ) -> tuple[LlamaLoaded, list[int]]:
        attempts: list[int] = []

        class PretendedModel:
            vocab = FakeVocab()

            def __init__(self, spec: ModelSpec, _on_progress: object) -> None:
                attempts.append(spec.gpu_layers)
                if spec.gpu_layers > room:
                    raise ModelInvalid("no room", native=True)

        gpu = Device("GPU0", "a pretended GPU", "gpu", free, 2**34)
        monkeypatch.setattr(native, "devices", lambda: [gpu, CPU])
        monkeypatch.setattr(native, "supports_gpu", lambda: True)
        monkeypatch.setattr(llama_model, "LlamaModel", PretendedModel)
        options = EngineOptions(threads=1, gpu_layers=gpu_layers, devices=devices)
        return LlamaLoader(path, options, 1, os.open(os.devnull, os.O_WRONLY)).loaded(), attempts

    return load


Load = Callable[..., tuple[LlamaLoaded, list[int]]]


def test_auto_takes_all_that_fit_and_says_so(load: Load) -> None:
    loaded, attempts = load("auto", free=2**33, room=99)
    assert attempts == [3]
    assert "offloading 3 of 3 layers to GPU0" in loaded.notes[0]
    assert loaded.policy.promise == "seed-only"
    assert "GPU" in loaded.policy.weaker_because


def test_auto_takes_none_where_nothing_fits(load: Load) -> None:
    loaded, attempts = load("auto", free=2**20, room=99)
    assert attempts == [0]
    assert loaded.policy.promise == "canonical"


def test_auto_steps_down_where_the_allocation_fails(load: Load) -> None:
    loaded, attempts = load("auto", free=2**33, room=0)
    assert attempts == [3, 2, 1, 0]
    assert any("no room for 3 layers" in note for note in loaded.notes)


def test_a_number_is_obeyed_and_not_stepped_down(load: Load) -> None:
    assert load("2", free=0, room=99)[1] == [2]
    assert load("all", free=0, room=99)[1] == [3]
    assert load("99", free=0, room=99)[1] == [3]
    with pytest.raises(ModelInvalid):
        load("2", free=0, room=1)


def test_an_unknown_device_is_refused(load: Load) -> None:
    with pytest.raises(UsageError, match="nosuch"):
        load("all", free=0, room=99, devices=("nosuch",))


def test_weights_beyond_the_memory_are_refused_before_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infer_cli.system.memory.available_memory", lambda: 1000)
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    loader = LlamaLoader(path, EngineOptions(threads=1), 1, os.open(os.devnull, os.O_WRONLY))
    with pytest.raises(OutOfMemory, match="1 kB is available"):
        loader.loaded()


@pytest.mark.parametrize("gpu_layers", ["0", "all"])
def test_a_context_fits_where_its_memory_is_free(
    load: Load, monkeypatch: pytest.MonkeyPatch, gpu_layers: str
) -> None:
    """In the machine's memory, or in the GPU's where layers are there."""
    on_gpu = gpu_layers == "all"
    loaded, _ = load(gpu_layers, free=2**24 if on_gpu else 0, room=99)
    monkeypatch.setattr(memory, "available_memory", lambda: 0 if on_gpu else 2**24)
    assert loaded.fits(loaded.choose_policy(1), 256)
    assert not loaded.fits(loaded.choose_policy(32), 2**16)
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    assert loaded.fits(loaded.choose_policy(32), 2**16) == (not on_gpu)
