"""What commands do around a model: find it, wait for it, read its template."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from infer_cli.cli.terminal import Notices
from infer_cli.errors import UsageError
from infer_cli.files import MOST_INPUT, open_regular
from infer_cli.installed import named_by_path
from infer_cli.loading import FakeLoading, Loading, is_fake

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.installed import InstalledModel
    from infer_cli.loading import EngineOptions, Running
    from infer_cli.prefix_cache import PrefixCache
    from infer_cli.sinks.base import Sink
    from infer_cli.supervisor import Worker
    from infer_cli.template import ChatTemplate

STATUS_INTERVAL_S = 0.1
TALK_WINDOW = 8192  # of `--ctx auto` in a conversation, where the model was trained for as much


def find_model(name: str | None, *, offline: bool, quiet: bool) -> InstalledModel | None:
    """A model's file, fetched if need be; None for the fake."""
    if is_fake(name):
        return None
    if name is not None and (model := named_by_path(name)) is not None:
        return model
    from infer_cli.cli.pull_progress import PullProgress
    from infer_cli.shelf import resolve

    with PullProgress(quiet) as progress:
        return resolve(name, offline=offline, on_fetch=progress.notice, on_event=progress.event)


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


def prefix_cache(
    running: Running, name: str, sha256: str | None, most_bytes: int | None, notices: Notices
) -> PrefixCache:
    """What is kept of prompts and conversations for a model; the fake's hash is its name."""
    from infer_cli.prefix_cache import PrefixCache
    from infer_cli.prefix_store import PrefixStore

    return PrefixCache(running, PrefixStore(most_bytes=most_bytes), name, sha256, notices.detail)


def wait_for(loading: Loading | FakeLoading, notices: Notices) -> None:
    """Wait until a model is loaded, then tell what was chosen for it and what it can't promise."""
    while not loading.wait(STATUS_INTERVAL_S):
        notices.status(f"loading the model {loading.progress:.0%}")
    for note in loading.notes:
        notices.note(note)
    if loading.policy.weaker_because:
        notices.warn(f"not {loading.policy.mode}, only the seed is kept: {loading.policy.weaker_because}")


def talk_shape(loading: Loading | FakeLoading, ctx: int | None) -> tuple[int, int]:
    """A conversation's window in tokens, and its chunk: prompt tokens a call, 1 where shapes mean nothing."""
    policy = loading.policy
    return ctx or min(loading.n_ctx_train, TALK_WINDOW), policy.chunk if policy.fixed_width else 1


def unload(loading: Loading | FakeLoading, running: Running) -> None:
    """Give a model's memory back, and that of its engine."""
    running.service.close()
    running.backend.close()
    loading.close()


def chat_template(loading: Loading | FakeLoading, vocab: Vocab, source: str | None) -> ChatTemplate:
    """The model's chat template, or the one in the file `source`. Raises UsageError where there is none."""
    own = loading.script.template if isinstance(loading, FakeLoading) else loading.header.chat_template
    return compiled_template(own, vocab, source)


def compiled_template(own: str | None, vocab: Vocab, source: str | None) -> ChatTemplate:
    """As `chat_template`, of a model whose template is `own`, which need not be loaded."""
    from datetime import datetime

    from infer_cli.prompt import decode_input
    from infer_cli.template import ChatTemplate

    text = own if source is None else decode_input(read_bytes(source), source)
    if text is None:
        raise UsageError(
            "this model has no chat template: it is a base model",
            "complete plain text with --raw, or give a template with --chat-template FILE",
        )

    def token(token_id: int | None) -> str:
        return "" if token_id is None else vocab.token_text(token_id).decode("utf-8", "replace")

    now = datetime.now().astimezone()
    return ChatTemplate(text, bos=token(vocab.bos), eos=token(vocab.eos), now=now, file=source)


def read_bytes(name: str) -> bytes:
    """A file's bytes; `-` is stdin. Raises UsageError as `read_file`."""
    return read_stdin() if name == "-" else read_file(Path(name), name)


def read_file(path: Path, name: str) -> bytes:
    """All of a file that the user calls `name`. Raises UsageError where it can't be read, or is too long."""
    try:
        with open_regular(path) as file:
            return _bounded(file, name)
    except OSError as e:
        raise UsageError(f"{name}: {e.strerror}", "name a text file that can be read") from None


def read_stdin() -> bytes:
    """All of standard input. Raises UsageError where it is closed, too long, or does not end."""
    if sys.stdin is None:
        raise UsageError("there is no stdin to read")
    return _bounded(sys.stdin.buffer, "stdin")


def _bounded(file: BinaryIO, name: str) -> bytes:
    data = file.read(MOST_INPUT + 1)
    if len(data) > MOST_INPUT:
        raise UsageError(f"{name}: more than {MOST_INPUT >> 20} MiB of text", "give the part that matters")
    return data


def template_variables(variables: Mapping[str, str]) -> dict[str, object]:
    """`--var` values for a chat template: `true`, `false` and numbers as such, anything else as text."""
    import json

    values: dict[str, object] = {}
    for name, text in variables.items():
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        values[name] = value if isinstance(value, (bool, int, float)) else text
    return values


class StatusSink:
    """Shows prefill progress on the status line and wipes it before the first text."""

    def __init__(self, sink: Sink, notices: Notices) -> None:
        self._sink, self._notices = sink, notices
        self.start, self.end, self.close = sink.start, sink.end, sink.close
        self.takes = sink.takes

    def prefill(self, sample: int, done: int, total: int) -> None:
        self._sink.prefill(sample, done, total)
        if done < total:
            self._notices.status(f"reading the prompt {done / total:.0%}")
        else:
            self._notices.clear()

    def delta(self, delta: object) -> None:
        self._sink.delta(delta)  # type: ignore[arg-type]
