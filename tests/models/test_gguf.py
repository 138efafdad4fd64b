"""The GGUF reader: right values from good files, one clear error from every bad one."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.backend.ggml_types import GGML_TYPES
from infer_cli.errors import InferError, ModelInvalid, ModelNotFound
from infer_cli.models.gguf.header import Header, SplitInfo
from infer_cli.models.gguf.reading import read_header
from infer_cli.models.gguf.shape import HYBRID, RECURRENT, ModelShape
from tests.cli_helpers import REPO
from tests.tiny_gguf import (
    DEFAULT_TEMPLATE,
    HEAD_LENGTH,
    N_EMBD,
    N_FF,
    N_HEAD,
    N_HEAD_KV,
    N_LAYER,
    gguf_bytes,
    metadata,
    vocabulary,
    write_tiny_gguf,
)

F32, F16, Q8_0 = 0, 1, 8
PROPERTIES = [name for name in dir(Header) if not name.startswith("_") and name not in ("array", "get_int")]
SHAPES = [name for name in dir(ModelShape) if not name.startswith("_") and name != "per_layer"]


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def start(n_tensors: int = 0, n_keys: int = 0, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, n_tensors, n_keys)


def tensor(name: str = "w", shape: tuple[int, ...] = (32,), type_id: int = F32, offset: int = 0) -> bytes:
    shape_bytes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + shape_bytes + struct.pack("<IQ", type_id, offset)


def parse(tmp_path: Path, data: bytes) -> Header:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    return read_header(path)


def tiny(tmp_path: Path, **overrides: Any) -> Header:
    renamed = {key.replace("__", "."): value for key, value in overrides.items()}
    return read_header(write_tiny_gguf(tmp_path / "tiny.gguf", overrides=renamed))


def with_tensors(tmp_path: Path, *specs: tuple[str, tuple[int, ...], str]) -> Header:
    """A header over zero-filled tensors of the given (name, shape, type)."""
    ids = {kind.name: (type_id, kind) for type_id, kind in GGML_TYPES.items()}
    tensors = []
    for name, shape, type_name in specs:
        type_id, kind = ids[type_name]
        n = 1
        for dim in shape:
            n *= dim
        tensors.append((name, shape, type_id, bytes(n // kind.block * kind.size)))
    return parse(tmp_path, gguf_bytes(metadata(512, None), tensors))


# --- good files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight_type", "pairs"), [("F32", True), ("F16", True), ("Q8_0", False)])
def test_tiny_model(tmp_path: Path, weight_type: str, pairs: bool) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", weight_type=weight_type)
    header = read_header(path)
    shape = ModelShape(header)
    n_vocab = len(vocabulary()[0])
    assert (header.path, header.version, header.alignment) == (path, 3, 32)
    assert header.file_size == path.stat().st_size < 10**6
    assert header.architecture == "llama"
    assert header.name == "Tiny"
    assert header.licence == "apache-2.0"
    assert (shape.n_layer, shape.n_embd, shape.n_ctx_train) == (N_LAYER, N_EMBD, 512)
    assert (shape.n_head, shape.n_head_kv) == (N_HEAD, N_HEAD_KV)
    assert shape.n_head_kv_by_layer == (N_HEAD_KV,) * N_LAYER
    assert shape.n_ff_by_layer == (N_FF,) * N_LAYER
    assert (shape.key_length, shape.value_length) == (HEAD_LENGTH, HEAD_LENGTH)
    assert shape.n_vocab == n_vocab
    assert header.chat_template == DEFAULT_TEMPLATE
    assert shape.sliding_window is None
    assert header.split is None
    assert header.sampling == {}
    assert not shape.is_moe
    assert not shape.is_recurrent
    assert shape.pairs_rows is pairs
    n_norms = 2 * N_LAYER + 1
    expected = {"F32": n_norms, weight_type: 7 * N_LAYER + 1}
    assert header.quantization == (expected if weight_type != "F32" else {"F32": n_norms + 7 * N_LAYER + 1})
    per_layer = 2 * N_EMBD + 2 * N_EMBD * N_EMBD + 2 * N_EMBD * N_HEAD_KV * HEAD_LENGTH + 3 * N_EMBD * N_FF
    assert header.n_params == n_vocab * N_EMBD + N_EMBD + N_LAYER * per_layer
    embedding = header.tensors[0]
    assert (embedding.name, embedding.shape, embedding.type) == (
        "token_embd.weight",
        (N_EMBD, n_vocab),
        weight_type,
    )
    assert header.data_offset + header.tensors[-1].offset + header.tensors[-1].n_bytes <= header.file_size


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    one, two, other = (write_tiny_gguf(tmp_path / "m.gguf", seed=seed).read_bytes() for seed in (1, 1, 2))
    assert one == two != other


def test_arrays_are_decoded_on_demand(tmp_path: Path) -> None:
    header = tiny(tmp_path, numbers=[1.5, -2.0], flags=[True, False])
    tokens, types, merges = vocabulary()
    assert header.array("tokenizer.ggml.tokens") == [token.encode() for token in tokens]
    assert header.array("tokenizer.ggml.token_type") == types
    assert header.array("tokenizer.ggml.merges") == [merge.encode() for merge in merges]
    assert header.array("numbers") == [1.5, -2.0]
    assert header.array("flags") == [True, False]
    with pytest.raises(ModelInvalid, match="no array 'nothing'"):
        header.array("nothing")


@pytest.mark.parametrize("damage", [lambda data: data[:2000], lambda data: data.replace(b"hello", bytes(5))])
def test_an_array_of_a_file_that_changed(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    header = tiny(tmp_path)
    data = header.path.read_bytes()
    info = header.arrays["tokenizer.ggml.tokens"]
    body = damage(data[info.offset :])[: info.n_bytes]
    header.path.write_bytes(data[: info.offset] + b"\xff" * 8 + body[8:])
    with pytest.raises(ModelInvalid, match="changed while it was in use"):
        header.array("tokenizer.ggml.tokens")


@pytest.mark.weights
def test_the_real_model(smollm2: Path) -> None:
    began = time.perf_counter()
    header = read_header(smollm2)
    shape = ModelShape(header)
    print(f"header read in {time.perf_counter() - began:.3f} s")
    assert header.n_params == 134_515_008
    assert (shape.n_layer, shape.n_embd, shape.n_head, shape.n_head_kv) == (30, 576, 9, 3)
    assert shape.n_vocab == 49152
    assert header.quantization == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
    assert header.licence == "apache-2.0"
    assert not shape.has_output_tensor
    assert not shape.pairs_rows
    assert header.array("tokenizer.ggml.tokens")[:3] == [b"<|endoftext|>", b"<|im_start|>", b"<|im_end|>"]
    assert "<|im_start|>" in (header.chat_template or "")


def test_type_sizes_are_ggmls_own() -> None:
    script = """
