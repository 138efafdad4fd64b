"""How much memory a model needs in a given configuration, and how much there is.

Arithmetic on a GGUF header and on what the operating system reports; never loads a model. All sizes are
bytes. `n_ctx_seq` is the window of one sequence; llama.cpp's own n_ctx is the total over all sequences.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from infer_cli.errors import OutOfMemory, UsageError
from infer_cli.gguf import TYPE_BY_NAME, GgmlType, Header

CTX_PAD = 256  # llama.cpp rounds a sequence's window up to this (llama-context.cpp)
GPU_MARGIN = 2**30  # left free on a device, as llama.cpp's `fit_params_target` (common.h)
_INPUT_TENSORS = ("token_embd", "per_layer_token_embd", "position_embd", "token_types")
_FLOAT = 4
_HALF = 2


def weights_bytes(header: Header) -> int:
    """All tensors of this file. A model in several files needs the sum over its files."""
    return sum(tensor.n_bytes for tensor in header.tensors)


def kv_bytes(header: Header, n_ctx_seq: int, n_seqs: int, type_k: str = "F16", type_v: str = "F16") -> int:
    """Memory of n_seqs sequences of n_ctx_seq tokens: keys, values, and states of recurrent layers.

    Sliding-window layers count in full (the engine asks for `swa_full`). With flash attention this is
    llama.cpp's "KV buffer size" (plus "RS buffer size") to the byte; indexer caches of sparse-attention
    architectures are not included. `type_k` and `type_v` are ggml type names.
    """
    return sum(_kv_by_layer(header, n_ctx_seq, n_seqs, type_k, type_v))


def logits_bytes(n_outputs: int, n_vocab: int) -> int:
    """The buffer of logits of n_outputs rows (llama.cpp's "output buffer size")."""
    return n_outputs * n_vocab * _FLOAT


def compute_bytes(
    header: Header, n_ctx_seq: int, n_ubatch: int, n_outputs: int, flash_attention: bool = True
) -> int:
    """Upper estimate of the activations of one evaluation of n_ubatch tokens with n_outputs rows of logits.

    llama.cpp reserves the peak of one graph whose tensors share memory. The formula adds up what the
    graph builders (llama-graph.cpp, src/models/llama.cpp) keep alive around one layer, the attention
    mask, the scores where flash attention is off, the logits, and the CPU's buffer for converted
    activations (ggml_graph_plan, not in llama.cpp's "compute buffer size"). It was checked against
    that log line for the llama architecture, where it is 1 to 2.4 times the logged number.
    """
    n_embd = header.n_embd
    heads, heads_kv = header.n_head, header.n_head_kv
    q = heads * header.key_length
    attention = 2 * q + heads * header.value_length + 2 * heads_kv * (header.key_length + header.value_length)
    ffn = _ffn_width(header)
    recurrent = 6 * (header.hyperparameter("ssm.inner_size") or 0)
    per_token = 4 * n_embd + max(attention, 3 * ffn, recurrent) + max(n_embd, q, ffn)
    window = _padded(n_ctx_seq)
    masks = 2 if header.sliding_window else 1
    scores = masks * _HALF if flash_attention else masks * _FLOAT + heads * _FLOAT
    per_output = (header.n_vocab or 0) + 2 * n_embd
    return n_ubatch * (per_token * _FLOAT + window * scores) + n_outputs * per_output * _FLOAT


def plan_gpu_layers(
    header: Header,
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
    blocks = [0] * header.n_layer
    output = 0
    shared = None if header.has_output_tensor else "token_embd.weight"
    for tensor in header.tensors:
        block = re.match(r"blk\.(\d+)\.", tensor.name)
        if block and int(block[1]) < len(blocks):
            blocks[int(block[1])] += tensor.n_bytes
        elif not tensor.name.startswith(_INPUT_TENSORS) or tensor.name == shared:
            output += tensor.n_bytes
    caches = _kv_by_layer(header, n_ctx_seq, n_seqs, type_k, type_v)
    left = free_bytes - GPU_MARGIN - compute
    repeating = [block + cache for block, cache in zip(blocks, caches, strict=True)]
    for n_layers, cost in enumerate([output, *reversed(repeating)]):
        left -= cost
        if left < 0:
            return n_layers
    return header.n_layer + 1


def available_memory() -> int | None:
    """Memory that can be taken without swapping: the least that the system and our cgroups allow.

    None where the platform does not say (Windows, or a system that hides it).
    """
    if sys.platform == "linux":
        return _linux_available(Path("/"))
    if sys.platform == "darwin":
        return _macos_available()
    return None


def check_fits(needed: int, available: int | None) -> None:
    """Raise OutOfMemory if `needed` is more than `available`; an unknown `available` passes."""
    if available is not None and needed > available:
        raise OutOfMemory(
            f"this needs {human_bytes(needed)} of memory, {human_bytes(max(available, 0))} is available",
            "use a smaller --ctx or --parallel, --cache-type-k and --cache-type-v q8_0, or a smaller model",
        )


def human_bytes(n_bytes: int) -> str:
    """`1.5 GiB`: binary units, one decimal."""
    value = float(n_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{n_bytes} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


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


def _kv_by_layer(header: Header, n_ctx_seq: int, n_seqs: int, type_k: str, type_v: str) -> list[int]:
    """Bytes of each layer's cache and state, all sequences (llama_kv_cache, llama_memory_recurrent)."""
    kind_k, kind_v = _kv_type(type_k), _kv_type(type_v)
    n_layer = header.n_layer
    shared = header.hyperparameter("attention.shared_kv_layers") or 0  # the last ones reuse earlier caches
    last = min(n_layer - shared, n_layer - header.n_layer_nextn)
    lengths = _head_lengths(header)
    keys_only = bool(header.hyperparameter("attention.key_length_mla"))  # MLA keeps one joint latent
    recurrent = header.recurrent_by_layer
    both = header.architecture == "falcon-h1"  # attention and state side by side in each layer
    state = n_seqs * _state_bytes(header) if any(recurrent) else 0
    sizes = []
    for i, heads in enumerate(header.n_head_kv_by_layer):
        size = state if recurrent[i] else 0
        if i < last and (both or not recurrent[i]):
            key, value = lengths[i]
            cell = _row_bytes(kind_k, heads * key) + (0 if keys_only else _row_bytes(kind_v, heads * value))
            size += cell * _padded(n_ctx_seq) * n_seqs
        sizes.append(size)
    return sizes


def _head_lengths(header: Header) -> list[tuple[int, int]]:
    """(key, value) elements of one head, layer by layer; sliding-window layers may have their own."""
    full = (header.key_length, header.value_length)
    window = (
        header.hyperparameter("attention.key_length_swa") or full[0],
        header.hyperparameter("attention.value_length_swa") or full[1],
    )
    if window == full:
        return [full] * header.n_layer
    key = f"{header.architecture}.attention.sliding_window_pattern"
    if key not in header.arrays:  # which layers slide is known to llama.cpp's code only: take the larger
        return [(max(full[0], window[0]), max(full[1], window[1]))] * header.n_layer
    slides = header.array(key)
    return [window if i < len(slides) and slides[i] else full for i in range(header.n_layer)]


def _state_bytes(header: Header) -> int:
    """State of one recurrent layer for one sequence, F32 (llama_hparams::n_embd_r and n_embd_s)."""

    def size(name: str) -> int:
        return header.hyperparameter(name) or 0

    n_embd = header.n_embd
    conv = max(size("ssm.conv_kernel") - 1, 0)
    if wkv := size("wkv.head_size"):
        shifts = header.hyperparameter("token_shift_count")
        return _FLOAT * n_embd * ((2 if shifts is None else shifts) + wkv)
    if short := size("shortconv.l_cache"):
        return _FLOAT * n_embd * (short - 1)
    if kda := size("kda.head_dim"):
        return _FLOAT * header.n_head * kda * (3 * (conv or 3) + kda)
    inner, states = size("ssm.inner_size"), size("ssm.state_size")
    return _FLOAT * (conv * (inner + 2 * size("ssm.group_count") * states) + states * inner)


def _ffn_width(header: Header) -> int:
    """Widest feed-forward activation of one token."""
    dense = max(header.n_ff_by_layer)
    if not header.is_moe:
        return dense
    expert = header.hyperparameter("expert_feed_forward_length") or dense
    shared = header.hyperparameter("expert_shared_feed_forward_length") or 0
    return max(dense, expert * (header.hyperparameter("expert_used_count") or 1) + shared)


# --- what the system has ----------------------------------------------------------------------------


class _CgroupFiles(NamedTuple):
    limit: str
    usage: str
    stat: str  # prefix of the counters that include child groups, in memory.stat


_CGROUP_V1 = _CgroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
_CGROUP_V2 = _CgroupFiles("memory.max", "memory.current", "")


def _linux_available(root: Path) -> int | None:
    """MemAvailable, lowered to what is left in each cgroup (v1 or v2) that holds this process."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    amounts = [int(found[1]) * 1024] if found else []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts, files = ["", "unified"], _CGROUP_V2
        elif "memory" in controllers.split(","):
            mounts, files = ["memory"], _CGROUP_V1
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        # In a container our path may name nothing below the mount; the mount itself is our group then.
        for folder in (root / "sys/fs/cgroup" / m / g for m in mounts for g in (group, *group.parents)):
            left = _left_in_cgroup(folder, files)
            if left is not None:
                amounts.append(left)
    return min(amounts, default=None)


def _left_in_cgroup(folder: Path, files: _CgroupFiles) -> int | None:
    """Limit minus use, file pages (which can be dropped) not counted as used. None without a limit."""
    most, used = _read(folder / files.limit).strip(), _read(folder / files.usage).strip()
    if not most.isdigit() or not used.isdigit():  # no such group, or "max"
        return None
    counters = _read(folder / "memory.stat")
    pages = re.findall(rf"^{files.stat}(?:in)?active_file (\d+)$", counters, re.MULTILINE)
    return max(int(most) - int(used) + sum(map(int, pages)), 0)


def _read(path: Path) -> str:
    """A file of the kernel's, empty where this system does not have it."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _macos_available() -> int | None:
    import subprocess

    try:
        done = subprocess.run(["/usr/bin/vm_stat"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return _vm_stat_available(done.stdout)


def _vm_stat_available(text: str) -> int | None:
    """Free, inactive, speculative and purgeable pages of macOS's `vm_stat`, in bytes."""
    page = re.search(r"page size of (\d+) bytes", text)
    pages = re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)\.", text, re.MULTILINE)
    return int(page[1]) * sum(map(int, pages)) if page and pages else None
