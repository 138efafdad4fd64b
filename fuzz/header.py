"""GGUF headers: read, and asked for all that is derived from them.

A header is taken apart into its keys and tensors, a few of them are changed, and now and then bytes of the
whole. Tensor data is a hole in the file. Several thousand a second: `python -m fuzz header --runs 1000000`.
"""

from __future__ import annotations

import os
import random
import struct
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from fuzz.mutate import INTEGERS, changed_bytes
from fuzz.target import Input, Target
from infer_cli.backend.ggml_types import GGML_TYPES
from infer_cli.errors import ExitStatus, InferError
from infer_cli.models.gguf.header import Header
from infer_cli.models.gguf.reading import read_header
from infer_cli.models.gguf.shape import ModelShape

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_COUNTS = struct.Struct("<4sIQQ")
_MOST_HOLE = 2**34

_NAMES = (
    "general.architecture", "general.alignment", "general.name", "general.license", "split.count", "split.no",
    "tokenizer.chat_template", "tokenizer.chat_template.tool", "tokenizer.ggml.model", "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.scores", "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token", "general.sampling.temp",
    "general.sampling.top_k", "general.sampling.sequence", "general.sampling.penalty_repeat",
    "llama.block_count", "llama.context_length", "llama.embedding_length", "llama.attention.head_count",
    "llama.attention.head_count_kv", "llama.attention.key_length", "llama.feed_forward_length",
    "llama.vocab_size", "llama.expert_count", "llama.expert_used_count", "llama.attention.sliding_window",
    "llama.nextn_predict_layers", "llama.attention.layer_norm_rms_epsilon", "llama.rope.scaling.type",
    "llama.full_attention_interval", "llama.attention.recurrent_layers", "", "\0", "a" * 70, "\x1b[31m", "é",
)  # fmt: skip
_TEXTS = (
    b"", b"llama", b"gemma3", b"qwen3next", b"mamba", b"jamba", b"gpt2", b"none", b"no_vocab", b"x" * 65,
    b"\xff\xfe",
    b"\x1b]0;t\x07", b"a\nb", b"\0", b"{{ 1 }}", b"{%", b"linear", "é".encode() * 40,
)  # fmt: skip
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, float("inf"), float("-inf"), float("nan"), 0.31)


def _derived(owner: type) -> list[str]:
    return [name for name, kind in vars(owner).items() if isinstance(kind, (property, cached_property))]


_OF_HEADER, _OF_SHAPE = _derived(Header), _derived(ModelShape)


class Parts(NamedTuple):
    """A header in pieces: each key with its value, each tensor's entry; `hole`: bytes of tensor data."""

    keys: tuple[bytes, ...]
    tensors: tuple[bytes, ...]
    hole: int


