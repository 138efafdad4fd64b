"""Weights as F16 in place of the stored ones: which models gain, what it needs, and the copy to load.

llama.cpp computes many rows at once with matrix kernels, but has none for some old quantizations, whose rows
go one by one. As F16 they take three times the memory and read prompts more than twice as fast. A weight is
rounded by one part in 4,096, and what it is multiplied with is no longer rounded to 8 bits.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from infer_cli.errors import UnexpectedFailure
from infer_cli.models.gguf.header import Header
from infer_cli.settings.sizes import size_text

# Neither repacked (repack.cpp), nor tiled (tiled.cpp), nor in tinyBLAS (sgemm.cpp). Prompts of 128 tokens,
# SmolLM2 on two cores with AVX-512, tokens a second: Q4_1 500, Q5_1 440; F16 1,130; Q5_0 810, Q8_0 980,
# K-quants 910, IQ4_NL and Q4_0 1,500.
_ROW_BY_ROW = frozenset({"Q4_1", "Q5_1"})
_LARGER_PART = 0.5
# Tokens of a prompt that are worth the copy: it is read 2.3 times as fast, and the copy takes as long as to
# read some 500 (as stored).
LEAST_READ = 1536
_BYTES = 2  # of an F16
_DESCRIPTORS = Path("/proc/self/fd")  # Linux: names for open files


def may_gain(header: Header) -> bool:
    """Whether most weights are of a type that llama.cpp's CPU backend has no matrix kernels for."""
    slow = sum(tensor.n_elements for tensor in header.tensors if tensor.type in _ROW_BY_ROW)
    return header.split is None and slow > _LARGER_PART * header.n_params


def expanded_bytes(header: Header) -> int:
    """The copy's size, about: norms stay F32."""
    return header.n_params * _BYTES


def has_disk_room(header: Header) -> bool:
    """Whether the temporary folder, if there is any, has room for the copy."""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:  # nothing here can be written to
        return False
    return shutil.disk_usage(folder).free >= expanded_bytes(header)


@contextmanager
def expanded_copy(header: Header, n_threads: int) -> Iterator[Path]:
    """A copy of a model's file with its weights as F16, which goes again. Raises UnexpectedFailure."""
    from infer_cli.backend.llama_model import write_f16

    with _temporary_path() as path:
        if not write_f16(header.path, path, n_threads):
            raise UnexpectedFailure(
                f"llama.cpp could not write {header.path} as F16 into {tempfile.gettempdir()}",
                f"it takes {size_text(expanded_bytes(header))} there; TMPDIR names another folder",
                native=True,
            )
        yield path


@contextmanager
def _temporary_path() -> Iterator[Path]:
    file: AbstractContextManager[object]
    try:
        if _DESCRIPTORS.is_dir():  # a file without a name goes however this process ends
            file = unnamed = tempfile.TemporaryFile()  # noqa: SIM115  # open to the end
            path = _DESCRIPTORS / str(unnamed.fileno())
        else:
            file = folder = tempfile.TemporaryDirectory(prefix="infer-weights-")
            path = Path(folder.name) / "f16.gguf"
    except OSError as e:
        place = e.filename or "no room for the copy"
        raise UnexpectedFailure(f"{place}: {e.strerror}", "TMPDIR names another folder") from None
    with file:
        yield path