import ctypes, importlib.util, json, pathlib, sys
folder = pathlib.Path(importlib.util.find_spec("llama_cpp").origin).parent / "lib"
names = {"linux": "libggml-base.so", "darwin": "libggml-base.dylib"}
lib = ctypes.CDLL(str(folder / names.get(sys.platform, "ggml-base.dll")))
lib.ggml_type_name.restype = ctypes.c_char_p
lib.ggml_blck_size.restype = ctypes.c_int64
lib.ggml_type_size.restype = ctypes.c_size_t
types = [(lib.ggml_type_name(i).decode(), lib.ggml_blck_size(i), lib.ggml_type_size(i)) for i in range(43)]
print(json.dumps(types))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    theirs = {i: row for i, row in enumerate(json.loads(done.stdout)) if row[1]}
    ours = {i: [kind.name, kind.block, kind.size] for i, kind in GGML_TYPES.items()}
    assert {i: [name.upper(), *sizes] for i, (name, *sizes) in theirs.items()} == ours


def test_a_file_of_metadata_only(tmp_path: Path) -> None:
    header = parse(tmp_path, gguf_bytes({"general.architecture": "llama"}, []))
    assert header.tensors == ()
    with pytest.raises(ModelInvalid, match=r"lacks 'llama\.block_count'"):
        _ = ModelShape(header).n_layer


# --- derived facts --------------------------------------------------------------------------------


def test_split_numbering(tmp_path: Path) -> None:
    assert tiny(tmp_path, split__no=1, split__count=3).split == SplitInfo(1, 3)
    assert tiny(tmp_path, split__no=0, split__count=1).split is None
    with pytest.raises(ModelInvalid, match=r"'split\.no' is 3 of 3 files"):
        _ = tiny(tmp_path, split__no=3, split__count=3).split
    later = parse(tmp_path, gguf_bytes({"split.no": 1, "split.count": 2}, []))
    with pytest.raises(ModelInvalid, match="part 2 of 2") as caught:
        _ = later.architecture
    assert caught.value.hint == "give the first part"


def test_named_chat_templates(tmp_path: Path) -> None:
    overrides = {"tokenizer.chat_template.tool_use": "T", "tokenizer.chat_template": "D"}
    header = read_header(write_tiny_gguf(tmp_path / "t.gguf", overrides=overrides))
    assert header.chat_templates == {"default": "D", "tool_use": "T"}
    assert read_header(write_tiny_gguf(tmp_path / "t.gguf", chat_template=None)).chat_templates == {}


