"""Reads the header of a GGUF file, which may be hostile, without llama.cpp."""

from __future__ import annotations

import mmap
import stat
import struct
from dataclasses import replace
from math import prod
from pathlib import Path
from types import MappingProxyType

from infer_cli.backend.ggml_types import GGML_TYPES
from infer_cli.errors import ModelInvalid, ModelNotFound
from infer_cli.models.gguf.header import (
    HINT_FETCH,
    SCALARS,
    ArrayInfo,
    Header,
    Scalar,
    TensorInfo,
    shown,
    unreadable,
)
from infer_cli.models.sources import split_names

MAX_HEADER_BYTES = 256 * 2**20  # largest seen: 16 MiB (a vocabulary of 256k with its merges)

MAX_KEYS = 2**16

MAX_KEY_BYTES = 2**16 - 1  # the GGUF specification's limit

MAX_STRING_BYTES = 8 * 2**20  # of one scalar string; chat templates are the longest

MAX_STRINGS = 2**23  # of one array

MAX_TENSORS = 2**18

MAX_NAME_BYTES = 63  # GGML_MAX_NAME - 1

MAX_DIMS = 4  # GGML_MAX_DIMS

DEFAULT_ALIGNMENT = 32

_UINT32, _STRING, _ARRAY = 4, 8, 9

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

_HINT_CONVERT = "convert the model to GGUF with a current llama.cpp"


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
            raise ModelInvalid(f"{path} is empty", HINT_FETCH)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Parser(path, data).header()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise ModelNotFound(f"there is no file {path}", "see `infer models list`") from exc
    except OSError as exc:
        raise unreadable(path, exc) from exc


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
            raise ModelInvalid(f"{part.path} is not part {i + 1} of {len(parts)} of a model", HINT_FETCH)
    return replace(parts[0], tensors=tuple(tensor for part in parts for tensor in part.tensors))


class _Parser:
    """One pass over a mapped file; `pos` moves forward only."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.pos = 0

    # --- errors ---------------------------------------------------------------------------------

    def invalid(self, what: str, hint: str = HINT_FETCH) -> ModelInvalid:
        return ModelInvalid(f"{self.path} is not a valid GGUF file: {what}", hint)

    def cut(self, what: str) -> ModelInvalid:
        return ModelInvalid(
            f"{self.path} is truncated or damaged: {what} reaches beyond its end at {self.size} bytes",
            HINT_FETCH,
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
                raise self.invalid(f"metadata key {shown(key)} occurs twice")
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
                f"{self.path} is truncated: {needed - self.size} of {needed} bytes are missing", HINT_FETCH
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
        what = f"the value of {shown(key)}"
        if kind == _STRING:
            return self.text(what, MAX_STRING_BYTES)
        if kind not in SCALARS:
            raise self.invalid(f"{what} has unknown type {kind}")
        code = "<" + SCALARS[kind][1]
        value: Scalar = struct.unpack_from(code, self.data, self.take(struct.calcsize(code), what))[0]
        return value

    def array(self, key: str) -> ArrayInfo:
        what = f"array {shown(key)}"
        kind = self.uint32(what)
        if kind == _STRING:
            count = self.count(f"the length of {what}", MAX_STRINGS, 8)
            start = self.pos
            self.skip_strings(count, what)
            return ArrayInfo("string", count, start, self.pos - start)
        if kind == _ARRAY:
            raise self.invalid(f"{what} holds arrays")
        if kind not in SCALARS:
            raise self.invalid(f"{what} has unknown type {kind}")
        element, code = SCALARS[kind]
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
                raise self.invalid(f"tensor {shown(tensor.name)} occurs twice")
            if tensor.offset != expected:
                raise self.invalid(f"{shown(tensor.name)} lies at {tensor.offset}, expected at {expected}")
            names.add(tensor.name)
            tensors.append(tensor)
            expected += -(-tensor.n_bytes // alignment) * alignment
        return tuple(tensors)

    def tensor(self, i: int) -> TensorInfo:
        name = self.text(f"the name of tensor {i}", MAX_NAME_BYTES)
        what = f"tensor {shown(name)}"
        n_dims = self.uint32(what)
        if n_dims > MAX_DIMS:
            raise self.invalid(f"{what} has {n_dims} dimensions, more than {MAX_DIMS}")
        shape = tuple(self.uint64(what) for _ in range(n_dims))
        n_elements = prod(shape)
        if not 1 <= n_elements < 2**63:
            raise self.invalid(f"{what} has shape {shown(shape)}")
        type_id = self.uint32(what)
        kind = GGML_TYPES.get(type_id)
        if kind is None:
            raise self.invalid(f"{what} has unknown type {type_id}", _HINT_CONVERT)
        row = shape[0] if shape else 1
        if row % kind.block:
            raise self.invalid(f"{what} has rows of {row}, {kind.name} needs a multiple of {kind.block}")
        return TensorInfo(name, shape, kind.name, self.uint64(what), n_elements // kind.block * kind.size)
