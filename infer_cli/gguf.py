"""The header of a GGUF file, read without loading the model.

The file is untrusted: every count and length is bounded and checked against the file's size before
anything is allocated. Arrays (vocabularies) are walked, not decoded, until asked for. Layout and checks
follow llama.cpp (`ggml/src/gguf.cpp`); what it refuses is refused here first, in one line.

Knows nothing of the runtime, of memory, or of what a model is good for.
"""

from __future__ import annotations

import errno
import mmap
import re
import stat
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from infer_cli.errors import ModelInvalid, ModelNotFound
from infer_cli.sources import split_names

Scalar = str | int | float | bool

MAX_HEADER_BYTES = 256 * 2**20  # largest seen: 16 MiB (a vocabulary of 256k with its merges)
MAX_KEYS = 2**16
MAX_KEY_BYTES = 2**16 - 1  # the GGUF specification's limit
MAX_STRING_BYTES = 8 * 2**20  # of one scalar string; chat templates are the longest
MAX_STRINGS = 2**23  # of one array
MAX_ELEMENTS = 2**24  # of one array that is decoded
MAX_TENSORS = 2**18
MAX_NAME_BYTES = 63  # GGML_MAX_NAME - 1
MAX_DIMS = 4  # GGML_MAX_DIMS
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_ARCHITECTURE = 64  # characters; it becomes part of keys and messages
MAX_DIM = 2**31 - 1  # of one hyperparameter; ggml's own sizes are int32 in many places
DEFAULT_ALIGNMENT = 32

# Value types of the metadata (`enum gguf_type`): id -> (name, struct code).
_SCALARS: dict[int, tuple[str, str]] = {
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
_UINT32, _STRING, _ARRAY = 4, 8, 9


@dataclass(frozen=True)
class GgmlType:
    """A tensor type: `block` elements take `size` bytes."""

    name: str
    block: int
    size: int


# `enum ggml_type` of ggml 0.25.3 (ggml.h, sizes from ggml-common.h); the missing ids were removed from it.
GGML_TYPES: dict[int, GgmlType] = {
    0: GgmlType("F32", 1, 4),
    1: GgmlType("F16", 1, 2),
    2: GgmlType("Q4_0", 32, 18),
    3: GgmlType("Q4_1", 32, 20),
    6: GgmlType("Q5_0", 32, 22),
    7: GgmlType("Q5_1", 32, 24),
    8: GgmlType("Q8_0", 32, 34),
    9: GgmlType("Q8_1", 32, 36),
    10: GgmlType("Q2_K", 256, 84),
    11: GgmlType("Q3_K", 256, 110),
    12: GgmlType("Q4_K", 256, 144),
    13: GgmlType("Q5_K", 256, 176),
    14: GgmlType("Q6_K", 256, 210),
    15: GgmlType("Q8_K", 256, 292),
    16: GgmlType("IQ2_XXS", 256, 66),
    17: GgmlType("IQ2_XS", 256, 74),
    18: GgmlType("IQ3_XXS", 256, 98),
    19: GgmlType("IQ1_S", 256, 50),
    20: GgmlType("IQ4_NL", 32, 18),
    21: GgmlType("IQ3_S", 256, 110),
    22: GgmlType("IQ2_S", 256, 82),
    23: GgmlType("IQ4_XS", 256, 136),
    24: GgmlType("I8", 1, 1),
    25: GgmlType("I16", 1, 2),
    26: GgmlType("I32", 1, 4),
    27: GgmlType("I64", 1, 8),
    28: GgmlType("F64", 1, 8),
    29: GgmlType("IQ1_M", 256, 56),
    30: GgmlType("BF16", 1, 2),
    34: GgmlType("TQ1_0", 256, 54),
    35: GgmlType("TQ2_0", 256, 66),
    39: GgmlType("MXFP4", 32, 17),
    40: GgmlType("NVFP4", 64, 36),
    41: GgmlType("Q1_0", 128, 18),
    42: GgmlType("Q2_0", 64, 18),
}
TYPE_BY_NAME: dict[str, GgmlType] = {kind.name: kind for kind in GGML_TYPES.values()}

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

# What people hand over in place of a GGUF file: first bytes -> what it is.
_OTHER_FORMATS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to"),
    (b"<!DOCTYPE", "a web page"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"PK\x03\x04", "a ZIP archive (a PyTorch checkpoint?)"),
    (b"lmgg", "an old GGML file from before GGUF"),
    (b"fmgg", "an old GGML file from before GGUF"),
    (b"tjgg", "an old GGML file from before GGUF"),
    (b"algg", "an old GGML adapter"),
)

