"""Damaged GGUF files: a whole one is taken apart, a few things are changed, and it is put together again.

Most changes keep the file well formed (offsets follow shapes and types, the data is there), so that they get
past a reader's first checks to whoever believes what the header says. The same seed gives the same file.
Parses with `struct` alone: nothing here depends on the reader that is tried.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _UINT64 = 4, 5, 6, 7, 8, 9, 10
_MOST_DATA = 256 * 2**20  # of one file; what a damaged shape asks for beyond that is not written

# ggml type id -> (elements of a block, its bytes); 4, 31 and 99 are unknown to it.
_TYPES = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18),
    4: (1, 4), 31: (1, 4), 99: (1, 4),
}  # fmt: skip

# What llama.cpp may read of any architecture (`%s.` is its name), beside what a file has already.
_KEYS = (
    "general.alignment", "general.file_type", "general.sampling.temp", "general.sampling.top_k",
    "general.type", "split.count", "split.no", "split.tensors.count", "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.mask_token_id", "tokenizer.ggml.model",
    "tokenizer.ggml.pre", "tokenizer.ggml.precompiled_charsmap",
    "tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.scores",
    "tokenizer.ggml.suppress_tokens", "tokenizer.ggml.token_type_count",
    "tokenizer.ggml.unknown_token_id", "%s.attention.causal", "%s.attention.clamp_kqv",
    "%s.attention.head_count", "%s.attention.head_count_kv", "%s.attention.key_length",
    "%s.attention.key_length_swa", "%s.attention.layer_norm_epsilon",
    "%s.attention.layer_norm_rms_epsilon", "%s.attention.group_norm_epsilon",
    "%s.attention.max_alibi_bias", "%s.attention.scale", "%s.attention.sliding_window",
    "%s.attention.sliding_window_pattern", "%s.attention.shared_kv_layers",
    "%s.attention.temperature_length", "%s.attention.temperature_scale", "%s.attention.value_length",
    "%s.attention.value_length_swa", "%s.attn_logit_softcapping", "%s.classifier.output_labels",
    "%s.embedding_length_out", "%s.embedding_scale", "%s.expert_count", "%s.expert_feed_forward_length",
    "%s.expert_gating_func", "%s.expert_group_count", "%s.expert_group_used_count",
    "%s.expert_shared_count", "%s.expert_shared_feed_forward_length", "%s.expert_used_count",
    "%s.expert_weights_norm", "%s.expert_weights_scale", "%s.final_logit_softcapping", "%s.logit_scale",
    "%s.nextn_predict_layers", "%s.pooling_type", "%s.residual_scale", "%s.rope.dimension_count",
    "%s.rope.dimension_count_swa", "%s.rope.dimension_sections", "%s.rope.freq_base",
    "%s.rope.freq_base_swa", "%s.rope.scale_linear", "%s.rope.scaling.alpha",
    "%s.rope.scaling.attn_factor", "%s.rope.scaling.factor", "%s.rope.scaling.finetuned",
    "%s.rope.scaling.original_context_length", "%s.rope.scaling.type", "%s.rope.scaling.yarn_beta_fast",
    "%s.rope.scaling.yarn_beta_slow", "%s.rope.scaling.yarn_ext_factor",
    "%s.rope.scaling.yarn_log_multiplier", "%s.swiglu_clamp_exp", "%s.use_parallel_residual",
    "%s.vocab_size",
)  # fmt: skip

# Some that take a llama's tensors, and some whose graphs assert more than they check.
_ARCHITECTURES = (
    "llama", "deci", "refact", "qwen2", "minicpm", "gemma", "exaone", "ernie4_5", "smollm3", "mistral3",
    "nanbeige", "paddleocr", "smallthinker", "qwen2vl", "qwen3", "qwen3moe", "qwen3next", "qwen35",
    "mamba2", "rwkv7", "gpt2", "gptneox", "falcon", "phi3", "bert", "t5", "gemma2", "gemma3", "gemma3n",
    "olmo2", "cohere2", "deepseek2", "lfm2", "jamba", "granitehybrid", "nemotron_h", "hunyuan_vl",
    "glm4", "grok", "clip", "llada", "plamo2",
)  # fmt: skip

_INTEGERS = (
    0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 64, 100, 127, 128, 129, 255, 256, 511, 512, 513, 1024, 1025, 2**15,
    2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1, -1, -2, -(2**31),
)  # fmt: skip
_FLOATS = (
    0.0, -0.0, 1.0, -1.0, 1e-45, -1e-6, 1e-6, 0.5, 2.0, 1e4, 1e6, 1e30, -1e30, 3e38, math.inf, -math.inf,
    math.nan,
)  # fmt: skip
_STRINGS = (
    "", "none", "no_vocab", "linear", "yarn", "longrope", "gpt2", "llama", "bert", "t5", "rwkv", "plamo2",
    "test", "gemma4", "hybriddna", "whitespace", "default", "gpt-2", "llama-bpe", "qwen2", "smollm",
    "kimi-k2", "phi-3", "gemma3", "gemma2", "qwen3", "phi3", "mamba", "gptneox", "clip", "\x1b[2J", "a\nb",
    "\0", "é" * 50, "x" * 300, "{{", "{% for a in [1] %}{{ a }}{% endfor %}",
)  # fmt: skip
_TOKENS = (
    b"",
    b"a",
    b"\n",
    b"</s>",
    b"<0x0A>",
    b"<0xZZ>",
    b"<0x",
    b"\xff\xfe",
    b"\xc4\xa0",
    b"x" * 5000,
    b"<|im_end|>",
)
_NAMES = (
    "", "a", "output.weight", "output_norm.weight", "token_embd.weight", "rope_freqs.weight",
    "blk.0.attn_q.bias", "blk.0.attn_norm.weight", "blk.0.ffn_gate_inp.weight",
    "blk.0.ffn_gate_exps.weight", "blk.1.attn_k.weight", "blk.0.attn_q.scale", "blk.99.attn_q.weight",
    "blk.0.ffn_up.bias", "blk.-1.x", "cls.weight", "\x1b[2J", "n" * 64,
)  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A metadata value. `element` is the type of an array's elements; a string is bytes."""

    type: int
    value: Any
    element: int | None = None
    count: int | None = None  # what the file says of an array's length, where that is a lie


