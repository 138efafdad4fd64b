"""What llama.cpp would end the process for, found in a header before llama.cpp sees the file.

llama.cpp refuses much by itself, and its reason is shown then. But where it asserts, divides or looks up what
is not there, the process ends. Each rule here stands for such a place in the version that infer is pinned to
(`load_hparams` of llama-model.cpp, llama-vocab.cpp, the graphs of src/models/, ggml's CPU kernels). A file
that llama.cpp can use passes.

Reads headers and vocabularies, no weights.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from infer_cli.models.gguf.header import Header
from infer_cli.models.gguf.shape import ModelShape
from infer_cli.models.hashes import identity_of
from infer_cli.system.files import write_atomic
from infer_cli.system.hashing import sha256_hex
from infer_cli.system.paths import cache_dir

_TYPES, _BYTE = "tokenizer.ggml.token_type", 6
_LONGEST_PLAMO2 = 256  # bytes: its table takes time with the cube of a token's length
_CHARSMAP = "tokenizer.ggml.precompiled_charsmap"
_UNKNOWN = {"bert": 100, "t5": 2}  # kinds that write it where there is no other token: its id unless given
_VERSION = 1  # of the vocabulary's rules: what passed older ones is looked at again

_MOST_TOKENS = 2**21  # ours: the largest vocabularies have an eighth of it
_MOST_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_EPSILONS = ("layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon")

# Architectures that llama.cpp knows and that don't write text from left to right: embeddings, encoders,
# diffusion, speech, draft heads, parts of others.
_NO_TEXT = frozenset(
    {
        "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2",
        "jina-bert-v3", "eurobert", "gemma-embedding", "llama-embed", "t5", "t5encoder", "dream",
        "llada", "llada-moe", "rnd1", "wavtokenizer-dec", "eagle3", "dflash", "clip",
    }
)  # fmt: skip

# Graphs that assert that keys and values are equally long, and of these and others, that all of a head turns.
_EQUAL_HEADS = frozenset(
    {
        "afmoe", "apertus", "arcee", "arctic", "baichuan", "bailingmoe2", "bitnet", "bloom",
        "chameleon", "chatglm", "codeshell", "cogvlm", "cohere2", "cohere2moe", "command-r", "dbrx",
        "deci", "deepseek", "dots1", "ernie4_5", "ernie4_5-moe", "exaone", "falcon", "glm4", "glm4moe",
        "gpt2", "gptneox", "granite", "granite_swa", "granitehybrid", "graniteswitch", "grok",
        "grovemoe", "hunyuan-moe", "hunyuan_vl", "hy_v3", "internlm2", "jais", "jais2", "laguna",
        "llama", "llama4", "maincoder", "mellum", "minimax-01", "minimax-m2", "minimax-m3", "mistral3",
        "mpt", "muse-glimmer", "nanbeige", "nemotron", "nemotron_h", "olmo", "olmo2", "olmoe",
        "openelm", "orion", "paddleocr", "pangu-embedded", "phi2", "phi3", "plamo", "qwen", "qwen2",
        "qwen2moe", "qwen2vl", "qwen3", "qwen35", "qwen35moe", "qwen3moe", "qwen3vl", "qwen3vlmoe",
        "qwen4exp", "refact", "seed_oss", "smallthinker", "smollm3", "spark2_5", "stablelm",
        "starcoder", "starcoder2", "xverse",
    }
)  # fmt: skip
_WHOLE_HEAD_TURNS = frozenset(
    {
        "apertus", "arcee", "arctic", "baichuan", "chameleon", "codeshell", "cogvlm", "cohere2moe",
        "dbrx", "deci", "deepseek", "dots1", "ernie4_5", "ernie4_5-moe", "exaone", "exaone-moe",
        "exaone4", "falcon", "granite", "granite_swa", "graniteswitch", "grok", "grovemoe",
        "hunyuan-moe", "hunyuan_vl", "hy_v3", "internlm2", "jais2", "llama", "llama4", "maincoder",
        "mellum", "mistral3", "olmo", "olmo2", "olmoe", "orion", "paddleocr", "pangu-embedded", "plamo",
        "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3vl", "qwen3vlmoe", "seed_oss",
        "smallthinker", "smollm3", "starcoder2", "talkie", "xverse",
    }
)  # fmt: skip

# What reads a pattern of layers with a sliding window, and asserts that there is one.
_WINDOWED = frozenset(
    {
        "afmoe", "cohere2", "cohere2moe", "dots3note", "exaone-moe", "exaone4", "gemma2", "gemma3", "gemma3n",
        "gemma4", "gemma4-assistant", "gpt-oss", "granite_swa", "laguna", "llama4", "maple", "mellum",
        "mimo2", "muse-glimmer", "olmo2", "plamo3", "smallthinker", "spark2_5", "step35",
    }
)  # fmt: skip

# No rotary embedding at all (LLAMA_ROPE_TYPE_NONE).
_NOTHING_TURNS = frozenset(
    {
        "gpt2", "gptj", "mpt", "refact", "bloom", "mamba", "mamba2", "jamba", "jais", "rwkv6",
        "rwkv6qwen2", "rwkv7", "arwkv7", "nemotron_h", "nemotron_h_moe", "kimi-linear", "kimi-k3",
        "glm5-next",
    }
)  # fmt: skip

# Positions in several dimensions: one of the first three has a section.
_IN_SECTIONS = frozenset(
    {"qwen2vl", "paddleocr", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen4exp", "qwen3tts"}
)

# Asserts that there are experts, and what divides by the number in use where it is not told their size.
_OF_EXPERTS = frozenset({"bailingmoe2", "glm4moe", "grovemoe", "lfm2moe", "smallthinker"})
_SHARED_OUT = frozenset(
    {
        "qwen2moe", "qwen3moe", "qwen3vlmoe", "qwen35moe", "qwen3next", "qwen4exp", "mellum", "grovemoe",
        "nemotron_h_moe",
    }
)  # fmt: skip

# What is divided by, or asserted to be above zero.
_DIVISORS: dict[str, frozenset[str]] = {
    "full_attention_interval": frozenset({"minimax-01", "qwen35", "qwen35moe", "qwen3next", "qwen4exp"}),
    "ssm.group_count": frozenset(
        {
            "falcon-h1", "granitehybrid", "mamba2", "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe",
            "qwen3next", "qwen4exp",
        }
    ),
    "wkv.head_size": frozenset({"rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"}),
    "attention.output_group_count": frozenset({"deepseek4"}),
    "attention.indexer.block_size": frozenset({"minimax-m3"}),
    "hrm.layers_per_stack": frozenset({"hrm_text"}),
    "hrm.h_cycles": frozenset({"hrm_text"}),
    "hrm.l_cycles": frozenset({"hrm_text"}),
    "num_loops": frozenset({"nanbeige"}),
    "experts_per_group": frozenset({"grovemoe"}),
    "interleave_moe_layer_step": frozenset({"ernie4_5-moe"}),
}  # fmt: skip
_TWICE_AS_WIDE = frozenset({"jamba", "granitehybrid"})  # their state, as the embedding
_PARTLY_TURNED = frozenset({"deepseek2", "mistral4", "hy_v4"})  # their heads: a part of each does not

# Types that ggml's CPU kernels have no matrix product for; the rest can also be looked up by row.
_NO_MATRIX = frozenset({"F64", "I8", "I16", "I32", "I64", "Q8_1", "Q8_K"})
_INDEX = "tid2eid"  # DeepSeek V4's tensors of expert numbers

_ALIGNED = 32  # bytes: TENSOR_ALIGNMENT of ggml, where tensors lie in memory as in the file

# Bytes that UTF-8 text can hold, but for NUL, which no prompt holds.
_TEXT_BYTES = [byte for byte in range(1, 0xF5) if byte not in (0xC0, 0xC1)]


def check_model(header: Header) -> None:
    """All that can be told before a load with weights. Raises ModelInvalid naming the key or tensor."""
    check_vocabulary(header)
    shape = ModelShape(header)
    arch = header.architecture
    if arch in _NO_TEXT:
        raise header.invalid(f"its 'general.architecture' is {arch!r}, which does not write text")
    if header.metadata.get(f"{arch}.attention.causal") is False:
        raise header.invalid(f"'{arch}.attention.causal' is false, so it does not write text")
    _check_layers(shape)
    for name, of in _DIVISORS.items():
        if arch in of and header.hyperparameter(name) == 0:
            raise header.invalid(f"'{arch}.{name}' is 0")
    d_inner = header.hyperparameter("ssm.inner_size")
    if arch in _TWICE_AS_WIDE and d_inner not in (None, 2 * shape.n_embd):
        raise header.invalid(f"'{arch}.ssm.inner_size' is {d_inner}, expected {2 * shape.n_embd}")
    _check_experts(shape)
    _check_attention(shape)
    if arch in _WINDOWED and shape.sliding_window is not None:
        _check_windows(shape)
    _check_rope(shape)
    for name in _EPSILONS:
        key = f"{arch}.attention.{name}"
        value = header.metadata.get(key)
        if isinstance(value, float) and not 0.0 <= value < math.inf:
            raise header.invalid(f"{key!r} is {value!r}, expected a number that is not negative")
    _check_tensors(header)


# --- hyperparameters ------------------------------------------------------------------------------


def _check_layers(shape: ModelShape) -> None:
    """Each of these raises by itself."""
    _ = shape.n_layer, shape.n_layer_nextn, shape.n_ctx_train, shape.n_embd, shape.n_ff_by_layer


def _check_experts(shape: ModelShape) -> None:
    header = shape.header
    arch = header.architecture
    n_expert = header.hyperparameter("expert_count") or 0
    n_used = max(shape.per_layer("expert_used_count") or (0,))
    n_groups = header.hyperparameter("expert_group_count") or 0
    n_groups_used = header.hyperparameter("expert_group_used_count") or 0
    if arch in ("hunyuan_vl", "hunyuan-dense") and n_expert <= 1:
        n_expert = n_used = 0

    def fail(name: str, value: int, expected: str) -> None:
        raise header.invalid(f"'{arch}.{name}' is {value}, expected {expected}")

    if n_expert > _MOST_EXPERTS:
        fail("expert_count", n_expert, f"at most {_MOST_EXPERTS}")
    if n_used > n_expert or (n_expert and not n_used):
        fail(
            "expert_used_count",
            n_used,
            f"1 to {n_expert} of {n_expert} experts" if n_expert else "no experts",
        )
    if arch in _OF_EXPERTS and not n_expert:
        fail("expert_count", 0, "experts")
    if arch in _SHARED_OUT and not n_used and not header.hyperparameter("expert_feed_forward_length"):
        fail("expert_used_count", 0, "experts")
    if n_groups and n_groups >= n_expert:
        fail("expert_group_count", n_groups, f"fewer groups than the {n_expert} experts")
    if n_groups > 1:
        if n_expert % n_groups:
            fail("expert_group_count", n_groups, f"a part of the {n_expert} experts")
        if not 0 < n_groups_used < n_groups:
            fail("expert_group_used_count", n_groups_used, f"1 to {n_groups - 1} of {n_groups} groups")


def _check_attention(shape: ModelShape) -> None:
    header = shape.header
    arch = header.architecture
    heads, heads_kv = shape.n_head_by_layer, shape.n_head_kv_by_layer
    if shape.is_recurrent and not max(heads):
        return
    if not shape.is_recurrent:
        if not heads[0]:
            raise header.invalid(f"'{arch}.attention.head_count' is 0")
        if not max(heads_kv):
            raise header.invalid(f"'{arch}.attention.head_count_kv' is 0")
    for n, n_kv in zip(heads, heads_kv, strict=True):
        if n_kv and n % n_kv:
            raise header.invalid(
                f"'{arch}.attention.head_count_kv' is {n_kv}, and {n} heads can't share that many"
            )
    if arch in _EQUAL_HEADS and shape.key_length != shape.value_length:
        raise header.invalid(
            f"'{arch}.attention.value_length' is {shape.value_length}, and keys have {shape.key_length}"
        )


def _check_windows(shape: ModelShape) -> None:
    header = shape.header
    key = f"{header.architecture}.attention.sliding_window_pattern"
    if key in header.arrays:
        has_window = any(header.array(key)[: shape.n_layer - shape.n_layer_nextn])
    else:
        has_window = header.metadata.get(key) != 1  # every first layer is a whole one
    if not has_window:
        raise header.invalid(f"{key!r} gives no layer the window of {shape.sliding_window}")


def _check_rope(shape: ModelShape) -> None:
    header = shape.header
    arch = header.architecture
    scaling = header.metadata.get(f"{arch}.rope.scaling.type")
    if isinstance(scaling, str) and scaling not in _ROPE_SCALINGS:
        raise header.invalid(
            f"'{arch}.rope.scaling.type' is {scaling!r:.60}, expected one of {', '.join(_ROPE_SCALINGS)}"
        )
    if not shape.n_head_by_layer[0] or arch in _NOTHING_TURNS:
        return
    if arch in _IN_SECTIONS:
        key = f"{arch}.rope.dimension_sections"
        sections = header.array(key) if key in header.arrays else [header.metadata.get(key)]
        if not any(isinstance(n, int) and n > 0 for n in sections[:3]):
            raise header.invalid(f"{key!r} has no section")
    if arch in _PARTLY_TURNED:
        whole = header.hyperparameter("attention.key_length_mla") or shape.key_length
        n_rot = header.hyperparameter("rope.dimension_count")
        if whole <= (whole if n_rot is None else n_rot):
            raise header.invalid(f"'{arch}.rope.dimension_count' is {n_rot}, and heads have {whole}")
    for suffix in ("", "_swa"):
        n_rot = header.hyperparameter(f"rope.dimension_count{suffix}")
        length = header.hyperparameter(f"attention.key_length{suffix}") or shape.key_length
        if n_rot is None:
            n_rot = length
        what = f"'{arch}.rope.dimension_count{suffix}' is {n_rot}"
        if n_rot % 2 or not n_rot:
            raise header.invalid(f"{what}, expected an even number above 0")
        if n_rot > length:
            raise header.invalid(f"{what}, and keys have {length}")
        if not suffix and arch in _WHOLE_HEAD_TURNS and n_rot != length:
            raise header.invalid(f"{what}, expected {length}, the length of a key")


# --- tensors --------------------------------------------------------------------------------------


def _check_tensors(header: Header) -> None:
    for tensor in header.tensors[:1]:
        if (header.data_offset + tensor.offset) % _ALIGNED or header.alignment % _ALIGNED:
            raise header.invalid(
                f"'general.alignment' is {header.alignment}, expected a multiple of {_ALIGNED}"
            )
    for tensor in header.tensors:
        what = f"tensor {tensor.name[:60]!r} has type {tensor.type}"
        if tensor.is_elementwise and tensor.type != "F32":
            raise header.invalid(f"{what}, expected F32")
        if tensor.type in _NO_MATRIX and _INDEX not in tensor.name:
            raise header.invalid(f"{what}, which can't be multiplied")


# --- the vocabulary -------------------------------------------------------------------------------


def check_vocabulary(header: Header) -> None:
    """What a load without weights can end the process with. Raises ModelInvalid naming the key.

    What passed is remembered by the file's identity: to look through all tokens takes longer than anything
    else here.
    """
    kind = header.metadata.get("tokenizer.ggml.model")
    if kind in ("none", "no_vocab"):
        raise header.invalid(f"'tokenizer.ggml.model' is {kind!r}: it has no vocabulary")
    tokens = header.arrays.get("tokenizer.ggml.tokens")
    if tokens is None or tokens.element != "string":
        raise header.invalid("its metadata lacks 'tokenizer.ggml.tokens'")
    if not 0 < tokens.count <= _MOST_TOKENS:
        raise header.invalid(
            f"'tokenizer.ggml.tokens' has {tokens.count} tokens, expected 1 to {_MOST_TOKENS}"
        )
    passed = _passed(header)
    if not os.path.exists(passed):
        _check_tokens(header, kind)
        with contextlib.suppress(OSError):  # as a cache that can't be written costs time, nothing else
            write_atomic(passed, [])


def _check_tokens(header: Header, kind: object) -> None:
    key = "tokenizer.ggml.tokens"
    texts: set[bytes] = set()
    for i, text in enumerate(_as_read(header.array(key))):
        if text in texts:
            raise header.invalid(f"{key!r} has {text[:40].decode('utf-8', 'replace')!r} twice (token {i})")
        texts.add(text)
    spellings = {"llama": _spm_spellings, "rwkv": _rwkv_spellings}.get(str(kind))
    if spellings is not None:
        for byte in _TEXT_BYTES:
            if texts.isdisjoint(spellings(byte)):
                raise header.invalid(f"{key!r} lacks a token for the byte 0x{byte:02X}")
    if kind in _UNKNOWN:
        unknown = header.metadata.get("tokenizer.ggml.unknown_token_id")
        ids = [unknown] if isinstance(unknown, int) and 0 <= unknown < len(texts) else [_UNKNOWN[str(kind)]]
        if ids[0] >= len(texts):
            raise header.invalid(f"'tokenizer.ggml.unknown_token_id' is {unknown}, which is no token")
    if kind == "bert" and _TYPES in header.arrays and _BYTE in header.array(_TYPES):
        raise header.invalid(f"{_TYPES!r} has byte tokens, and 'tokenizer.ggml.model' is {kind!r}")
    if kind == "plamo2" and len(max(texts, key=len)) > _LONGEST_PLAMO2:
        raise header.invalid(f"{key!r} has a token of more than {_LONGEST_PLAMO2} bytes")
    if kind == "t5" and _CHARSMAP in header.arrays:
        _check_charsmap(header)


def _spm_spellings(byte: int) -> tuple[bytes, ...]:
    """Of the token that stands for a byte which is part of no other (`byte_to_token`)."""
    return b"<0x%02X>" % byte, bytes([byte])


def _rwkv_spellings(byte: int) -> tuple[bytes, ...]:
    """As `llama_unescape_rwkv_token` reads them. Without such a token the tokenizer does not end."""
    named = {9: b"\\t", 10: b"\\n", 13: b"\\r"}.get(byte, b"\\" + bytes([byte]))
    return named, b"\\x%02x" % byte, bytes([byte])


def _check_charsmap(header: Header) -> None:
    """A compact double array and the texts that it points to: no text may lead out of either.

    Entries are 32 bits: a base in bits 10 to 30 (times 256 where bit 9 is set), bit 8 says that there is a
    text, bit 31 that the entry is the text's place.
    """
    info = header.arrays[_CHARSMAP]
    if info.element not in ("int8", "uint8"):
        return  # refused by llama.cpp
    data = bytes(value & 0xFF for value in header.array(_CHARSMAP))
    size = int.from_bytes(data[:4], "little") // 4
    if len(data) < 4 or 4 + 4 * size >= len(data):
        return  # refused by llama.cpp
    entries = struct.unpack_from(f"<{size}I", data, 4)
    n_texts = len(data) - 4 - int.from_bytes(data[:4], "little")
    for i, entry in enumerate(entries):
        if entry >> 31:
            continue
        first = (i if i else 0) ^ ((entry >> 10) << ((entry & 0x200) >> 6)) & 0xFFFFFFFF
        if first | 0xFF >= size or (entry & 0x100 and i and entries[first] & 0x7FFFFFFF >= n_texts):
            raise header.invalid(f"{_CHARSMAP!r} points out of itself (entry {i})")
    if not size or data[-1]:
        raise header.invalid(f"{_CHARSMAP!r} has no end")


def _as_read(tokens: list[bytes]) -> Iterator[bytes]:
    """As llama.cpp takes them: to the first NUL, and what is empty gets a name."""
    for i, token in enumerate(tokens):
        text = token.partition(b"\0")[0] if b"\0" in token else token
        yield text or b"[EMPTY_%d]" % i


def _passed(header: Header) -> Path:
    """Where it is noted that a file's vocabulary has passed."""
    identity = f"{_VERSION} {identity_of([header.path])}"
    return cache_dir() / "checked" / sha256_hex(identity.encode())[:40]
