"""What would end llama.cpp's process is refused before, by its key's name; what llama.cpp can use is not."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest

from infer_cli.backend.ggml_types import GGML_TYPES
from infer_cli.errors import ModelInvalid
from infer_cli.models.gguf import check as gguf_check
from infer_cli.models.gguf.check import check_model, check_vocabulary
from infer_cli.models.gguf.header import Header
from infer_cli.models.gguf.reading import read_header, read_model_header
from tests.cli_helpers import infer, one_error_line
from tests.sdist import models_dir
from tests.tiny_gguf import gguf_bytes, metadata, vocabulary, write_tiny_gguf

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
IDS = {kind.name: type_id for type_id, kind in GGML_TYPES.items()}


def tiny(folder: Path, overrides: dict[str, Any], **options: Any) -> Header:
    return read_header(write_tiny_gguf(folder / "tiny.gguf", overrides=overrides, **options))


def with_vocabulary(folder: Path, kind: str, tokens: list[str], **more: Any) -> Header:
    """A vocabulary over no weights. `more` has `__` for `.`, and `tokenizer.ggml.` left out."""
    entries = metadata(512, None) | {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * len(tokens),
        **{f"tokenizer.ggml.{key}": value for key, value in more.items()},
    }
    path = folder / "vocabulary.gguf"
    path.write_bytes(gguf_bytes(entries, []))
    return read_header(path)


def with_type(folder: Path, name: str, type_name: str) -> Header:
    """The tiny model, one of its tensors of another type, all zeros."""
    source = read_header(write_tiny_gguf(folder / "source.gguf"))
    tensors = []
    for tensor in source.tensors:
        type_id = IDS[type_name if tensor.name == name else tensor.type]
        kind = GGML_TYPES[type_id]
        n_bytes = tensor.n_elements // kind.block * kind.size
        tensors.append((tensor.name, tensor.shape, type_id, bytes(n_bytes)))
    path = folder / "typed.gguf"
    path.write_bytes(gguf_bytes(metadata(512, None), tensors))
    return read_header(path)


# --- what passes ----------------------------------------------------------------------------------


def test_whole_models_pass(tmp_path: Path) -> None:
    for weight_type in ("F32", "F16", "Q4_1", "Q8_0"):
        check_model(tiny(tmp_path, {}, weight_type=weight_type))
    check_model(tiny(tmp_path, {}, sliding_window=64))


@pytest.mark.weights
def test_the_vocabularies_of_llama_cpp_pass(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    found = sorted(models_dir(pytestconfig.cache).glob("ggml-vocab-*.gguf"))
    assert len(found) > 10
    for path in found:
        check_vocabulary(read_header(path))


@pytest.mark.weights
def test_the_real_model_passes(smollm2: Path) -> None:
    check_model(read_model_header(smollm2))


# --- hyperparameters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("expert_count", 4, "'llama.expert_used_count' is 0, expected 1 to 4 of 4 experts"),
        ("expert_count", 2000, "'llama.expert_count' is 2000, expected at most 1024"),
        ("expert_used_count", 2, "'llama.expert_used_count' is 2, expected no experts"),
        (
            "expert_group_count",
            1,
            "'llama.expert_group_count' is 1, expected fewer groups",
        ),
        ("attention.layer_norm_rms_epsilon", -1e-5, "epsilon' is -9.99"),
        ("attention.layer_norm_rms_epsilon", math.nan, "epsilon' is nan"),
        ("attention.layer_norm_rms_epsilon", math.inf, "epsilon' is inf"),
        ("attention.head_count_kv", 0, "'llama.attention.head_count_kv' is 0"),
        ("attention.head_count_kv", 3, "'llama.attention.head_count_kv' is 3, and 4 heads"),
        ("attention.head_count", 0, "'llama.attention.head_count' is 0"),
        ("attention.value_length", 16, "'llama.attention.value_length' is 16, and keys have 32"),
        ("attention.causal", False, "'llama.attention.causal' is false"),
        ("rope.scaling.type", "su", "'llama.rope.scaling.type' is 'su', expected one of none, linear"),
        ("rope.dimension_count", 31, "'llama.rope.dimension_count' is 31, expected an even number"),
        ("rope.dimension_count", 0, "'llama.rope.dimension_count' is 0, expected an even number above 0"),
        ("rope.dimension_count", 64, "'llama.rope.dimension_count' is 64, and keys have 32"),
        ("rope.dimension_count", 16, "'llama.rope.dimension_count' is 16, expected 32"),
        ("rope.dimension_count_swa", 34, "'llama.rope.dimension_count_swa' is 34, and keys have 32"),
        ("nextn_predict_layers", 3, "3 next-token-prediction layers of 2"),
        ("block_count", 0, "'llama.block_count' is 0, expected 1 to 512"),
        ("embedding_length", 0, "'llama.embedding_length' is 0"),
        ("context_length", 0, "'llama.context_length' is 0"),
    ],
)
def test_a_hyperparameter(tmp_path: Path, name: str, value: Any, message: str) -> None:
    with pytest.raises(ModelInvalid) as caught:
        check_model(tiny(tmp_path, {f"llama.{name}": value}))
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"expert_used_count": 9}, "expert_used_count"),
        ({"expert_used_count": [2, 9]}, "expert_used_count"),
        ({"expert_used_count": [0, 0]}, "expert_used_count"),
        ({"expert_used_count": 2, "expert_group_count": 8}, "expert_group_count"),
        ({"expert_used_count": 2, "expert_group_count": 3}, "expert_group_count"),
        ({"expert_used_count": 2, "expert_group_count": 4}, "expert_group_used_count"),
        (
            {"expert_used_count": 2, "expert_group_count": 4, "expert_group_used_count": 4},
            "expert_group_used_count",
        ),
    ],
)
def test_experts(tmp_path: Path, more: dict[str, Any], name: str) -> None:
    keys = {"expert_count": 8} | more
    with pytest.raises(ModelInvalid, match=rf"'llama\.{name}' is"):
        check_model(tiny(tmp_path, {f"llama.{key}": value for key, value in keys.items()}))


def of_architecture(folder: Path, arch: str, **more: Any) -> Header:
    """The tiny model's metadata under another name; `more` has `__` for `.`."""
    entries = {key.replace("llama.", f"{arch}.", 1): value for key, value in metadata(512, None).items()}
    entries |= {"general.architecture": arch}
    entries |= {f"{arch}.{key.replace('__', '.')}": value for key, value in more.items()}
    path = folder / "other.gguf"
    path.write_bytes(gguf_bytes(entries, []))
    return read_header(path)


