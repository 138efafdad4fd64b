"""Writes a tiny model (llama, or gemma3 with a sliding window) as GGUF: llama.cpp loads and decodes it.

The weights are random (seeded), the vocabulary is GPT-2's 256 byte tokens, a few merges, ChatML's control
tokens and one USER_DEFINED token. Written with `struct` alone, so that reader and writer are independent.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

N_LAYER, N_EMBD, N_HEAD, N_HEAD_KV, N_FF = 2, 128, 4, 2, 128
HEAD_LENGTH = N_EMBD // N_HEAD
ALIGNMENT = 32

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
USER_TOKEN = "[[note]]"
BOS, EOS = 1, 2

DEFAULT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# In merge order; a word is built from pieces that earlier merges made. "Ġ" is GPT-2's space.
_MERGES = (
    "h e", "t he", "Ġ the", "i n", "a n", "an d", "Ġ and", "Ġ a", "e r", "o n", "r e", "Ġ t", "o u", "i s",
    "Ġ is", "Ġ o", "Ġo f", "in g", "l l", "he ll", "hell o", "H e", "w o", "wo r", "Ġ wor", "l d", "Ġwor ld",
    "u s", "us er", "s y", "sy s", "t e", "sys te", "syste m", "Ċ Ċ", "Ġ Ġ", "ĠĠ ĠĠ", "1 2", "Ã ©",
)  # fmt: skip

_TYPE_IDS = {"F32": 0, "F16": 1, "Q4_1": 3, "Q8_0": 8}


def byte_tokens() -> list[str]:
    """GPT-2's printable stand-in for each byte, in byte order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    tokens, spare = [], 0x100
    for byte in range(256):
        if byte in printable:
            tokens.append(chr(byte))
        else:
            tokens.append(chr(spare))
            spare += 1
    return tokens


def vocabulary() -> tuple[list[str], list[int], list[str]]:
    """Tokens, their types, and the merges. Control tokens come first, the user-defined one last."""
    merged = [merge.replace(" ", "") for merge in _MERGES]
    tokens = [*CONTROL_TOKENS, *byte_tokens(), *merged, USER_TOKEN]
    types = [CONTROL] * len(CONTROL_TOKENS) + [NORMAL] * (256 + len(merged)) + [USER_DEFINED]
    return tokens, types, list(_MERGES)


def metadata(n_ctx_train: int, chat_template: str | None) -> dict[str, Any]:
    """The metadata of the tiny model, in file order."""
    tokens, types, merges = vocabulary()
    entries: dict[str, Any] = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "Tiny",
        "general.license": "apache-2.0",
        "llama.block_count": N_LAYER,
        "llama.context_length": n_ctx_train,
        "llama.embedding_length": N_EMBD,
        "llama.feed_forward_length": N_FF,
        "llama.attention.head_count": N_HEAD,
        "llama.attention.head_count_kv": N_HEAD_KV,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": HEAD_LENGTH,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": EOS,
        "tokenizer.ggml.add_bos_token": False,
    }
    if chat_template is not None:
        entries["tokenizer.chat_template"] = chat_template
    return entries


def write_tiny_gguf(
    path: Path,
    *,
    weight_type: str = "F16",
    seed: int = 0,
    chat_template: str | None = DEFAULT_TEMPLATE,
    overrides: Mapping[str, Any] | None = None,
    n_ctx_train: int = 512,
    sliding_window: int | None = None,
) -> Path:
    """Write the model; the same arguments give the same bytes. Returns `path`.

    `sliding_window`: tokens that its layers look back, which makes it a gemma3.

    `weight_type` is F32, F16, Q4_1 or Q8_0 (norms stay F32). `overrides` replaces or adds metadata; None
    removes a key. Values become BOOL, UINT32 (INT32 below zero, UINT64 from 2**32), FLOAT32, STRING, or
    arrays of BOOL, INT32, FLOAT32, STRING.
    """
    entries = metadata(n_ctx_train, chat_template)
    if sliding_window is not None:
        entries = {key.replace("llama.", "gemma3.", 1): value for key, value in entries.items()}
        entries |= {
            "general.architecture": "gemma3",
            "gemma3.attention.sliding_window": sliding_window,
            "gemma3.attention.key_length": HEAD_LENGTH,
            "gemma3.attention.value_length": HEAD_LENGTH,
        }
    entries |= overrides or {}
    tensors = _tensors(weight_type, seed)
    if sliding_window is not None:
        tensors += _gemma3_norms()
    path.write_bytes(gguf_bytes({k: v for k, v in entries.items() if v is not None}, tensors))
    return path