@dataclass(frozen=True)
class Tensor:
    name: bytes
    shape: tuple[int, ...]
    type: int
    offset: int
    data: bytes = b""  # zeros beyond it

    @property
    def n_bytes(self) -> int:
        block, size = _TYPES.get(self.type, (1, 4))
        return math.prod(self.shape) // block * size


@dataclass
class Parts:
    """A GGUF file in pieces that can be changed."""

    entries: list[tuple[bytes, Value]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    alignment: int = 32
    version: int = 3
    n_entries: int | None = None  # what the file says, where that is a lie
    n_tensors: int | None = None

    @property
    def architecture(self) -> str:
        for key, value in self.entries:
            if key == b"general.architecture" and isinstance(value.value, bytes):
                return value.value.decode("utf-8", "replace")
        return "llama"

    def find(self, key: str) -> int | None:
        """Where a key is in `entries`."""
        return next((i for i, (name, _) in enumerate(self.entries) if name == key.encode()), None)

    def put(self, key: str, value: Value) -> None:
        where = self.find(key)
        if where is None:
            self.entries.append((key.encode(), value))
        else:
            self.entries[where] = (key.encode(), value)


# --- apart and together ---------------------------------------------------------------------------


def read_parts(path: Path, most_data: int = 2**20) -> Parts:
    """Take a whole file apart; of each tensor the first `most_data` bytes are kept."""
    data = path.read_bytes()
    _, version, n_tensors, n_entries = struct.unpack_from("<4sIQQ", data, 0)
    at = 24

    def text() -> bytes:
        nonlocal at
        (length,) = struct.unpack_from("<Q", data, at)
        at += 8 + length
        return data[at - length : at]

    def scalar(kind: int) -> Any:
        nonlocal at
        if kind == _STRING:
            return text()
        (value,) = struct.unpack_from("<" + _SCALARS[kind], data, at)
        at += struct.calcsize("<" + _SCALARS[kind])
        return value

    parts = Parts(version=version)
    for _ in range(n_entries):
        key = text()
        kind = scalar(_UINT32)
        if kind != _ARRAY:
            parts.entries.append((key, Value(kind, scalar(kind))))
            continue
        element, count = scalar(_UINT32), scalar(_UINT64)
        if element == _STRING:
            items = [text() for _ in range(count)]
        else:
            items = list(struct.unpack_from(f"<{count}{_SCALARS[element]}", data, at))
            at += count * struct.calcsize("<" + _SCALARS[element])
        parts.entries.append((key, Value(_ARRAY, items, element)))
    infos = []
    for _ in range(n_tensors):
        name = text()
        shape = tuple(scalar(_UINT64) for _ in range(scalar(_UINT32)))
        infos.append(Tensor(name, shape, scalar(_UINT32), scalar(_UINT64)))
    start = _padded(at, parts.alignment)
    for tensor in infos:
        first = start + tensor.offset
        parts.tensors.append(replace(tensor, data=data[first : first + min(tensor.n_bytes, most_data)]))
    return parts


def write_parts(parts: Parts, path: Path) -> None:
    """Put a file together; what of its data is zeros takes no room on the disk."""
    head = bytearray(
        struct.pack(
            "<4sIQQ",
            b"GGUF",
            parts.version,
            len(parts.tensors) if parts.n_tensors is None else parts.n_tensors,
            len(parts.entries) if parts.n_entries is None else parts.n_entries,
        )
    )
    for key, value in parts.entries:
        head += _text(key) + struct.pack("<I", value.type) + _packed(value)
    for tensor in parts.tensors:
        dims = [dim % 2**64 for dim in tensor.shape]
        head += _text(tensor.name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        head += struct.pack("<IQ", tensor.type, tensor.offset % 2**64)
    start = _padded(len(head), parts.alignment)
    with path.open("wb") as file:
        file.write(head)
        end = start
        for tensor in parts.tensors:
            if 0 <= tensor.offset < _MOST_DATA:
                file.seek(start + tensor.offset)
                file.write(tensor.data[: tensor.n_bytes])
                end = max(
                    end, start + tensor.offset + min(_padded(tensor.n_bytes, parts.alignment), _MOST_DATA)
                )
        file.truncate(end)


def lay_out(parts: Parts) -> None:
    """Give every tensor the offset that its place asks for."""
    offset = 0
    for i, tensor in enumerate(parts.tensors):
        parts.tensors[i] = replace(tensor, offset=offset)
        offset += _padded(tensor.n_bytes, parts.alignment)


def shrunk(parts: Parts, n_embd: int = 64, n_ff: int = 64, n_layer: int = 2) -> Parts:
    """A real file's metadata and vocabulary over few and small tensors of zeros (llama and gemma3)."""
    arch, n_head, head = parts.architecture, 2, 32
    sizes = {
        "block_count": n_layer, "embedding_length": n_embd, "feed_forward_length": n_ff,
        "attention.head_count": n_head, "attention.head_count_kv": 1, "attention.key_length": head,
        "attention.value_length": head, "rope.dimension_count": head,
    }  # fmt: skip
    small = Parts(list(parts.entries), [], parts.alignment, parts.version)
    for name, size in sizes.items():
        if small.find(f"{arch}.{name}") is not None or name in ("block_count", "embedding_length"):
            small.put(f"{arch}.{name}", Value(_UINT32, size))
    tokens = small.find("tokenizer.ggml.tokens")
    n_vocab = len(small.entries[tokens][1].value) if tokens is not None else 0
    by_role = {
        "token_embd": (n_embd, n_vocab), "output": (n_embd, n_vocab), "attn_q": (n_embd, n_head * head),
        "attn_k": (n_embd, head), "attn_v": (n_embd, head), "attn_output": (n_head * head, n_embd),
        "ffn_gate": (n_embd, n_ff), "ffn_up": (n_embd, n_ff), "ffn_down": (n_ff, n_embd),
        "attn_q_norm": (head,), "attn_k_norm": (head,),
    }  # fmt: skip
    for tensor in parts.tensors:
        names = tensor.name.decode().split(".")
        if names[0] == "blk" and int(names[1]) >= n_layer:
            continue
        shape = by_role.get(names[-2], (n_embd,))
        kind = 0 if len(shape) == 1 else 2  # F32, Q4_0
        small.tensors.append(Tensor(tensor.name, shape, kind, 0))
    lay_out(small)
    return small


def with_experts(parts: Parts, n: int = 4) -> Parts:
    """A llama of several experts a layer."""
    arch = parts.architecture
    mixed = Parts(list(parts.entries), [], parts.alignment, parts.version)
    mixed.put(f"{arch}.expert_count", Value(_UINT32, n))
    mixed.put(f"{arch}.expert_used_count", Value(_UINT32, 2))
    for tensor in parts.tensors:
        if b".ffn_norm." not in tensor.name and b".ffn_" in tensor.name:
            name = tensor.name.replace(b".weight", b"_exps.weight")
            tensor = replace(tensor, name=name, shape=(*tensor.shape, n), data=tensor.data * n)
        mixed.tensors.append(tensor)
        if b".ffn_norm." in tensor.name:
            name = tensor.name.replace(b"norm", b"gate_inp")
            mixed.tensors.append(Tensor(name, (tensor.shape[0], n), 0, 0, tensor.data * n))
    lay_out(mixed)
    return mixed


def with_byte_tokens(parts: Parts) -> Parts:
    """The vocabulary of SentencePiece's kind: byte tokens, scores, white space as U+2581."""
    other = Parts(list(parts.entries), list(parts.tensors), parts.alignment, parts.version)
    where = parts.find("tokenizer.ggml.tokens")
    assert where is not None
    old = parts.entries[where][1].value
    tokens = [*old[:3], *(b"<0x%02X>" % byte for byte in range(256)), *old[259:]]
    tokens = [token.replace(b"\xc4\xa0", b"\xe2\x96\x81") for token in tokens]
    other.put("tokenizer.ggml.model", Value(_STRING, b"llama"))
    other.put("tokenizer.ggml.tokens", Value(_ARRAY, tokens, _STRING))
    other.put("tokenizer.ggml.scores", Value(_ARRAY, [-float(i) for i in range(len(tokens))], _FLOAT32))
    types = [3] * 3 + [6] * 256 + [1] * (len(tokens) - 259)
    other.put("tokenizer.ggml.token_type", Value(_ARRAY, types, _INT32))
    return other


def of_architecture(parts: Parts, arch: str) -> Parts:
    """The same file under the name of another architecture, with keys to match."""
    old = parts.architecture.encode() + b"."
    entries = [
        (arch.encode() + b"." + key[len(old) :] if key.startswith(old) else key, value)
        for key, value in parts.entries
    ]
    other = Parts(entries, list(parts.tensors), parts.alignment, parts.version)
    other.put("general.architecture", Value(_STRING, arch.encode()))
    return other


def _padded(n: int, alignment: int) -> int:
    return -(-n // alignment) * alignment


def _text(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def _packed(value: Value) -> bytes:
    if value.type != _ARRAY:
        return _scalar(value.type, value.value)
    element = value.element or 0
    head = struct.pack("<IQ", element, len(value.value) if value.count is None else value.count)
    if element in (_STRING, _ARRAY):
        return head + b"".join(_text(item) if isinstance(item, bytes) else b"" for item in value.value)
    code = _SCALARS.get(element)
    if code is None:
        return head
    try:
        return bytes(head + struct.pack(f"<{len(value.value)}{code}", *value.value))
    except (struct.error, OverflowError, TypeError):
        return head + b"".join(_scalar(element, item) for item in value.value)


def _scalar(kind: int, value: Any) -> bytes:
    """Any value as any type: what does not fit is cut to fit."""
    if kind == _STRING:
        return _text(value if isinstance(value, bytes) else str(value).encode())
    code = _SCALARS.get(kind)
    if code is None:
        return b"\0\0\0\0"
    if isinstance(value, (bytes, list)):
        value = len(value)
    if code in "fd":
        try:
            return struct.pack("<" + code, float(value))
        except OverflowError:
            return struct.pack("<" + code, math.inf)
    if code == "?":
        return struct.pack("<?", bool(value))
    whole = int(value) if not isinstance(value, float) or math.isfinite(value) else 0
    size = struct.calcsize("<" + code)
    cut: int = whole % 2 ** (8 * size)
    return cut.to_bytes(size, "little")


# --- changes --------------------------------------------------------------------------------------

Change = Callable[[Parts, random.Random], None]


def mutated(base: Parts, seed: str) -> Parts:
    """A changed copy of `base`; the same for the same seed."""
    rng = random.Random(seed)
    parts = Parts(list(base.entries), list(base.tensors), base.alignment, base.version)
    for change in rng.choices(
        list(CHANGES), weights=list(CHANGES.values()), k=rng.choice((1, 1, 1, 2, 2, 3, 5))
    ):
        change(parts, rng)
    if rng.random() < 0.9:
        lay_out(parts)
    return parts


def _entry(parts: Parts, rng: random.Random, *, arrays: bool | None = None) -> int | None:
    """One that is an array, or is none, or either."""
    found = [i for i, (_, v) in enumerate(parts.entries) if arrays is None or (v.type == _ARRAY) == arrays]
    return rng.choice(found) if found else None


def _interesting(rng: random.Random, old: Value) -> Any:
    if old.type in (_FLOAT32, 12):
        number = old.value if isinstance(old.value, float) else 0.0
        return rng.choice((*_FLOATS, number * 10, -number, number / 1e6))
    if old.type == _BOOL:
        return not old.value
    if old.type == _STRING:
        return rng.choice(_STRINGS).encode()
    number = old.value if isinstance(old.value, int) else 0
    return rng.choice((*_INTEGERS, number + 1, number - 1, number * 2, number // 2, number * 3))


def change_value(parts: Parts, rng: random.Random) -> None:
    i = _entry(parts, rng, arrays=False)
    if i is not None:
        key, value = parts.entries[i]
        parts.entries[i] = (key, replace(value, value=_interesting(rng, value)))


def change_type(parts: Parts, rng: random.Random) -> None:
    i = _entry(parts, rng)
    if i is None:
        return
    key, value = parts.entries[i]
    kind = rng.choice((*_SCALARS, _STRING, _ARRAY, 13, 77))
    if kind == _ARRAY and value.type != _ARRAY:
        parts.entries[i] = (key, Value(_ARRAY, [value.value] * rng.choice((0, 1, 2, 4)), value.type))
    elif kind == _ARRAY:
        parts.entries[i] = (key, replace(value, element=rng.choice((*_SCALARS, _STRING, _ARRAY))))
    else:
        parts.entries[i] = (key, Value(kind, value.value))


def add_known_key(parts: Parts, rng: random.Random) -> None:
    """A key that llama.cpp reads, of a likely type, with some value."""
    key = rng.choice(_KEYS).replace("%s", parts.architecture)
    kind = rng.choice((_UINT32, _UINT32, _UINT32, _FLOAT32, _FLOAT32, _BOOL, _STRING, _INT32))
    value = _interesting(rng, Value(kind, 1))
    if rng.random() < 0.15:
        n = rng.choice((0, 1, 2, 3, 4, 30, 512, 513))
        parts.put(key, Value(_ARRAY, [value] * n, kind))
    else:
        parts.put(key, Value(kind, value))


def remove_key(parts: Parts, rng: random.Random) -> None:
    i = _entry(parts, rng)
    if i is not None:
        del parts.entries[i]


def repeat_or_rename_key(parts: Parts, rng: random.Random) -> None:
    i = _entry(parts, rng)
    if i is None:
        return
    key, value = parts.entries[i]
    which = rng.randrange(3)
    if which == 0:
        parts.entries.append((key, value))
    elif which == 1:
        parts.entries[i] = (rng.choice((b"", key + b"x", key[:-1], b"\xff" * 4, b"k" * 70000)), value)
    else:
        j = rng.randrange(len(parts.entries))
        parts.entries[i], parts.entries[j] = (key, parts.entries[j][1]), (parts.entries[j][0], value)


def change_array(parts: Parts, rng: random.Random) -> None:
    i = _entry(parts, rng, arrays=True)
    if i is None:
        return
    key, value = parts.entries[i]
    items = list(value.value)
    where = rng.randrange(len(items)) if items else 0
    which = rng.randrange(7)
    if which == 0:
        items = items[: rng.choice((0, 1, len(items) // 2, max(0, len(items) - 1)))]
    elif which == 1:
        items += items[where : where + rng.choice((1, 3, 1000))]
    elif which == 2 and items:
        items[where] = items[rng.randrange(len(items))]
    elif which == 3 and items:
        old = Value(value.element or 0, items[where])
        items[where] = rng.choice(_TOKENS) if value.element == _STRING else _interesting(rng, old)
    elif which == 4 and items:
        del items[where]
    elif which == 5:
        rng.shuffle(items)
    else:
        count = rng.choice((0, len(items) + 1, 2**31, 2**40, 2**63, 2**64 - 1))
        parts.entries[i] = (key, replace(value, count=count))
        return
    parts.entries[i] = (key, replace(value, value=items))


def change_vocabulary(parts: Parts, rng: random.Random) -> None:
    """Another kind of vocabulary over the same tokens, byte tokens gone, or token types mixed up."""
    which = rng.randrange(4)
    tokens, types = parts.find("tokenizer.ggml.tokens"), parts.find("tokenizer.ggml.token_type")
    if which == 0 or tokens is None or types is None:
        kind = rng.choice(
            ("none", "no_vocab", "gpt2", "llama", "bert", "t5", "rwkv", "plamo2", "test", "gemma4")
        )
        parts.put("tokenizer.ggml.model", Value(_STRING, kind.encode()))
        return
    key, value = parts.entries[types if which != 1 else tokens]
    items = list(value.value) if isinstance(value.value, list) else []
    if not items:
        return
    if which == 1:
        for i, token in enumerate(items):
            if isinstance(token, bytes) and len(token) <= 6 and rng.random() < 0.5:
                items[i] = b"[gone %d]" % i
        parts.entries[tokens] = (key, replace(value, value=items))
        return
    for _ in range(rng.choice((1, 5, len(items)))):
        items[rng.randrange(len(items))] = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, -1, 2**31 - 1))
    parts.entries[types] = (key, replace(value, value=items))


def change_architecture(parts: Parts, rng: random.Random) -> None:
    renamed = of_architecture(parts, rng.choice(_ARCHITECTURES))
    parts.entries = renamed.entries


def change_tensor(parts: Parts, rng: random.Random) -> None:
    if not parts.tensors:
        return
    i = rng.randrange(len(parts.tensors))
    tensor = parts.tensors[i]
    shape = list(tensor.shape)
    which = rng.randrange(6)
    if which == 0 and shape:
        at = rng.randrange(len(shape))
        shape[at] = rng.choice(
            (0, 1, shape[at] + 1, shape[at] * 2, shape[at] // 2, 32, 256, 2**31, 2**62, 2**63)
        )
    elif which == 1:
        shape.reverse()
    elif which == 2:
        shape = rng.choice((shape[:1], [*shape, 1], [*shape, 2], [], [*shape, 1, 1, 1, 1]))
    elif which in (3, 4):
        tensor = replace(tensor, type=rng.choice(list(_TYPES)), data=b"")
    else:
        tensor = replace(tensor, offset=rng.choice((0, 1, 32, tensor.offset + 32, 2**40, 2**63)))
    parts.tensors[i] = replace(tensor, shape=tuple(shape))


def change_types_of_many(parts: Parts, rng: random.Random) -> None:
    """All tensors of one role, or all, get another type."""
    kind = rng.choice(list(_TYPES))
    roles = sorted({tensor.name.split(b".")[-2] for tensor in parts.tensors if tensor.name.count(b".")})
    role = rng.choice(roles) if roles and rng.random() < 0.8 else b""
    for i, tensor in enumerate(parts.tensors):
        if role in tensor.name:
            parts.tensors[i] = replace(tensor, type=kind, data=b"")


def change_tensor_list(parts: Parts, rng: random.Random) -> None:
    if not parts.tensors:
        return
    i = rng.randrange(len(parts.tensors))
    which = rng.randrange(6)
    if which == 0:
        del parts.tensors[i]
    elif which == 1:
        parts.tensors.append(parts.tensors[i])
    elif which == 2:
        parts.tensors[i] = replace(parts.tensors[i], name=rng.choice(_NAMES).encode())
    elif which == 3:
        parts.tensors.append(replace(parts.tensors[i], name=rng.choice(_NAMES).encode()))
    elif which == 4:
        rng.shuffle(parts.tensors)
    else:
        j = rng.randrange(len(parts.tensors))
        a, b = parts.tensors[i], parts.tensors[j]
        parts.tensors[i], parts.tensors[j] = replace(a, name=b.name), replace(b, name=a.name)


def change_weights(parts: Parts, rng: random.Random) -> None:
    if not parts.tensors:
        return
    i = rng.randrange(len(parts.tensors))
    tensor = parts.tensors[i]
    n = min(tensor.n_bytes, 2**16)
    filling = rng.choice((b"\xff", b"\0", b"\x7f\xc0", b"\0\x7c", b"\0\0\xc0\x7f"))
    data = rng.randbytes(n) if rng.random() < 0.5 else (filling * n)[:n]
    parts.tensors[i] = replace(tensor, data=data)


def change_counts(parts: Parts, rng: random.Random) -> None:
    which = rng.randrange(4)
    some = (0, 1, 2**16, 2**31, 2**40, 2**63, 2**64 - 1)
    if which == 0:
        parts.n_entries = rng.choice((*some, len(parts.entries) + 1, max(0, len(parts.entries) - 1)))
    elif which == 1:
        parts.n_tensors = rng.choice((*some, len(parts.tensors) + 1, max(0, len(parts.tensors) - 1)))
    elif which == 2:
        parts.version = rng.choice((0, 1, 2, 4, 2**31, 3 << 24))
    else:
        alignment = rng.choice((0, 1, 2, 3, 8, 16, 31, 64, 4096, 2**20, 2**31, 2**32 - 1))
        parts.put("general.alignment", Value(rng.choice((_UINT32, _UINT32, _INT32, _UINT64)), alignment))
        if alignment:
            parts.alignment = min(alignment, 2**20)


CHANGES: dict[Change, int] = {
    change_value: 6,
    add_known_key: 8,
    change_type: 2,
    remove_key: 1,
    repeat_or_rename_key: 1,
    change_array: 3,
    change_vocabulary: 3,
    change_architecture: 2,
    change_tensor: 3,
    change_types_of_many: 3,
    change_tensor_list: 2,
    change_weights: 1,
    change_counts: 1,
}
