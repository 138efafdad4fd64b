"""The header of a GGUF file, read without loading the model.

The file is untrusted: every count and length is bounded and checked against the file's size before
anything is allocated. Arrays (vocabularies) are walked, not decoded, until asked for. Layout and checks
follow llama.cpp (`ggml/src/gguf.cpp`); what it refuses is refused here first, in one line.

Knows nothing of the runtime, of memory, or of what a model is good for.
"""

from __future__ import annotations

import errno
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from infer_cli.errors import ModelInvalid

Scalar = str | int | float | bool

MAX_ELEMENTS = 2**24  # of one array that is decoded
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_ARCHITECTURE = 64  # characters; it becomes part of keys and messages
MAX_DIM = 2**31 - 1  # of one hyperparameter; ggml's own sizes are int32 in many places

# Value types of the metadata (`enum gguf_type`): id -> (name, struct code).
SCALARS: dict[int, tuple[str, str]] = {
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    7: ("bool", "?"),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}


# llm_arch_is_recurrent and llm_arch_is_hybrid of llama-arch.cpp.
_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_HYBRID = frozenset(
    {
        "jamba", "falcon-h1", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe",
        "qwen3next", "kimi-linear", "bailingmoe3", "kimi-k3", "glm5-next", "qwen35", "qwen35moe", "qwen4exp",
        "deepseek4", "minimax-01",
    }
)  # fmt: skip

# Hybrids whose recurrent layers follow `full_attention_interval` where they are not listed.
_INTERVAL_HYBRIDS = frozenset({"qwen3next", "qwen35", "qwen35moe", "qwen4exp", "minimax-01"})
_DEFAULT_INTERVAL = 4

# `general.sampling.*`: all that llama.cpp's common.cpp reads.
_SAMPLING = (
    "sequence", "top_k", "top_p", "min_p", "xtc_probability", "xtc_threshold", "temp", "penalty_last_n",
    "penalty_repeat", "mirostat", "mirostat_tau", "mirostat_eta",
)  # fmt: skip

# Types whose CPU kernels compute one row and two rows differently.
_PAIRED_TYPES = frozenset({"F16", "BF16", "F32", "IQ4_NL"})
# Tensors that are looked up by row, and those that are added, multiplied element by element or convolved. The
# rest are multiplied as matrices, if they have two dimensions or more.
_LOOKED_UP = re.compile(r"^(token_embd|per_layer_token_embd|position_embd|token_types)\.|tid2eid")
_ELEMENTWISE = re.compile(r"norm|\.bias$|\.ssm_conv1d|\.ssm_[ad]\b|\.shortconv\.conv\.")


HINT_FETCH = "download the file again"


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the file. `shape` has the row length first, `offset` counts from the data section."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    n_bytes: int

    @property
    def n_elements(self) -> int:
        return prod(self.shape)

    @property
    def is_elementwise(self) -> bool:
        """Whether it is added, multiplied element by element or convolved: a norm, a bias, a scale."""
        return len(self.shape) < 2 or _ELEMENTWISE.search(self.name) is not None


@dataclass(frozen=True)
class ArrayInfo:
    """Where an array of the metadata lies. `element` is a type name (`string`, `int32`, ...)."""

    element: str
    count: int
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class SplitInfo:
    """This file is number `no` (from 0) of `count` files of one model."""

    no: int
    count: int


