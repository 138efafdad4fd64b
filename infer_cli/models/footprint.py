"""How much memory a model needs in a given configuration, and how much there is.

Arithmetic on a GGUF header and on what the operating system reports; never loads a model. All sizes are
bytes. `n_ctx_seq` is the window of one sequence; llama.cpp's own n_ctx is the total over all sequences.
"""

from __future__ import annotations

import re

from infer_cli.backend.ggml_types import TYPE_BY_NAME, GgmlType
from infer_cli.errors import OutOfMemory, UsageError
from infer_cli.models.gguf.header import Header
from infer_cli.models.gguf.shape import ModelShape
from infer_cli.settings.sizes import size_text

CTX_PAD = 256  # llama.cpp rounds a sequence's window up to this (llama-context.cpp)
GPU_MARGIN = 2**30  # left free on a device, as llama.cpp's `fit_params_target` (common.h)
_INPUT_TENSORS = ("token_embd", "per_layer_token_embd", "position_embd", "token_types")
_FLOAT = 4
_HALF = 2


def weights_bytes(header: Header) -> int:
    """All tensors of this file. A model in several files needs the sum over its files."""
    return sum(tensor.n_bytes for tensor in header.tensors)


def kv_bytes(shape: ModelShape, n_ctx_seq: int, n_seqs: int, type_k: str = "F16", type_v: str = "F16") -> int:
    """Memory of n_seqs sequences of n_ctx_seq tokens: keys, values, and states of recurrent layers.

    Sliding-window layers count in full (the engine asks for `swa_full`). With flash attention this is
    llama.cpp's "KV buffer size" (plus "RS buffer size") to the byte; indexer caches of sparse-attention
    architectures are not included. `type_k` and `type_v` are ggml type names.
    """
    return sum(_kv_by_layer(shape, n_ctx_seq, n_seqs, type_k, type_v))


def compute_bytes(
    shape: ModelShape, n_ctx_seq: int, n_ubatch: int, n_outputs: int, flash_attention: bool = True
) -> int:
    """Upper estimate of the activations of one evaluation of n_ubatch tokens with n_outputs rows of logits.

    llama.cpp reserves the peak of one graph whose tensors share memory. The formula adds up what the
    graph builders (llama-graph.cpp, src/models/llama.cpp) keep alive around one layer, the attention
    mask, the scores where flash attention is off, the logits, and the CPU's buffer for converted
    activations (ggml_graph_plan, not in llama.cpp's "compute buffer size"). It was checked against
    that log line for the llama architecture, where it is 1 to 2.4 times the logged number.
    """
    n_embd = shape.n_embd
    heads, heads_kv = shape.n_head, shape.n_head_kv
    q = heads * shape.key_length
    attention = 2 * q + heads * shape.value_length + 2 * heads_kv * (shape.key_length + shape.value_length)
    ffn = _ffn_width(shape)
    recurrent = 6 * (shape.header.hyperparameter("ssm.inner_size") or 0)
    per_token = 4 * n_embd + max(attention, 3 * ffn, recurrent) + max(n_embd, q, ffn)
    window = _padded(n_ctx_seq)
    masks = 2 if shape.sliding_window else 1
    scores = masks * _HALF if flash_attention else masks * _FLOAT + heads * _FLOAT
    per_output = (shape.n_vocab or 0) + 2 * n_embd
    return n_ubatch * (per_token * _FLOAT + window * scores) + n_outputs * per_output * _FLOAT


def plan_gpu_layers(
    shape: ModelShape,
    free_bytes: int,
    n_ctx_seq: int,
    n_seqs: int,
    type_k: str = "F16",
    type_v: str = "F16",
    compute: int = 0,
) -> int:
    """How many layers fit on a device with free_bytes: 0 to n_layer + 1, as `n_gpu_layers` counts.

    llama.cpp places the output layer first, then blocks from the last to the first, each with its cache;
    the input embedding stays in host memory (load_tensors in llama-model.cpp), and a head that shares it
    is a second copy. `compute` is what `compute_bytes` says; GPU_MARGIN stays free besides.
    """
    blocks = [0] * shape.n_layer
    output = 0
    shared = None if shape.has_output_tensor else "token_embd.weight"
    for tensor in shape.header.tensors:
        block = re.match(r"blk\.(\d+)\.", tensor.name)
        if block and int(block[1]) < len(blocks):
            blocks[int(block[1])] += tensor.n_bytes
        elif not tensor.name.startswith(_INPUT_TENSORS) or tensor.name == shared:
            output += tensor.n_bytes
    caches = _kv_by_layer(shape, n_ctx_seq, n_seqs, type_k, type_v)
    left = free_bytes - GPU_MARGIN - compute
    repeating = [block + cache for block, cache in zip(blocks, caches, strict=True)]
    for n_layers, cost in enumerate([output, *reversed(repeating)]):
        left -= cost
        if left < 0:
            return n_layers
    return shape.n_layer + 1