_HINT_FETCH = "download the file again"
_HINT_CONVERT = "convert the model to GGUF with a current llama.cpp"


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
            raise _unreadable(self.path, exc) from exc
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
            raise self.invalid(f"{key!r} is {_shown(value)}, expected a count")
        return value

    def _get_str(self, key: str) -> str | None:
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, str):
            raise self.invalid(f"{_shown(key)} is {_shown(value)}, expected text")
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
        return ModelInvalid(f"{self.path} is not a usable model: {what}", _HINT_FETCH)

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
            raise self.invalid(f"'general.architecture' is {_shown(value)}")
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


_CODE_BY_NAME = dict(_SCALARS.values())


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


def read_header(path: Path) -> Header:
    """Read and check a GGUF header: magic, counts, shapes, and that all tensor data is there.

    Raises ModelNotFound where there is no such file, ModelInvalid for everything else.
    """
    if "\0" in str(path):
        raise ModelNotFound("a path cannot contain a null character", "check the path")
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ModelInvalid(f"{path} is a directory, not a GGUF file", "give the .gguf file inside it")
        if not stat.S_ISREG(status.st_mode):
            raise ModelInvalid(f"{path} is not a regular file", "give a .gguf file")
        if status.st_size == 0:
            raise ModelInvalid(f"{path} is empty", _HINT_FETCH)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Parser(path, data).header()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise ModelNotFound(f"there is no file {path}", "see `infer models list`") from exc
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def read_model_header(path: Path) -> Header:
    """The header of a model's first file with the tensors of all its files (a split GGUF has several).

    Raises as `read_header`, and ModelInvalid where the files do not belong together.
    """
    header = read_header(path)
    if header.split is None:
        return header
    names = split_names(path.name)
    if len(names) != header.split.count:
        raise ModelInvalid(
            f"{path} is part of a model in {header.split.count} files, and its name does not say so",
            "give the files back the names …-00001-of-0000N.gguf that they were published with",
        )
    parts = [header if name == path.name else read_header(path.with_name(name)) for name in names]
    for i, part in enumerate(parts):
        if part.split is None or (part.split.no, part.split.count) != (i, len(parts)):
            raise ModelInvalid(f"{part.path} is not part {i + 1} of {len(parts)} of a model", _HINT_FETCH)
    return replace(parts[0], tensors=tuple(tensor for part in parts for tensor in part.tensors))


def _unreadable(path: Path, exc: OSError) -> ModelInvalid:
    if isinstance(exc, PermissionError):
        return ModelInvalid(f"no permission to read {path}", "make the file readable for this user")
    reason = exc.strerror or errno.errorcode.get(exc.errno or 0, "unknown error")
    return ModelInvalid(f"cannot read {path}: {reason}", "check the disk and the path")