def test_recommended_sampling(tmp_path: Path) -> None:
    recommended = {"temp": 0.5, "top_k": 20, "sequence": "top_k;temp"}
    header = tiny(tmp_path, **{f"general__sampling__{name}": value for name, value in recommended.items()})
    assert header.sampling == recommended
    for bad in (
        "warm",
        float("inf"),
        True,
    ):  # as it is: who uses it says what is wrong (tests/settings/test_sampling.py)
        assert tiny(tmp_path, general__sampling__temp=bad).sampling == {"temp": bad}
    assert tiny(tmp_path, general__sampling__temp=[0.5]).sampling == {"temp": "an array of float32"}


def test_which_matrices_count_as_pairing_rows(tmp_path: Path) -> None:
    embedding, head = ("token_embd.weight", (32, 4), "F16"), ("output.weight", (32, 4), "Q8_0")

    def pairs(*tensors: tuple[str, tuple[int, ...], str]) -> bool:
        return ModelShape(with_tensors(tmp_path, *tensors)).pairs_rows

    assert pairs(embedding)
    assert not pairs(embedding, head)
    assert pairs(embedding, ("output.weight", (32, 4), "BF16"))
    assert pairs(embedding, head, ("blk.0.ffn_gate_inp.weight", (32, 8), "F32"))
    assert pairs(embedding, head, ("blk.0.ffn_up.weight", (32, 8), "IQ4_NL"))
    others = [
        ("blk.0.attn_norm.weight", (32,), "F32"),
        ("blk.0.attn_q_norm.weight", (8, 4), "F32"),
        ("blk.0.attn_q.bias", (32,), "F32"),
        ("blk.0.ssm_conv1d.weight", (4, 8), "F32"),
        ("blk.0.ssm_a", (4, 8), "F32"),
        ("blk.0.ffn_up.weight", (32, 8), "Q4_0"),
    ]
    assert not pairs(embedding, head, *others)


def test_per_layer_head_counts(tmp_path: Path) -> None:
    shape = ModelShape(tiny(tmp_path, llama__attention__head_count_kv=[4, 0]))
    assert shape.n_head_kv_by_layer == (4, 0)
    assert shape.n_head_kv == 4
    with pytest.raises(ModelInvalid, match="3 elements for 2 layers"):
        _ = ModelShape(tiny(tmp_path, llama__attention__head_count_kv=[1, 2, 3])).n_head_kv_by_layer
    with pytest.raises(ModelInvalid, match="must hold counts"):
        _ = ModelShape(tiny(tmp_path, llama__attention__head_count_kv=[1, -2])).n_head_kv_by_layer


def architecture(tmp_path: Path, arch: str, **hyperparameters: Any) -> ModelShape:
    entries: dict[str, Any] = {
        "general.architecture": arch,
        f"{arch}.block_count": 8,
        f"{arch}.embedding_length": 64,
    }
    entries |= {f"{arch}.{name}": value for name, value in hyperparameters.items()}
    return ModelShape(parse(tmp_path, gguf_bytes(entries, [])))


def test_recurrent_layers(tmp_path: Path) -> None:
    assert architecture(tmp_path, "mamba2").recurrent_by_layer == (True,) * 8
    interval = architecture(tmp_path, "qwen3next", full_attention_interval=4)
    assert interval.is_recurrent
    assert interval.recurrent_by_layer == (True, True, True, False) * 2
    heads = {"attention.head_count_kv": [0, 2] * 4, "attention.head_count": 4}
    assert architecture(tmp_path, "lfm2", **heads).recurrent_by_layer == (True, False) * 4
    listed = {"attention.recurrent_layers": [True] * 2 + [False] * 6}
    assert architecture(tmp_path, "qwen35", **listed).recurrent_by_layer == (True,) * 2 + (False,) * 6
    assert architecture(tmp_path, "llama").recurrent_by_layer == (False,) * 8