def check_fits(needed: int, available: int | None) -> None:
    """Raise OutOfMemory if `needed` is more than `available`; an unknown `available` passes."""
    if available is not None and needed > available:
        raise OutOfMemory(
            f"this needs {size_text(needed)} of memory, {size_text(max(available, 0))} is available",
            "use a smaller --ctx or --parallel, --cache-type-k and --cache-type-v q8_0, or a smaller model",
        )


# --- the cache, layer by layer ----------------------------------------------------------------------


def _padded(n_ctx_seq: int) -> int:
    return -(-n_ctx_seq // CTX_PAD) * CTX_PAD


def _kv_type(name: str) -> GgmlType:
    kind = TYPE_BY_NAME.get(name.upper())
    if kind is None:
        raise UsageError(f"{name!r} is no tensor type", "use f16, bf16, f32 or q8_0 for the key/value cache")
    return kind


def _row_bytes(kind: GgmlType, n_elements: int) -> int:
    return -(-n_elements // kind.block) * kind.size


def _kv_by_layer(shape: ModelShape, n_ctx_seq: int, n_seqs: int, type_k: str, type_v: str) -> list[int]:
    """Bytes of each layer's cache and state, all sequences (llama_kv_cache, llama_memory_recurrent)."""
    kind_k, kind_v = _kv_type(type_k), _kv_type(type_v)
    header, n_layer = shape.header, shape.n_layer
    shared = header.hyperparameter("attention.shared_kv_layers") or 0  # the last ones reuse earlier caches
    last = min(n_layer - shared, n_layer - shape.n_layer_nextn)
    lengths = _head_lengths(shape)
    keys_only = bool(header.hyperparameter("attention.key_length_mla"))  # MLA keeps one joint latent
    recurrent = shape.recurrent_by_layer
    both = header.architecture == "falcon-h1"  # attention and state side by side in each layer
    state = n_seqs * _state_bytes(shape) if any(recurrent) else 0
    sizes = []
    for i, heads in enumerate(shape.n_head_kv_by_layer):
        size = state if recurrent[i] else 0
        if i < last and (both or not recurrent[i]):
            key, value = lengths[i]
            cell = _row_bytes(kind_k, heads * key) + (0 if keys_only else _row_bytes(kind_v, heads * value))
            size += cell * _padded(n_ctx_seq) * n_seqs
        sizes.append(size)
    return sizes


def _head_lengths(shape: ModelShape) -> list[tuple[int, int]]:
    """(key, value) elements of one head, layer by layer; sliding-window layers may have their own."""
    header, full = shape.header, (shape.key_length, shape.value_length)
    window = (
        header.hyperparameter("attention.key_length_swa") or full[0],
        header.hyperparameter("attention.value_length_swa") or full[1],
    )
    if window == full:
        return [full] * shape.n_layer
    key = f"{header.architecture}.attention.sliding_window_pattern"
    if key not in header.arrays:  # which layers slide is known to llama.cpp's code only: take the larger
        return [(max(full[0], window[0]), max(full[1], window[1]))] * shape.n_layer
    slides = header.array(key)
    return [window if i < len(slides) and slides[i] else full for i in range(shape.n_layer)]


def _state_bytes(shape: ModelShape) -> int:
    """State of one recurrent layer for one sequence, F32 (llama_hparams::n_embd_r and n_embd_s)."""

    def size(name: str) -> int:
        return shape.header.hyperparameter(name) or 0

    n_embd = shape.n_embd
    conv = max(size("ssm.conv_kernel") - 1, 0)
    if wkv := size("wkv.head_size"):
        shifts = shape.header.hyperparameter("token_shift_count")
        return _FLOAT * n_embd * ((2 if shifts is None else shifts) + wkv)
    if short := size("shortconv.l_cache"):
        return _FLOAT * n_embd * (short - 1)
    if kda := size("kda.head_dim"):
        return _FLOAT * shape.n_head * kda * (3 * (conv or 3) + kda)
    inner, states = size("ssm.inner_size"), size("ssm.state_size")
    return _FLOAT * (conv * (inner + 2 * size("ssm.group_count") * states) + states * inner)


def _ffn_width(shape: ModelShape) -> int:
    """Widest feed-forward activation of one token."""
    dense = max(shape.n_ff_by_layer)
    if not shape.is_moe:
        return dense
    header = shape.header
    expert = header.hyperparameter("expert_feed_forward_length") or dense
    shared = header.hyperparameter("expert_shared_feed_forward_length") or 0
    return max(dense, expert * (header.hyperparameter("expert_used_count") or 1) + shared)


# --- what the system has ----------------------------------------------------------------------------
