"""A model of which only the header and the vocabulary are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.process.worker import Worker

DEFAULT = "default"  # the name of a model's main template


@dataclass(frozen=True)
class UnloadedModel:
    """A model's templates by name, and how to get its vocabulary. `window`: tokens that it was trained with,
    None where its file does not say."""

    name: str
    templates: dict[str, str]
    vocab: Callable[[Worker], Vocab]
    window: int | None


def find_unloaded(model: str | None, *, offline: bool, quiet: bool) -> UnloadedModel:
    """A model, fetched if need be. Raises as `find_model`, and ModelInvalid for a header that is none."""
    from infer_cli.cli.screen.model_lookup import find_model

    found = find_model(model, offline=offline, quiet=quiet)
    if found.is_fake:
        from infer_cli.backend.fake import FakeScript, FakeVocab

        path = found.name.partition(":")[2]
        script = FakeScript.read(Path(path)) if path else FakeScript()
        return UnloadedModel(
            found.name, {DEFAULT: script.template}, lambda worker: FakeVocab(), script.n_ctx_train
        )
    from infer_cli.models.gguf.reading import read_header
    from infer_cli.vocab.loading import load_vocab

    header = read_header(found.path)
    return UnloadedModel(
        found.name,
        header.chat_templates,
        lambda worker: load_vocab(header, worker),
        header.hyperparameter("context_length"),
    )