@dataclass(frozen=True)
class Header:
    """A GGUF header. Derived facts raise ModelInvalid where the metadata lacks or garbles what they need."""

    path: Path
    version: int
    alignment: int
    metadata: Mapping[str, Scalar]
    arrays: Mapping[str, ArrayInfo]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    file_size: int

    # --- raw metadata ---------------------------------------------------------------------------

    def array(self, key: str) -> list[Any]:
        """Decode an array: list[bytes] for strings, else a list of int, float or bool. Reads the file."""
        info = self.arrays.get(key)
        if info is None:
            raise self.invalid(f"it has no array {key!r}")
        if info.count > MAX_ELEMENTS:
            raise self.invalid(f"array {key!r} has {info.count} elements, more than {MAX_ELEMENTS}")
        try:
            with self.path.open("rb") as file:
                file.seek(info.offset)
                data = file.read(info.n_bytes)
        except OSError as exc:
            raise unreadable(self.path, exc) from exc
        changed = len(data) != info.n_bytes
        items: list[Any] = []
        if info.element == "string":
            items, end = _split_strings(data, info.count)
            changed = changed or end != len(data) or len(items) != info.count
        elif not changed:
            items = list(struct.unpack(f"<{info.count}{_CODE_BY_NAME[info.element]}", data))
        if changed:
            raise ModelInvalid(f"{self.path} changed while it was in use", "run the command again")
        return items

    def get_int(self, key: str) -> int | None:
        """A count from the metadata, None if absent. Raises ModelInvalid unless 0 <= value < 2**31."""
        value = self.metadata.get(key)
        if value is None:
            if key in self.arrays:
                raise self.invalid(f"{key!r} is an array, expected a number")
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DIM:
            raise self.invalid(f"{key!r} is {shown(value)}, expected a count")
        return value

    def _get_str(self, key: str) -> str | None:
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, str):
            raise self.invalid(f"{shown(key)} is {shown(value)}, expected text")
        return value

    def hyperparameter(self, name: str) -> int | None:
        """`<architecture>.<name>` as a count, None if absent."""
        return self.get_int(f"{self.architecture}.{name}")

    def _required(self, name: str, most: int = MAX_DIM) -> int:
        value = self.hyperparameter(name)
        if value is None:
            raise self._missing(f"{self.architecture}.{name}")
        if not 1 <= value <= most:
            raise self.invalid(f"'{self.architecture}.{name}' is {value}, expected 1 to {most}")
        return value

    def per_layer(self, name: str) -> tuple[int, ...] | None:
        """A hyperparameter that is one number for all layers or an array of one a layer."""
        key = f"{self.architecture}.{name}"
        if key not in self.arrays:
            value = self.get_int(key)
            return None if value is None else (value,) * self.n_layer
        if self.arrays[key].count != self.n_layer:
            raise self.invalid(f"{key!r} has {self.arrays[key].count} elements for {self.n_layer} layers")
        values = self.array(key)
        if not all(isinstance(value, int) and 0 <= value <= MAX_DIM for value in values):
            raise self.invalid(f"{key!r} must hold counts")
        return tuple(int(value) for value in values)

    def invalid(self, what: str) -> ModelInvalid:
        """An error that names the file, to be raised."""
        return ModelInvalid(f"{self.path} is not a usable model: {what}", HINT_FETCH)

    def _missing(self, key: str) -> ModelInvalid:
        if self.split is not None and self.split.no > 0:
            return ModelInvalid(
                f"{self.path} is part {self.split.no + 1} of {self.split.count} of a model",
                "give the first part",
            )
        return self.invalid(f"its metadata lacks {key!r}")

    # --- identity -------------------------------------------------------------------------------

    @property
    def architecture(self) -> str:
        value = self._get_str("general.architecture")
        if not value:
            raise self._missing("general.architecture")
        if len(value) > MAX_ARCHITECTURE or not value.isprintable():
            raise self.invalid(f"'general.architecture' is {shown(value)}")
        return value

    @property
    def name(self) -> str | None:
        return self._get_str("general.name")

    @property
    def licence(self) -> str | None:
        return self._get_str("general.license")

    @property
    def split(self) -> SplitInfo | None:
        """None for a model in one file."""
        count = self.get_int("split.count")
        if count is None or count <= 1:
            return None
        no = self.get_int("split.no")
        if no is None or no >= count:
            raise self.invalid(f"'split.no' is {no} of {count} files")
        return SplitInfo(no, count)

    # --- size and shape -------------------------------------------------------------------------

    @cached_property
    def n_params(self) -> int:
        """Elements of all tensors in this file."""
        return sum(tensor.n_elements for tensor in self.tensors)

    @property
    def n_layer(self) -> int:
        """All blocks, next-token-prediction ones included (llama.cpp's n_layer_all)."""
        return self._required("block_count", MAX_LAYERS)

    @property
    def n_layer_nextn(self) -> int:
        """Blocks at the end that only predict further tokens (MTP); no cache is kept for them."""
        value = self.hyperparameter("nextn_predict_layers") or 0
        if value > self.n_layer:
            raise self.invalid(f"{value} next-token-prediction layers of {self.n_layer} layers")
        return value

    @property
    def n_ctx_train(self) -> int:
        """Window the model was trained for, tokens."""
        return self._required("context_length")

    @property
    def n_embd(self) -> int:
        return self._required("embedding_length")

    @cached_property
    def n_ff_by_layer(self) -> tuple[int, ...]:
        return self.per_layer("feed_forward_length") or (0,) * self.n_layer

    @cached_property
    def n_head_by_layer(self) -> tuple[int, ...]:
        """Query heads; 0 where a layer has no attention."""
        return self.per_layer("attention.head_count") or (0,) * self.n_layer

    @cached_property
    def n_head_kv_by_layer(self) -> tuple[int, ...]:
        """Key/value heads; as many as query heads unless the metadata says otherwise."""
        return self.per_layer("attention.head_count_kv") or self.n_head_by_layer

    @property
    def n_head(self) -> int:
        return max(self.n_head_by_layer)

    @property
    def n_head_kv(self) -> int:
        return max(self.n_head_kv_by_layer)

    @property
    def key_length(self) -> int:
        """Elements of one head's key; 0 without attention."""
        return self._head_length("attention.key_length")

    @property
    def value_length(self) -> int:
        """Elements of one head's value; 0 without attention."""
        return self._head_length("attention.value_length")

    def _head_length(self, name: str) -> int:
        value = self.hyperparameter(name)
        if value is not None:
            return value
        first = self.n_head_by_layer[0]
        return self.n_embd // first if first else 0

    @property
    def sliding_window(self) -> int | None:
        """Tokens that sliding-window layers look back, None without such layers."""
        return self.hyperparameter("attention.sliding_window") or None

    @property
    def n_vocab(self) -> int | None:
        tokens = self.arrays.get("tokenizer.ggml.tokens")
        return tokens.count if tokens else self.hyperparameter("vocab_size")

    @property
    def is_moe(self) -> bool:
        return (self.hyperparameter("expert_count") or 0) > 0

    @property
    def is_hybrid(self) -> bool:
        """Whether some layers are recurrent and others have attention."""
        return self.architecture in _HYBRID

    @property
    def is_recurrent(self) -> bool:
        """Whether any layer keeps a running state, so that a sequence cannot be cut back to a position."""
        return self.architecture in _RECURRENT or self.is_hybrid

    @cached_property
    def recurrent_by_layer(self) -> tuple[bool, ...]:
        """Which layers keep a running state (the `load_arch_hparams` of llama.cpp's src/models/)."""
        arch, n = self.architecture, self.n_layer
        if not self.is_recurrent or arch == "deepseek4":
            return (False,) * n
        if arch in _RECURRENT or arch == "falcon-h1":
            return (True,) * n
        last = n - self.n_layer_nextn
        if arch not in _INTERVAL_HYBRIDS:
            heads, n_ff = self.n_head_kv_by_layer, self.n_ff_by_layer
            mixers = arch.startswith("nemotron_h")  # its feed-forward blocks are layers of their own
            return tuple(i < last and heads[i] == 0 and not (mixers and n_ff[i]) for i in range(n))
        listed = self.per_layer("attention.recurrent_layers")
        if listed is not None:
            return tuple(bool(value) for value in listed)
        interval = self.hyperparameter("full_attention_interval") or _DEFAULT_INTERVAL
        return tuple(i < last and (i + 1) % interval != 0 for i in range(n))

    @cached_property
    def quantization(self) -> dict[str, int]:
        """Number of tensors of each type, most frequent first."""
        return dict(Counter(tensor.type for tensor in self.tensors).most_common())

    @cached_property
    def has_output_tensor(self) -> bool:
        """False where the token embedding serves as the output head too."""
        return any(tensor.name == "output.weight" for tensor in self.tensors)

    @cached_property
    def pairs_rows(self) -> bool:
        """Whether a weight matrix has a type whose CPU kernels differ between one row and two."""
        return any(
            tensor.type in _PAIRED_TYPES and len(tensor.shape) >= 2 and self._is_multiplied(tensor.name)
            for tensor in self.tensors
        )

    def _is_multiplied(self, name: str) -> bool:
        if name == "token_embd.weight":
            return not self.has_output_tensor
        return _LOOKED_UP.search(name) is None and _ELEMENTWISE.search(name) is None

    # --- templates and recommendations ----------------------------------------------------------

    @property
    def chat_template(self) -> str | None:
        """The default chat template's source."""
        return self._get_str("tokenizer.chat_template")

    @property
    def chat_templates(self) -> dict[str, str]:
        """All chat templates by name; the default one is `default`."""
        prefix = "tokenizer.chat_template."
        found = {"default": self.chat_template}
        found |= {key[len(prefix) :]: self._get_str(key) for key in self.metadata if key.startswith(prefix)}
        return {name: source for name, source in found.items() if source is not None}

    @property
    def sampling(self) -> dict[str, Scalar]:
        """What the model's file recommends, under the names of `general.sampling.*` (`temp`, `top_k`, ...).

        The values are as they are in the file, not checked; an array is a text that says so.
        `sequence` is a list of sampler names separated by semicolons.
        """
        found: dict[str, Scalar] = {}
        for name in _SAMPLING:
            key = f"general.sampling.{name}"
            if key in self.arrays:
                found[name] = f"an array of {self.arrays[key].element}"
            elif key in self.metadata:
                value = self.metadata[key]
                found[name] = _shortest(value) if isinstance(value, float) else value
        return found