@pytest.mark.parametrize(
    ("arch", "more", "message"),
    [
        ("smallthinker", {}, "'smallthinker.expert_count' is 0"),
        ("qwen3moe", {}, "'qwen3moe.expert_used_count' is 0"),
        ("qwen35", {"full_attention_interval": 0}, "'qwen35.full_attention_interval' is 0"),
        ("mamba2", {"ssm__group_count": 0}, "'mamba2.ssm.group_count' is 0"),
        ("rwkv7", {"wkv__head_size": 0}, "'rwkv7.wkv.head_size' is 0"),
        ("nanbeige", {"num_loops": 0}, "'nanbeige.num_loops' is 0"),
        ("jamba", {"ssm__inner_size": 128}, "'jamba.ssm.inner_size' is 128, expected 256"),
        ("deepseek2", {"attention__key_length_mla": 32}, "'deepseek2.rope.dimension_count' is 32, and heads"),
        ("qwen2vl", {"rope__dimension_sections": [0, 0, 0, 4]}, "'qwen2vl.rope.dimension_sections' has no"),
        ("paddleocr", {}, "'paddleocr.rope.dimension_sections' has no section"),
    ],
)
def test_what_one_architecture_asserts(tmp_path: Path, arch: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelInvalid) as caught:
        check_model(of_architecture(tmp_path, arch, **more))
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("arch", "more"),
    [
        ("smallthinker", {"expert_count": 8, "expert_used_count": 2}),
        ("qwen3moe", {"expert_feed_forward_length": 64}),
        ("jamba", {"ssm__inner_size": 256}),
        ("deepseek2", {"attention__key_length_mla": 48}),
        ("paddleocr", {"rope__dimension_sections": [4, 6, 6, 0]}),
        ("gpt2", {"rope__dimension_count": 0}),
        ("mamba2", {"attention__head_count": 0, "attention__head_count_kv": 0, "ssm__group_count": 1}),
        ("lfm2", {"attention__head_count_kv": [0, 2]}),
    ],
)
def test_what_one_architecture_takes(tmp_path: Path, arch: str, more: dict[str, Any]) -> None:
    check_model(of_architecture(tmp_path, arch, **more))


def test_experts_that_are_as_they_should_be(tmp_path: Path) -> None:
    keys = {"expert_count": 8, "expert_used_count": 2, "expert_group_count": 4, "expert_group_used_count": 2}
    check_model(tiny(tmp_path, {f"llama.{key}": value for key, value in keys.items()}))


@pytest.mark.parametrize("pattern", [1, [False, False]])
def test_windows_of_no_layer(tmp_path: Path, pattern: Any) -> None:
    key = "gemma3.attention.sliding_window_pattern"
    with pytest.raises(ModelInvalid, match="sliding_window_pattern' gives no layer the window of 64"):
        check_model(tiny(tmp_path, {key: pattern}, sliding_window=64))
    for good in (0, 2, [False, True]):
        check_model(tiny(tmp_path, {key: good}, sliding_window=64))