class HeaderTarget(Target):
    name = "header"
    statuses = frozenset({ExitStatus.MODEL_INVALID, ExitStatus.MODEL_NOT_FOUND})
    most_memory = 64 * 2**20

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._path = scratch / "model.gguf"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        self._bases = [parts_of(given.data) for given in self.seed_inputs() if given.kind == "gguf"]

    def generate(self, rng: random.Random) -> Input:
        base = self._bases[rng.randrange(len(self._bases))]
        keys, tensors, hole = list(base.keys), list(base.tensors), base.hole
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            if tensors and rng.random() < 0.3:
                _change_tensors(rng, tensors)
            else:
                _change_keys(rng, keys)
        counts = [len(tensors), len(keys)]
        if rng.random() < 0.05:
            counts[rng.randrange(2)] = rng.choice(INTEGERS) % 2**64
        version = 3 if rng.random() < 0.97 else rng.choice((0, 1, 2, 4, 1 << 24))
        data = _COUNTS.pack(b"GGUF", version, *counts) + b"".join(keys) + b"".join(tensors)
        if rng.random() < 0.3:
            data = changed_bytes(rng, data)
        if rng.random() < 0.1:
            hole = rng.choice((0, 1, hole - 1, hole // 2))
        return Input(f"{hole}.hole", data)

    def check(self, given: Input) -> None:
        hole = given.kind.partition(".")[0] if given.kind.endswith(".hole") else "0"
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, given.data, 0)
        os.ftruncate(self._fd, min(len(given.data) + int(hole), _MOST_HOLE))
        header = read_header(self._path)
        failure: InferError | None = None
        shape = ModelShape(header)
        for owner, name in [*((header, n) for n in _OF_HEADER), *((shape, n) for n in _OF_SHAPE)]:
            try:
                getattr(owner, name)
            except InferError as error:
                failure = failure or error
        for key in header.arrays:
            header.array(key)
        if failure is not None:
            raise failure


def parts_of(data: bytes) -> Parts:
    """A sound header in pieces. Reads with `struct` alone."""
    _, _, n_tensors, n_keys = _COUNTS.unpack_from(data)
    at = _COUNTS.size
    keys, tensors = [], []
    for _ in range(n_keys):
        start = at
        at = _after_text(data, at)
        kind = int.from_bytes(data[at : at + 4], "little")
        at = _after_value(data, at + 4, kind)
        keys.append(data[start:at])
    hole = 0
    for _ in range(n_tensors):
        start = at
        at = _after_text(data, at)
        n_dims = int.from_bytes(data[at : at + 4], "little")
        shape = struct.unpack_from(f"<{n_dims}Q", data, at + 4)
        at += 4 + 8 * n_dims
        type_id, offset = struct.unpack_from("<IQ", data, at)
        at += 12
        n_elements = 1
        for n in shape:
            n_elements *= n
        hole = offset + n_elements // GGML_TYPES[type_id].block * GGML_TYPES[type_id].size + 64
        tensors.append(data[start:at])
    return Parts(tuple(keys), tuple(tensors), hole)


def _after_text(data: bytes, at: int) -> int:
    return at + 8 + int.from_bytes(data[at : at + 8], "little")


def _after_value(data: bytes, at: int, kind: int) -> int:
    if kind == _STRING:
        return _after_text(data, at)
    if kind != _ARRAY:
        return at + _SIZES[kind]
    inner, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner != _STRING:
        return at + _SIZES[inner] * int(count)
    for _ in range(count):
        at = _after_text(data, at)
    return at


def _text(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def _change_keys(rng: random.Random, keys: list[bytes]) -> None:
    at = rng.randrange(len(keys)) if keys else 0
    choice = rng.random()
    if choice < 0.6 and keys:
        end = _after_text(keys[at], 0)
        keys[at] = keys[at][:end] + _any_value(rng)
    elif choice < 0.8:
        keys.insert(at, _text(rng.choice(_NAMES).encode()) + _any_value(rng))
    elif choice < 0.9 and keys:
        del keys[at]
    elif keys:
        keys.insert(rng.randrange(len(keys) + 1), keys[at])


def _any_value(rng: random.Random) -> bytes:
    kind = rng.choice((0, 1, 2, 3, 4, 4, 4, 5, 6, 6, 7, 8, 8, 8, 9, 9, 10, 11, 12, 13, 99))
    if kind != _ARRAY:
        return struct.pack("<I", kind) + _any_scalar(rng, kind)
    inner = rng.choice((0, 4, 5, 6, 7, 8, 8, 9, 12, 77))
    count = rng.choice((0, 1, 2, 3, 30))
    said = count if rng.random() < 0.8 else rng.choice(INTEGERS) % 2**64
    return struct.pack("<IIQ", kind, inner, said) + b"".join(_any_scalar(rng, inner) for _ in range(count))


def _any_scalar(rng: random.Random, kind: int) -> bytes:
    if kind == _STRING:
        text = rng.choice(_TEXTS)
        return _text(text) if rng.random() < 0.95 else struct.pack("<Q", rng.choice(INTEGERS) % 2**64) + text
    if kind == 6:
        return struct.pack("<f", rng.choice(_FLOATS))
    if kind == 12:
        return struct.pack("<d", rng.choice(_FLOATS))
    size = _SIZES.get(kind, 4)
    value: int = rng.choice(INTEGERS) % 2 ** (8 * size)
    return value.to_bytes(size, "little")


def _change_tensors(rng: random.Random, tensors: list[bytes]) -> None:
    at = rng.randrange(len(tensors))
    tensor = tensors[at]
    choice = rng.randrange(6)
    if choice == 0:
        del tensors[at]
    elif choice == 1:
        tensors.insert(rng.randrange(len(tensors) + 1), tensor)
    elif choice == 2:
        tensors[at] = tensor[:-8] + struct.pack("<Q", rng.choice(INTEGERS) % 2**64)
    elif choice == 3:
        tensors[at] = tensor[:-12] + struct.pack("<I", rng.choice((*range(45), 255))) + tensor[-8:]
    else:
        name_end = _after_text(tensor, 0)
        shape = [rng.choice(INTEGERS) % 2**64 for _ in range(rng.choice((0, 1, 1, 2, 3, 4, 5)))]
        tensors[at] = tensor[:name_end] + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + tensor[-12:]
