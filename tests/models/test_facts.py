"""What `models show` knows of a model, and where it says it from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infer_cli.errors import ModelInvalid, ModelNotFound, UsageError
from infer_cli.models import footprint as memory
from infer_cli.models.catalogue import ModelEntry, load_catalogue
from infer_cli.models.facts import Fact, facts_of_entry, facts_of_model
from infer_cli.models.gguf.reading import read_header, read_model_header
from infer_cli.models.gguf.shape import ModelShape
from infer_cli.models.sources import HubQuant
from tests.tiny_gguf import DEFAULT_TEMPLATE, gguf_bytes, metadata, vocabulary, write_tiny_gguf


def facts(path: Path, window: int | None = None, entry: ModelEntry | None = None) -> dict[str, Fact]:
    found = facts_of_model(path, None, entry, window)
    assert len({fact.name for fact in found}) == len(found)
    return {fact.name: fact for fact in found}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf", weight_type="Q8_0")


def test_each_value_with_its_origin(tiny: Path) -> None:
    found = facts(tiny)
    header = read_header(tiny)
    expected: dict[str, tuple[Any, str]] = {
        "title": ("Tiny", "general.name"),
        "architecture": ("llama", "general.architecture"),
        "context": (512, "llama.context_length"),
        "vocabulary": (len(vocabulary()[0]), "tokenizer.ggml.tokens"),
        "tokenizer": ("gpt2", "tokenizer.ggml.model"),
        "licence_in_file": ("apache-2.0", "general.license"),
        "size": (tiny.stat().st_size, "the disk"),
        "window": (512, "the trained window, 8192 at most"),
    }
    assert {name: (found[name].value, found[name].origin) for name in expected} == expected
    assert found["chat_templates"].value == {"default": len(DEFAULT_TEMPLATE)}
    assert found["parameters"].value == header.n_params
    assert "licence" not in found and "sampling" not in found and "sha256" not in found


def test_quantization_by_tensor_type(tiny: Path) -> None:
    kinds = facts(tiny)["quantization"].value
    header = read_header(tiny)
    assert list(kinds) == ["Q8_0", "F32"]  # the larger first
    assert sum(kind["tensors"] for kind in kinds.values()) == len(header.tensors)
    assert sum(kind["parameters"] for kind in kinds.values()) == header.n_params
    assert sum(kind["bytes"] for kind in kinds.values()) == memory.weights_bytes(header)


def test_memory_is_that_of_the_window(tiny: Path) -> None:
    header = read_header(tiny)
    for window in (256, 512):
        found = facts(tiny, window)
        assert (found["window"].value, found["window"].origin) == (window, "--ctx")
        assert found["memory_cache"].value == memory.kv_bytes(ModelShape(header), window, 1)
        parts = ("memory_weights", "memory_cache", "memory_compute")
        assert found["memory"].value == sum(found[name].value for name in parts)
    with pytest.raises(UsageError, match="--ctx 513 is larger than the window"):
        facts(tiny, 513)


def test_default_window_is_8192_at_most(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "long.gguf", n_ctx_train=100_000)
    assert facts(path)["window"].value == 8192


def test_the_entry_adds_what_its_page_states(tiny: Path) -> None:
    entry = ModelEntry("x", (), licence="MIT", notes="Good.", sampling={"temperature": 0.5})
    found = facts(tiny, entry=entry)
    assert [found[name].value for name in ("licence", "notes", "sampling")] == [
        "MIT",
        "Good.",
        {"temperature": 0.5},
    ]
    assert {found[name].origin for name in ("licence", "notes", "sampling")} == {"catalogue"}


def test_model_without_template_or_vocabulary(tmp_path: Path) -> None:
    overrides = {"tokenizer.ggml.tokens": None, "general.sampling.temp": 0.5}
    path = write_tiny_gguf(tmp_path / "base.gguf", chat_template=None, overrides=overrides)
    found = facts(path)
    assert found["chat_templates"].value == {}
    assert found["vocabulary"].origin == "llama.vocab_size"
    assert found["sampling_in_file"].value == {"temp": 0.5}


def test_an_entry_that_is_not_here_states_only_what_it_has() -> None:
    stated = {fact.name: fact.value for fact in facts_of_entry(ModelEntry("x", (HubQuant("o/r", "Q8_0"),)))}
    assert stated == {"sources": ["hf:o/r:Q8_0"]}
    for entry in load_catalogue().entries.values():
        assert {"sources", "size", "sha256", "licence"} <= {fact.name for fact in facts_of_entry(entry)}


# --- split models ---------------------------------------------------------------------------------


def split(folder: Path, counts: tuple[int, int] = (2, 2), numbers: tuple[int, int] = (0, 1)) -> Path:
    """The metadata in the first file, all but one tensor in the second. Returns the first."""
    names = [folder / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    small, large = (f"t{i}" for i in (0, 1))
    first = {**metadata(512, None), "split.no": numbers[0], "split.count": counts[0]}
    names[0].write_bytes(gguf_bytes(first, [(small, (8,), 0, bytes(32))]))
    second = {"split.no": numbers[1], "split.count": counts[1]}
    names[1].write_bytes(gguf_bytes(second, [(large, (1024,), 0, bytes(4096))]))
    return names[0]


def test_all_parts_of_a_split_model_count(tmp_path: Path) -> None:
    path = split(tmp_path)
    found = facts(path)
    assert found["files"].value == 2
    assert found["size"].value == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert found["parameters"].value == 8 + 1024
    assert found["memory_weights"].value == 4 * (8 + 1024)
    assert found["quantization"].value == {"F32": {"tensors": 2, "parameters": 1032, "bytes": 4128}}
    assert read_model_header(path.with_name("m-00002-of-00002.gguf")).n_params == 1032


def test_a_model_in_one_file_is_read_as_before(tiny: Path) -> None:
    assert read_model_header(tiny) == read_header(tiny)


def test_parts_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="is not part 2 of 2"):
        read_model_header(split(tmp_path, numbers=(0, 0)))
    with pytest.raises(ModelInvalid, match="is part of a model in 3 files"):
        read_model_header(split(tmp_path, counts=(3, 3)))
    path = split(tmp_path)
    renamed = path.rename(tmp_path / "m.gguf")
    with pytest.raises(ModelInvalid, match="its name does not say so"):
        read_model_header(renamed)


def test_a_part_is_missing(tmp_path: Path) -> None:
    path = split(tmp_path)
    path.with_name("m-00002-of-00002.gguf").unlink()
    with pytest.raises(ModelNotFound, match="m-00002-of-00002"):
        facts(path)


@pytest.mark.weights
def test_the_real_model(smollm2: Path) -> None:
    found = facts(smollm2)
    assert found["parameters"].value == 134_515_008
    assert found["context"].value == found["window"].value == 8192
    assert found["memory_cache"].value == 8192 * 30 * 2 * 3 * 64 * 2  # layers, K and V, heads, length, F16