@pytest.mark.parametrize("architecture", ["bert", "t5", "llada", "clip"])
def test_an_architecture_that_writes_no_text(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(ModelInvalid, match=f"'{architecture}', which does not write text"):
        check_model(tiny(tmp_path, {"general.architecture": architecture}))
    check_vocabulary(tiny(tmp_path, {"general.architecture": architecture}))


def test_an_alignment_that_memory_has_not(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match=r"'general\.alignment' is 8, expected a multiple of 32"):
        path = tmp_path / "aligned.gguf"
        entries = metadata(512, None) | {"general.alignment": 8}
        path.write_bytes(gguf_bytes(entries, [("output_norm.weight", (32,), 0, bytes(128))]))
        check_model(read_header(path))


# --- tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_name", ["F64", "I32", "I8", "I16", "I64", "Q8_1"])
@pytest.mark.parametrize("name", ["blk.0.attn_q.weight", "token_embd.weight"])
def test_a_matrix_of_a_type_without_a_kernel(tmp_path: Path, name: str, type_name: str) -> None:
    with pytest.raises(ModelInvalid, match=rf"tensor '{name}' has type {type_name}, which can't be"):
        check_model(with_type(tmp_path, name, type_name))


@pytest.mark.parametrize("type_name", ["F16", "BF16", "F64", "Q8_0", "I32"])
def test_a_norm_of_another_type(tmp_path: Path, type_name: str) -> None:
    with pytest.raises(ModelInvalid, match=rf"attn_norm\.weight' has type {type_name}, expected F32"):
        check_model(with_type(tmp_path, "blk.1.attn_norm.weight", type_name))


@pytest.mark.parametrize("type_name", ["Q4_0", "BF16", "IQ4_NL", "MXFP4", "Q2_0"])
def test_a_matrix_of_a_type_that_can_be_used(tmp_path: Path, type_name: str) -> None:
    check_model(with_type(tmp_path, "blk.0.attn_q.weight", type_name))


# --- vocabularies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "no_vocab"])
def test_no_vocabulary(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ModelInvalid, match=rf"'tokenizer\.ggml\.model' is '{kind}': it has no vocabulary"):
        check_vocabulary(with_vocabulary(tmp_path, kind, ["a"]))


def test_no_tokens(tmp_path: Path) -> None:
    for tokens in (None, [1, 2]):
        with pytest.raises(ModelInvalid, match=r"lacks 'tokenizer\.ggml\.tokens'"):
            check_vocabulary(tiny(tmp_path, {"tokenizer.ggml.tokens": tokens}))


def test_more_tokens_than_any_vocabulary_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_check, "_MOST_TOKENS", 3)
    check_vocabulary(with_vocabulary(tmp_path, "gpt2", ["a", "b", "c"]))
    with pytest.raises(ModelInvalid, match=r"'tokenizer\.ggml\.tokens' has 4 tokens, expected 1 to 3"):
        check_vocabulary(with_vocabulary(tmp_path, "gpt2", ["a", "b", "c", "d"]))


@pytest.mark.parametrize(
    "more", [["hello", "hello"], ["x\0y", "x\0z"], ["", "[EMPTY_300]"], ["Ġ" * 9000, "Ġ" * 9000]]
)
def test_a_token_that_is_there_twice(tmp_path: Path, more: list[str]) -> None:
    tokens = [f"t{i}" for i in range(300)]
    with pytest.raises(ModelInvalid, match=r"'tokenizer\.ggml\.tokens' has .* twice \(token 301\)"):
        check_vocabulary(with_vocabulary(tmp_path, "gpt2", [*tokens, *more]))


@pytest.mark.parametrize("gone", [0x0A, 0x41, 0x80, 0xE2, 0xF4])
def test_a_llama_vocabulary_without_a_byte(tmp_path: Path, gone: int) -> None:
    tokens = ["<unk>", "<s>", "</s>", *BYTES]
    check_vocabulary(with_vocabulary(tmp_path, "llama", tokens))
    tokens[3 + gone] = "gone"
    with pytest.raises(ModelInvalid, match=rf"ggml\.tokens' lacks a token for the byte 0x{gone:02X}"):
        check_vocabulary(with_vocabulary(tmp_path, "llama", tokens))
    if gone < 0x80:  # the character itself does as well
        tokens[3 + gone] = chr(gone)
        check_vocabulary(with_vocabulary(tmp_path, "llama", tokens))


def test_bytes_that_no_text_has_may_be_gone(tmp_path: Path) -> None:
    tokens = [token for i, token in enumerate(BYTES) if i not in (0, 0xC0, 0xC1, 0xFE)]
    check_vocabulary(with_vocabulary(tmp_path, "llama", ["<unk>", *tokens]))


