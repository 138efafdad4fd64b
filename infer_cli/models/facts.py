"""What a model is, each value with where it comes from: its GGUF header, the catalogue, or our arithmetic.

Reads headers only, never weights. Knows no store and no terminal; text from a file is untrusted and passed on
as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infer_cli.backend.spec import FREE_CHUNK
from infer_cli.errors import ModelInvalid, ModelNotFound, UsageError
from infer_cli.models import footprint as memory
from infer_cli.models.catalogue import ModelEntry
from infer_cli.models.gguf.header import Header
from infer_cli.models.gguf.reading import read_model_header
from infer_cli.models.gguf.shape import ModelShape
from infer_cli.models.hashes import parts_of

DEFAULT_WINDOW = 8192  # tokens, where the model was trained for as many
_COMPUTED = "computed"


@dataclass(frozen=True)
class Fact:
    """`value` is a JSON value; sizes are bytes, windows tokens. `origin`: a header key, or in words."""

    name: str
    value: Any
    origin: str


def facts_of_model(
    path: Path, sha256: str | None, entry: ModelEntry | None, window: int | None
) -> list[Fact]:
    """All that the header of the file (and of its other parts), the entry and arithmetic say.

    `window`: tokens of one sequence that the memory is computed for; None is min(trained, 8192). Raises
    ModelNotFound, ModelInvalid, and UsageError for a window beyond the trained one.
    """
    shape = ModelShape(read_model_header(path))
    if window is not None and window > shape.n_ctx_train:
        raise UsageError(
            f"--ctx {window} is larger than the window this model was trained for ({shape.n_ctx_train})"
        )
    files = parts_of(path)
    facts = [
        Fact("path", str(path), "the shelf" if entry else "given"),
        Fact("files", len(files), "the file's name"),
        Fact("size", sum(file.stat().st_size for file in files), "the disk"),
    ]
    if sha256 is not None:
        facts.append(Fact("sha256", sha256, "computed when it was last read in full"))
    return [*facts, *_header_facts(shape), *_stated(entry), *_memory_facts(shape, window)]


def memory_need(path: Path) -> int | None:
    """Bytes that a model needs with its default window; None where its file is not a sound model."""
    try:
        return sum(_memory_parts(ModelShape(read_model_header(path)), None))
    except (ModelInvalid, ModelNotFound):
        return None


def facts_of_entry(entry: ModelEntry) -> list[Fact]:
    """What the catalogue states of a model that is not here."""
    facts = [
        Fact("sources", [str(source) for source in entry.sources], "catalogue"),
        Fact("size", entry.size, "catalogue"),
        Fact("sha256", entry.sha256, "catalogue"),
        Fact("context", entry.context, "catalogue"),
    ]
    return [fact for fact in facts if fact.value is not None] + _stated(entry)


def _stated(entry: ModelEntry | None) -> list[Fact]:
    if entry is None:
        return []
    facts = [
        Fact("licence", entry.licence, "catalogue"),
        Fact("sampling", dict(entry.sampling) if entry.sampling else None, "catalogue"),
        Fact("purpose", entry.purpose, "catalogue"),
        Fact("notes", entry.notes, "catalogue"),
    ]
    return [fact for fact in facts if fact.value is not None]


def _header_facts(shape: ModelShape) -> list[Fact]:
    header = shape.header
    arch = header.architecture
    templates = {name: len(text) for name, text in header.chat_templates.items()}
    facts = [
        Fact("title", header.name, "general.name"),
        Fact("architecture", arch, "general.architecture"),
        Fact("parameters", header.n_params, f"{_COMPUTED} from the tensors' shapes"),
        Fact("quantization", _quantization(header), f"{_COMPUTED} from the tensors' types"),
        Fact("context", shape.n_ctx_train, f"{arch}.context_length"),
        Fact("layers", shape.n_layer, f"{arch}.block_count"),
        Fact("embedding", shape.n_embd, f"{arch}.embedding_length"),
        Fact("vocabulary", shape.n_vocab, _vocabulary_origin(header)),
        Fact("tokenizer", header.metadata.get("tokenizer.ggml.model"), "tokenizer.ggml.model"),
        Fact("chat_templates", templates, "tokenizer.chat_template: characters of each"),
        Fact("licence_in_file", header.licence, "general.license"),
        Fact("sampling_in_file", header.sampling or None, "general.sampling.*"),
    ]
    return [fact for fact in facts if fact.value is not None]


def _vocabulary_origin(header: Header) -> str:
    if "tokenizer.ggml.tokens" in header.arrays:
        return "tokenizer.ggml.tokens"
    return f"{header.architecture}.vocab_size"


def _quantization(header: Header) -> Mapping[str, Mapping[str, int]]:
    """Per tensor type, largest first: tensors, parameters and bytes."""
    sizes: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    for tensor in header.tensors:
        sizes[tensor.type] += tensor.n_bytes
        elements[tensor.type] += tensor.n_elements
    return {
        kind: {"tensors": header.quantization[kind], "parameters": elements[kind], "bytes": n_bytes}
        for kind, n_bytes in sizes.most_common()
    }


def _memory_facts(shape: ModelShape, window: int | None) -> list[Fact]:
    n_ctx = _window_of(shape, window)
    weights, cache, compute = _memory_parts(shape, window)
    origin = "--ctx" if window else f"the trained window, {DEFAULT_WINDOW} at most"
    return [
        Fact("window", n_ctx, origin),
        Fact("memory_weights", weights, f"{_COMPUTED}: all tensors"),
        Fact("memory_cache", cache, f"{_COMPUTED}: keys and values in F16 (and states) of one sequence"),
        Fact("memory_compute", compute, f"estimated: one evaluation of {FREE_CHUNK} tokens"),
        Fact("memory", weights + cache + compute, f"{_COMPUTED}: their sum"),
    ]


def _window_of(shape: ModelShape, window: int | None) -> int:
    return window or min(shape.n_ctx_train, DEFAULT_WINDOW)


def _memory_parts(shape: ModelShape, window: int | None) -> tuple[int, int, int]:
    """Bytes of weights, of one sequence's cache, and of one evaluation."""
    n_ctx = _window_of(shape, window)
    return (
        memory.weights_bytes(shape.header),
        memory.kv_bytes(shape, n_ctx, 1),
        memory.compute_bytes(shape, n_ctx, FREE_CHUNK, 1),
    )
