"""A model's vocabulary without its weights, as llama.cpp reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.models.gguf.header import Header
    from infer_cli.process.worker import Worker

_models: list[object] = []  # a vocabulary does not keep its model alive


def load_vocab(header: Header, worker: Worker) -> Vocab:
    """Of the file that the header is of. Raises ModelInvalid where llama.cpp can't read the vocabulary."""
    from infer_cli.backend import native
    from infer_cli.backend.llama_model import LlamaModel
    from infer_cli.backend.spec import ModelSpec
    from infer_cli.models.gguf.check import check_vocabulary

    check_vocabulary(header)
    native.log_to(worker.native_fd)
    native.last_words_to(worker.native_fd)
    model = LlamaModel(ModelSpec(header.path, vocab_only=True))
    _models.append(model)
    return model.vocab