def gguf_bytes(
    entries: Mapping[str, Any], tensors: Sequence[tuple[str, tuple[int, ...], int, bytes]], version: int = 3
) -> bytes:
    """A GGUF file of `entries` and `tensors` (name, shape in ggml order, ggml type id, data)."""
    out = bytearray(struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(entries)))
    for key, value in entries.items():
        out += _string(key) + _value(value)
    offset = 0
    for name, shape, type_id, data in tensors:
        out += _string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        out += struct.pack("<IQ", type_id, offset)
        offset += _padded(len(data))
    out += bytes(_padded(len(out)) - len(out))
    for _, _, _, data in tensors:
        out += data + bytes(_padded(len(data)) - len(data))
    return bytes(out)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    if isinstance(value, (list, tuple)):
        return _array(value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        if value < 0:
            return struct.pack("<Ii", 5, value)
        return struct.pack("<II", 4, value) if value < 2**32 else struct.pack("<IQ", 10, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return struct.pack("<I", 8) + _string(value)


def _array(values: Sequence[Any]) -> bytes:
    n, first = len(values), values[0]
    if isinstance(first, bool):
        return struct.pack(f"<IIQ{n}?", 9, 7, n, *values)
    if isinstance(first, int):
        return struct.pack(f"<IIQ{n}i", 9, 5, n, *values)
    if isinstance(first, float):
        return struct.pack(f"<IIQ{n}f", 9, 6, n, *values)
    return struct.pack("<IIQ", 9, 8, n) + b"".join(map(_string, values))


def _tensors(weight_type: str, seed: int) -> list[tuple[str, tuple[int, ...], int, bytes]]:
    import numpy as np

    rng = np.random.RandomState(seed)  # its stream is frozen across numpy versions
    tensors: list[tuple[str, tuple[int, ...], int, bytes]] = []

    def weight(name: str, row: int, rows: int, scale: float) -> None:
        values = (rng.standard_normal((rows, row)) * scale).astype(np.float32)
        tensors.append((f"{name}.weight", (row, rows), _TYPE_IDS[weight_type], _encoded(values, weight_type)))

    def norm(name: str) -> None:
        data = np.ones(N_EMBD, np.float32).tobytes()
        tensors.append((f"{name}.weight", (N_EMBD,), _TYPE_IDS["F32"], data))

    # The head shares the embedding; small embeddings beside large layers keep it from echoing its input.
    n_kv = N_HEAD_KV * HEAD_LENGTH
    weight("token_embd", N_EMBD, len(vocabulary()[0]), 0.05)
    norm("output_norm")
    for i in range(N_LAYER):
        norm(f"blk.{i}.attn_norm")
        weight(f"blk.{i}.attn_q", N_EMBD, N_EMBD, 0.1)
        weight(f"blk.{i}.attn_k", N_EMBD, n_kv, 0.1)
        weight(f"blk.{i}.attn_v", N_EMBD, n_kv, 0.1)
        weight(f"blk.{i}.attn_output", N_EMBD, N_EMBD, 0.1)
        norm(f"blk.{i}.ffn_norm")
        weight(f"blk.{i}.ffn_gate", N_EMBD, N_FF, 0.1)
        weight(f"blk.{i}.ffn_up", N_EMBD, N_FF, 0.1)
        weight(f"blk.{i}.ffn_down", N_FF, N_EMBD, 0.1)
    return tensors


def _gemma3_norms() -> list[tuple[str, tuple[int, ...], int, bytes]]:
    import numpy as np

    norms = {"attn_q_norm": HEAD_LENGTH, "attn_k_norm": HEAD_LENGTH}
    norms |= {"post_attention_norm": N_EMBD, "post_ffw_norm": N_EMBD}
    return [
        (f"blk.{i}.{name}.weight", (n,), _TYPE_IDS["F32"], np.ones(n, np.float32).tobytes())
        for i in range(N_LAYER)
        for name, n in norms.items()
    ]


def _encoded(values: Floats, weight_type: str) -> bytes:
    """Rows of floats as the data of a tensor."""
    import numpy as np

    if weight_type == "F32":
        return values.astype("<f4").tobytes()
    if weight_type == "F16":
        return values.astype("<f2").tobytes()
    blocks = values.reshape(-1, 32)
    if weight_type == "Q4_1":  # half-precision step and least value, then 16 bytes: low nibbles first
        least = blocks.min(axis=1, keepdims=True).astype("<f2")
        steps = ((blocks.max(axis=1, keepdims=True) - least.astype(np.float32)) / 15).astype("<f2")
        nibbles = np.clip(np.rint((blocks - least) / steps.astype(np.float32)), 0, 15).astype(np.uint8)
        packed = nibbles[:, :16] | nibbles[:, 16:] << 4
        return np.hstack([steps.view(np.uint8), least.view(np.uint8), packed]).tobytes()
    # Q8_0: a half-precision scale, then 32 signed bytes.
    scales = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype("<f2")
    quants = np.clip(np.rint(blocks / scales.astype(np.float32)), -127, 127).astype(np.int8)
    return b"".join(scale.tobytes() + quant.tobytes() for scale, quant in zip(scales, quants, strict=True))