_CODE_BY_NAME = dict(SCALARS.values())


def _shortest(value: float) -> float:
    """The shortest decimal that is the same number in 32 bits: 0.31 for the file's 0.3100000023841858."""
    try:
        wanted = struct.pack("<f", value)
    except OverflowError:  # only a float64 can be so large
        return value
    if struct.unpack("<f", wanted)[0] != value:
        return value
    return next(short for n in range(6, 10) if struct.pack("<f", short := float(f"{value:.{n}g}")) == wanted)


def _split_strings(data: bytes, count: int) -> tuple[list[bytes], int]:
    """Up to `count` length-prefixed strings, fewer where data ends early, and the position after them."""
    unpack = struct.Struct("<Q").unpack_from
    items: list[bytes] = []
    pos = 0
    try:
        for _ in range(count):
            (length,) = unpack(data, pos)
            start = pos + 8
            pos = start + length
            items.append(data[start:pos])
    except (struct.error, OverflowError):
        pass  # the caller compares count and position
    return items, pos


def unreadable(path: Path, exc: OSError) -> ModelInvalid:
    if isinstance(exc, PermissionError):
        return ModelInvalid(f"no permission to read {path}", "make the file readable for this user")
    reason = exc.strerror or errno.errorcode.get(exc.errno or 0, "unknown error")
    return ModelInvalid(f"cannot read {path}: {reason}", "check the disk and the path")


def shown(value: object) -> str:
    """A value from the file, escaped and cut so that it is safe in a one-line message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