def test_an_rwkv_vocabulary_without_a_byte(tmp_path: Path) -> None:
    tokens = [rf"\x{byte:02x}" if byte < 32 or byte > 126 else chr(byte) for byte in range(256)]
    tokens[10], tokens[92] = r"\n", r"\\"
    check_vocabulary(with_vocabulary(tmp_path, "rwkv", tokens))
    tokens[0xE9] = "gone"
    with pytest.raises(ModelInvalid, match="byte 0xE9"):
        check_vocabulary(with_vocabulary(tmp_path, "rwkv", tokens))


def test_a_token_whose_table_would_take_hours(tmp_path: Path) -> None:
    check_vocabulary(with_vocabulary(tmp_path, "plamo2", [*BYTES, "x" * 256]))
    with pytest.raises(ModelInvalid, match=r"'tokenizer\.ggml\.tokens' has a token of more than 256 bytes"):
        check_vocabulary(with_vocabulary(tmp_path, "plamo2", [*BYTES, "x" * 257]))


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_an_unknown_token_that_is_none(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ModelInvalid, match=r"'tokenizer\.ggml\.unknown_token_id' is 7, which is no token"):
        check_vocabulary(with_vocabulary(tmp_path, kind, ["a", "b"], unknown_token_id=7))
    check_vocabulary(with_vocabulary(tmp_path, kind, ["a", "b"], unknown_token_id=1))


def test_byte_tokens_of_a_kind_that_has_none(tmp_path: Path) -> None:
    tokens = [f"t{i}" for i in range(101)]
    check_vocabulary(with_vocabulary(tmp_path, "bert", tokens))
    with pytest.raises(ModelInvalid, match=r"'tokenizer\.ggml\.token_type' has byte tokens"):
        check_vocabulary(with_vocabulary(tmp_path, "bert", tokens, token_type=[6] * 101))


def charsmap(folder: Path, entries: list[int], texts: bytes) -> Header:
    packed = struct.pack(f"<{len(entries)}I", *entries)
    data = struct.pack("<I", len(packed)) + packed + texts
    head = gguf_bytes(metadata(512, None) | {"tokenizer.ggml.model": "t5"}, [])
    key = b"tokenizer.ggml.precompiled_charsmap"
    array = struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 0, len(data)) + data
    n_keys = struct.unpack_from("<Q", head, 16)[0]
    path = folder / "charsmap.gguf"
    path.write_bytes(head[:16] + struct.pack("<Q", n_keys + 1) + array + head[24:])
    return read_header(path)


def test_a_table_of_characters_that_points_out_of_itself(tmp_path: Path) -> None:
    empty = [0] * 256
    replaced = [*empty]
    replaced[0x61] = 0x60 << 10 | 1 << 8 | 0x61  # "a" has a text, whose place is in entry 0x61 ^ 0x60
    replaced[1] = 1 << 31 | 2
    for entries in (empty, replaced):
        check_vocabulary(charsmap(tmp_path, entries, b"a\0b\0"))
    for entries, texts in (
        ([1 << 10 | 1 << 9, *empty[1:]], b"a\0"),  # what follows the root lies beyond the end
        (empty[:100], b"a\0"),
        (empty, b"a"),  # a text without an end
        (replaced, b"a\0"),  # a text beyond the texts
    ):
        with pytest.raises(ModelInvalid, match=r"'tokenizer\.ggml\.precompiled_charsmap'"):
            check_vocabulary(charsmap(tmp_path, entries, texts))


def test_a_vocabulary_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    whole = gguf_check._check_tokens

    def counted(header: Header, kind: object) -> None:
        seen.append(header.path)
        whole(header, kind)

    monkeypatch.setattr(gguf_check, "_check_tokens", counted)
    header = tiny(tmp_path, {})
    for _ in range(3):
        check_vocabulary(header)
    assert len(seen) == 1
    tokens = vocabulary()[0]
    damaged = tiny(tmp_path, {"tokenizer.ggml.tokens": [*tokens[:-1], tokens[0]]})
    for _ in range(2):
        with pytest.raises(ModelInvalid):
            check_vocabulary(damaged)
    assert len(seen) == 3


# --- the whole way --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"llama.expert_count": 4}, "llama.expert_used_count"),
        ({"tokenizer.ggml.model": "llama"}, "tokenizer.ggml.tokens"),
    ],
)
def test_a_damaged_model_is_one_line(tmp_path: Path, overrides: dict[str, Any], key: str) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", overrides=overrides)
    one_error_line(infer("run", "-m", path, "-n", 1, "hi"), 4, f"'{key}'", "hint: ")


def test_tokens_looks_too(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", overrides={"tokenizer.ggml.model": "none"})
    one_error_line(infer("tokens", "-m", path, "hi"), 4, "'tokenizer.ggml.model'")