ARCHITECTURES = """
import importlib.util, json, pathlib, re, sys
from llama_cpp import llama_cpp as L
from tests.tiny_gguf import gguf_bytes
folder = pathlib.Path(importlib.util.find_spec("llama_cpp").origin).parent / "lib"
names = {"linux": "libllama.so", "darwin": "libllama.dylib"}
library = (folder / names.get(sys.platform, "llama.dll")).read_bytes()
path = pathlib.Path(sys.argv[1])
quiet = L.llama_log_callback(lambda level, text, data: None)
L.llama_log_set(quiet, None)
params = L.llama_model_default_params()
params.vocab_only = True
found, tried = {}, set()

def look(names):
    for name in names - tried:
        tried.add(name)
        path.write_bytes(gguf_bytes({"general.architecture": name, "tokenizer.ggml.model": "none"}, []))
        model = L.llama_model_load_from_file(str(path).encode(), params)
        if model:
            found[name] = [L.llama_model_is_recurrent(model), L.llama_model_is_hybrid(model)]
            L.llama_model_free(model)

look({text.decode() for text in re.findall(rb"(?<=\\0)[a-z][a-z0-9._-]+(?=\\0)", library)})
look({name[i:] for name in found for i in range(1, len(name))})  # a linker lets a text end in another
print(json.dumps(found))
"""


def test_which_architectures_are_recurrent_is_what_llama_cpp_says(tmp_path: Path) -> None:
    """Of every text in the library that llama.cpp takes for the name of an architecture."""
    command = [sys.executable, "-c", ARCHITECTURES, str(tmp_path / "theirs.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPO)
    theirs: dict[str, list[bool]] = json.loads(done.stdout)
    assert len(theirs) > 140
    assert theirs.keys() >= RECURRENT | HYBRID | {"llama", "qwen2", "gemma3"}
    ours = {name: architecture(tmp_path, name) for name in theirs}
    assert {name: [shape.is_recurrent, shape.is_hybrid] for name, shape in ours.items()} == {
        name: [recurrent or hybrid, hybrid] for name, (recurrent, hybrid) in theirs.items()
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("two", "expected a count"),
        (-2, "expected a count"),
        (2.0, "expected a count"),
        (2**40, "expected a count"),
        (0, "expected 1 to 512"),
        (513, "expected 1 to 512"),
        ([2, 2], "is an array, expected a number"),
        (None, "lacks 'llama.block_count'"),
    ],
)
def test_a_garbled_hyperparameter(tmp_path: Path, value: Any, message: str) -> None:
    header = tiny(tmp_path, llama__block_count=value)
    with pytest.raises(ModelInvalid, match=message):
        _ = ModelShape(header).n_layer


@pytest.mark.parametrize("name", ["x" * 65, "ll\x1bama"])
def test_an_architecture_that_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelInvalid, match=r"'general\.architecture' is") as caught:
        _ = ModelShape(tiny(tmp_path, general__architecture=name)).n_layer
    assert caught.value.message.isprintable()


