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


# `general.sampling.*`: all that llama.cpp's common.cpp reads.
_SAMPLING = (
    "sequence", "top_k", "top_p", "min_p", "xtc_probability", "xtc_threshold", "temp", "penalty_last_n",
    "penalty_repeat", "mirostat", "mirostat_tau", "mirostat_eta",
)  # fmt: skip

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
    """A GGUF header, as it is in the file. Raises ModelInvalid where its metadata lacks or garbles what is
    asked for."""

    path: Path
    version: int
    alignment: int
    metadata: Mapping[str, Scalar]
    arrays: Mapping[str, ArrayInfo]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    file_size: int

    # --- metadata -------------------------------------------------------------------------------

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

    def invalid(self, what: str) -> ModelInvalid:
        """An error that names the file, to be raised."""
        return ModelInvalid(f"{self.path} is not a usable model: {what}", HINT_FETCH)

    def missing(self, key: str) -> ModelInvalid:
        """An error about a key that is not there, to be raised."""
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
            raise self.missing("general.architecture")
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

    # --- tensors --------------------------------------------------------------------------------

    @cached_property
    def n_params(self) -> int:
        """Elements of all tensors in this file."""
        return sum(tensor.n_elements for tensor in self.tensors)

    @cached_property
    def quantization(self) -> dict[str, int]:
        """Number of tensors of each type, most frequent first."""
        return dict(Counter(tensor.type for tensor in self.tensors).most_common())

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
