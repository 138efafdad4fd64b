"""What every command does around a loaded model: begin to load it, read its template, let it go."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from infer_cli.prompt.template import compiled_template
from infer_cli.runtime.fake_loading import FakeLoading
from infer_cli.runtime.loading import Loading

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.models.installed import InstalledModel
    from infer_cli.process.worker import Worker
    from infer_cli.prompt.template import ChatTemplate
    from infer_cli.runtime.options import EngineOptions
    from infer_cli.runtime.running import Running


def begin_loading(
    model: InstalledModel | None, name: str | None, engine: EngineOptions, width: int, worker: Worker
) -> Loading | FakeLoading:
    """Begin to load a model for `width` slots; None is the fake of this name. Raises InferError."""
    # Nothing here multiplies matrices in numpy, which comes next: threads and buffers for it would be waste.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if model is None:
        return FakeLoading(str(name), engine, width)
    return Loading(model.path, engine, width, worker.native_fd)


def recommended_sampling(
    model: InstalledModel | None, loading: Loading | FakeLoading
) -> tuple[dict[str, object], Mapping[str, object]]:
    """What a model's catalogue entry recommends, and what its file does."""
    entry = model.entry if model is not None else None
    own = loading.header.sampling if isinstance(loading, Loading) else {}
    return dict((entry.sampling if entry is not None else None) or {}), own


def unload(loading: Loading | FakeLoading, running: Running) -> None:
    """Give a model's memory back, and that of its engine."""
    running.service.close()
    running.backend.close()
    loading.close()


def chat_template(loading: Loading | FakeLoading, vocab: Vocab, source: str | None) -> ChatTemplate:
    """The model's chat template, or the one in the file `source`. Raises UsageError where there is none."""
    own = loading.script.template if isinstance(loading, FakeLoading) else loading.header.chat_template
    return compiled_template(own, vocab, source)