# --- bad files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sixteenths", range(1, 16))
def test_a_file_cut_short(tmp_path: Path, sixteenths: int) -> None:
    data = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    with pytest.raises(ModelInvalid, match="is truncated"):
        parse(tmp_path, data[: len(data) * sixteenths // 16])


def test_a_cut_file_says_how_much_is_missing(tmp_path: Path) -> None:
    data = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    with pytest.raises(ModelInvalid, match=rf"truncated: 100 of {len(data)} bytes are missing"):
        parse(tmp_path, data[:-100])


def test_every_cut_of_the_header_is_noticed(tmp_path: Path) -> None:
    data = gguf_bytes({"a": 1, "b": ["x", "y"]}, [("w", (8,), F32, bytes(32))])
    assert parse(tmp_path, data).arrays["b"].count == 2
    for length in range(1, len(data)):
        with pytest.raises(ModelInvalid, match="is truncated"):
            parse(tmp_path, data[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GGML" + bytes(60), "starts with b'GGML' instead of b'GGUF'"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"PK\x03\x04" + bytes(60), "a ZIP archive"),
        (b"GGUF\0\0\0\3" + bytes(60), "big-endian"),
        (start(version=1), "version 1 is not supported"),
        (start(version=4), "version 4 is not supported"),
        (start(version=0), "version 0 is not supported"),
        (start(n_keys=1) + text("") + struct.pack("<II", 4, 1), "key 0 is empty"),
        (start(n_keys=2) + (text("k") + struct.pack("<II", 4, 1)) * 2, "'k' occurs twice"),
        (start(n_keys=1) + text("k") + struct.pack("<IQ", 13, 1), "unknown type 13"),
        (start(n_keys=1) + text("k") + struct.pack("<IIQ", 9, 9, 0), "array 'k' holds arrays"),
        (start(n_keys=1) + text("k") + struct.pack("<IIQ", 9, 77, 0), "unknown type 77"),
        (gguf_bytes({"general.alignment": 3}, []), "alignment 3 is not a power of two"),
        (gguf_bytes({"general.alignment": 0}, []), "alignment 0 is not a power of two"),
        (gguf_bytes({"general.alignment": 32.0}, []), "not a uint32"),
        (start(1) + tensor(shape=(4, 0)) + bytes(512), r"has shape \(4, 0\)"),
        (start(1) + tensor(shape=(2**40, 2**40)) + bytes(512), "has shape"),
        (start(1) + tensor(shape=(1, 1, 1, 1, 1)) + bytes(512), "5 dimensions"),
        (start(1) + tensor(type_id=4) + bytes(512), "unknown type 4"),
        (start(1) + tensor(type_id=31) + bytes(512), "unknown type 31"),
        (start(1) + tensor(type_id=43) + bytes(512), "unknown type 43"),
        (start(1) + tensor(shape=(33,), type_id=Q8_0) + bytes(512), "Q8_0 needs a multiple of 32"),
        (start(1) + tensor(name="n" * 64) + bytes(512), "64 bytes long, more than 63"),
        (start(2) + tensor() + tensor(offset=128) + bytes(512), "'w' occurs twice"),
        (start(2) + tensor() + tensor("v", offset=64) + bytes(512), "lies at 64, expected at 128"),
        (start(1) + tensor(shape=(2**40,)) + bytes(512), "truncated: .* bytes are missing"),
    ],
)
def test_a_bad_file(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ModelInvalid, match=message) as caught:
        parse(tmp_path, data)
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        start(n_tensors=2**63),
        start(n_tensors=2**17),
        start(n_keys=2**64 - 1),
        start(n_keys=2**16),
        start(n_keys=1) + struct.pack("<Q", 2**63),
        start(n_keys=1) + text("k") + struct.pack("<IQ", 8, 2**62),
        start(n_keys=1) + text("k") + struct.pack("<IIQ", 9, 8, 2**60),
        start(n_keys=1) + text("k") + struct.pack("<IIQ", 9, 0, 2**63),
        start(n_keys=1) + text("k") + struct.pack("<IIQ", 9, 12, 2**25),
        start(n_keys=1) + text("k") + struct.pack("<IIQQQ", 9, 8, 2, 2**64 - 1, 0),
        start(n_keys=1) + text("k") + struct.pack("<IIQQQ", 9, 8, 2, 2**63 - 9, 0),
    ],
)
def test_huge_counts_cost_nothing(tmp_path: Path, data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ModelInvalid):
            parse(tmp_path, data + bytes(1000))
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_names_from_the_file_cannot_reach_the_terminal_raw(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid) as caught:
        parse(tmp_path, (start(n_keys=2) + (text("\x1b[2J\n") + struct.pack("<II", 4, 1)) * 2))
    assert caught.value.message.isprintable()


def test_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="there is no file"):
        read_header(tmp_path / "none.gguf")
    with pytest.raises(ModelNotFound):
        read_header(tmp_path / "nul\0l.gguf")
    with pytest.raises(ModelInvalid, match="is a directory"):
        read_header(tmp_path)
    with pytest.raises(ModelInvalid, match="not a regular file"):
        read_header(Path(os.devnull))
    with pytest.raises(ModelInvalid, match="is empty"):
        parse(tmp_path, b"")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "no permission to read"),
        (OSError(5, "Input/output error"), "cannot read .*: Input/output error"),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    header = tiny(tmp_path)

    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    for action in (lambda: read_header(header.path), lambda: header.array("tokenizer.ggml.tokens")):
        with pytest.raises(ModelInvalid, match=message) as caught:
            action()
        assert caught.value.hint


@pytest.fixture(scope="module")
def fuzz_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=300, deadline=2000)
def test_a_damaged_header_is_a_header_or_invalid(fuzz_dir: Path, edits: list[tuple[float, bytes]]) -> None:
    source = fuzz_dir / "source.gguf"
    if not source.exists():
        write_tiny_gguf(source, weight_type="Q8_0", overrides={"llama.attention.head_count_kv": [2, 2]})
    data = bytearray(source.read_bytes())
    size = read_header(source).data_offset
    for where, new in edits:
        at = int(where * (size - len(new)))
        data[at : at + len(new)] = new
    path = fuzz_dir / "damaged.gguf"
    path.write_bytes(data)
    try:
        header = read_header(path)
    except ModelInvalid:
        return
    shape = ModelShape(header)
    for owner, name in [*((header, name) for name in PROPERTIES), *((shape, name) for name in SHAPES)]:
        try:
            getattr(owner, name)
        except InferError as exc:
            assert isinstance(exc, ModelInvalid)
    for key, info in header.arrays.items():
        assert len(header.array(key)) == info.count