def _shown(value: object) -> str:
    """A value from the file, escaped and cut so that it is safe in a one-line message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Parser:
    """One pass over a mapped file; `pos` moves forward only."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.pos = 0

    # --- errors ---------------------------------------------------------------------------------

    def invalid(self, what: str, hint: str = _HINT_FETCH) -> ModelInvalid:
        return ModelInvalid(f"{self.path} is not a valid GGUF file: {what}", hint)

    def cut(self, what: str) -> ModelInvalid:
        return ModelInvalid(
            f"{self.path} is truncated or damaged: {what} reaches beyond its end at {self.size} bytes",
            _HINT_FETCH,
        )

    # --- pieces ---------------------------------------------------------------------------------

    def take(self, n_bytes: int, what: str) -> int:
        """Step over n_bytes; returns where they start."""
        start, end = self.pos, self.pos + n_bytes
        if end > self.size:
            raise self.cut(what)
        if end > MAX_HEADER_BYTES:
            raise self.invalid(f"its header is larger than {MAX_HEADER_BYTES} bytes")
        self.pos = end
        return start

    def uint32(self, what: str) -> int:
        return int.from_bytes(self.data[self.take(4, what) : self.pos], "little")

    def uint64(self, what: str) -> int:
        return int.from_bytes(self.data[self.take(8, what) : self.pos], "little")

    def text(self, what: str, most: int) -> str:
        length = self.uint64(what)
        if length > self.size - self.pos:
            raise self.cut(what)
        if length > most:
            raise self.invalid(f"{what} is {length} bytes long, more than {most}")
        return self.data[self.take(length, what) : self.pos].decode("utf-8", "replace")

    def count(self, what: str, most: int, min_bytes: int) -> int:
        """A number of items to come, each of min_bytes or more."""
        count = self.uint64(what)
        if count > most:
            raise self.invalid(f"{what} is {count}, more than {most}")
        if count * min_bytes > self.size - self.pos:
            raise self.cut(what)
        return count

    # --- parts of the file ----------------------------------------------------------------------

    def header(self) -> Header:
        version = self.magic()
        n_tensors = self.count("the number of tensors", MAX_TENSORS, 24)
        n_keys = self.count("the number of metadata keys", MAX_KEYS, 13)
        metadata: dict[str, Scalar] = {}
        arrays: dict[str, ArrayInfo] = {}
        alignment = DEFAULT_ALIGNMENT
        for i in range(n_keys):
            key = self.text(f"metadata key {i}", MAX_KEY_BYTES)
            if not key:
                raise self.invalid(f"metadata key {i} is empty")
            if key in metadata or key in arrays:
                raise self.invalid(f"metadata key {_shown(key)} occurs twice")
            kind = self.uint32("a value type")
            if kind == _ARRAY:
                arrays[key] = self.array(key)
            else:
                metadata[key] = self.scalar(key, kind)
            if key == "general.alignment":
                alignment = self.alignment(kind, metadata.get(key))
        tensors = self.tensors(n_tensors, alignment)
        data_offset = -(-self.pos // alignment) * alignment if tensors else self.pos
        needed = data_offset + (tensors[-1].offset + tensors[-1].n_bytes if tensors else 0)
        if needed > self.size:
            raise ModelInvalid(
                f"{self.path} is truncated: {needed - self.size} of {needed} bytes are missing", _HINT_FETCH
            )
        return Header(
            path=self.path,
            version=version,
            alignment=alignment,
            metadata=MappingProxyType(metadata),
            arrays=MappingProxyType(arrays),
            tensors=tensors,
            data_offset=data_offset,
            file_size=self.size,
        )

    def magic(self) -> int:
        start = self.data[:32]
        if not start.startswith(b"GGUF"):
            if b"GGUF".startswith(start):
                raise self.cut("the magic")
            for prefix, what in _OTHER_FORMATS:
                if start.startswith(prefix):
                    raise self.invalid(f"it is {what}")
            raise self.invalid(f"it starts with {start[:4]!r} instead of b'GGUF'", "give a .gguf file")
        self.take(4, "the magic")
        version = self.uint32("the version")
        if version & 0xFFFF == 0 and version:
            raise self.invalid("it is written for big-endian machines", "get its little-endian file")
        if version not in (2, 3):
            raise self.invalid(f"version {version} is not supported, only 2 and 3 are", _HINT_CONVERT)
        return version

    def scalar(self, key: str, kind: int) -> Scalar:
        what = f"the value of {_shown(key)}"
        if kind == _STRING:
            return self.text(what, MAX_STRING_BYTES)
        if kind not in _SCALARS:
            raise self.invalid(f"{what} has unknown type {kind}")
        code = "<" + _SCALARS[kind][1]
        value: Scalar = struct.unpack_from(code, self.data, self.take(struct.calcsize(code), what))[0]
        return value

    def array(self, key: str) -> ArrayInfo:
        what = f"array {_shown(key)}"
        kind = self.uint32(what)
        if kind == _STRING:
            count = self.count(f"the length of {what}", MAX_STRINGS, 8)
            start = self.pos
            self.skip_strings(count, what)
            return ArrayInfo("string", count, start, self.pos - start)
        if kind == _ARRAY:
            raise self.invalid(f"{what} holds arrays")
        if kind not in _SCALARS:
            raise self.invalid(f"{what} has unknown type {kind}")
        element, code = _SCALARS[kind]
        item = struct.calcsize("<" + code)
        count = self.count(f"the length of {what}", MAX_HEADER_BYTES, item)
        return ArrayInfo(element, count, self.take(count * item, what), count * item)

    def skip_strings(self, count: int, what: str) -> None:
        """Walk over length-prefixed strings: the hot loop of a large vocabulary."""
        unpack = struct.Struct("<Q").unpack_from
        pos = self.pos
        with memoryview(self.data) as data:  # a third faster to unpack from than the map itself
            try:
                for _ in range(count):
                    (length,) = unpack(data, pos)
                    pos += length + 8
            except (struct.error, OverflowError) as exc:
                raise self.cut(what) from exc
        self.take(pos - self.pos, what)

    def alignment(self, kind: int, value: Scalar | None) -> int:
        if kind != _UINT32 or not isinstance(value, int):
            raise self.invalid("'general.alignment' is not a uint32")
        if value == 0 or value & (value - 1):
            raise self.invalid(f"alignment {value} is not a power of two")
        return value

    def tensors(self, count: int, alignment: int) -> tuple[TensorInfo, ...]:
        tensors: list[TensorInfo] = []
        names: set[str] = set()
        expected = 0
        for i in range(count):
            tensor = self.tensor(i)
            if tensor.name in names:
                raise self.invalid(f"tensor {_shown(tensor.name)} occurs twice")
            if tensor.offset != expected:
                raise self.invalid(f"{_shown(tensor.name)} lies at {tensor.offset}, expected at {expected}")
            names.add(tensor.name)
            tensors.append(tensor)
            expected += -(-tensor.n_bytes // alignment) * alignment
        return tuple(tensors)

    def tensor(self, i: int) -> TensorInfo:
        name = self.text(f"the name of tensor {i}", MAX_NAME_BYTES)
        what = f"tensor {_shown(name)}"
        n_dims = self.uint32(what)
        if n_dims > MAX_DIMS:
            raise self.invalid(f"{what} has {n_dims} dimensions, more than {MAX_DIMS}")
        shape = tuple(self.uint64(what) for _ in range(n_dims))
        n_elements = prod(shape)
        if not 1 <= n_elements < 2**63:
            raise self.invalid(f"{what} has shape {_shown(shape)}")
        type_id = self.uint32(what)
        kind = GGML_TYPES.get(type_id)
        if kind is None:
            raise self.invalid(f"{what} has unknown type {type_id}", _HINT_CONVERT)
        row = shape[0] if shape else 1
        if row % kind.block:
            raise self.invalid(f"{what} has rows of {row}, {kind.name} needs a multiple of {kind.block}")
        return TensorInfo(name, shape, kind.name, self.uint64(what), n_elements // kind.block * kind.size)
