"""What `infer replay` does in its worker process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.cli.explain import explained
from infer_cli.cli.run_worker import Description
from infer_cli.cli.terminal import Notices
from infer_cli.errors import ExitStatus, ModelNotFound
from infer_cli.installed import InstalledModel
from infer_cli.loading import FakeLoading, Loading, is_fake
from infer_cli.oneshot import OneShot
from infer_cli.records.compare import compare
from infer_cli.records.record import Record, record_of
from infer_cli.records.store import Store, store_path
from infer_cli.replaying import engine_options, is_same, job_of, logprobs_at, reasons
from infer_cli.report import single_line
from infer_cli.types import Delta, Reply

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.supervisor import Worker


class _Silent:
    """A sink for a reply that only its digest is wanted of."""

    def start(self, info: dict[str, object]) -> None:
        pass

    def prefill(self, sample: int, done: int, total: int) -> None:
        pass

    def delta(self, delta: Delta) -> None:
        pass

    def end(self, reply: Reply) -> None:
        pass

    def close(self) -> None:
        pass


def answer_again(record_id: str, worker: Worker, *, quiet: bool) -> int:
    """Replay one record; returns the exit code. Raises InferError."""
    notices = Notices(quiet=quiet, stats=False)
    with Store.open(store_path(), notices.warn) as store:
        record = store.get(record_id)
    with explained(worker):
        reply, vocab, again = _reply_to(record, worker)
    if is_same(record, reply):
        print("identical")
        return ExitStatus.OK
    comparison = compare(record, again)
    if comparison.reply is None:
        print(f"differs: {record.finish_reason}, now {reply.finish_reason}")
    else:
        index = comparison.reply.index
        logprobs = logprobs_at(reply, index)
        recorded = _candidate(vocab, comparison.reply.a, logprobs)
        print(f"differs at token {index}: {recorded}, now {_candidate(vocab, comparison.reply.b, logprobs)}")
    for reason in reasons(record, comparison):
        print(f"  {single_line(reason)}")
    return ExitStatus.CHECK_FAILED


def _reply_to(record: Record, worker: Worker) -> tuple[Reply, Vocab, Record]:
    from infer_cli.reasoning import tag_tokens

    options = engine_options(record)
    width = record.width or 1
    model = None if is_fake(record.model) else _model(record)
    loading: Loading | FakeLoading
    if model is None:
        assert record.model is not None
        loading = FakeLoading(record.model, options, width)
    else:
        loading = Loading(model.path, options, width, worker.native_fd)
    vocab = loading.vocab()
    job = job_of(record, tag_tokens(vocab, record.reasoning_pairs))
    running = loading.start(record.n_ctx or loading.window)
    description = Description(model, record.model, running.facts)
    (reply,) = OneShot(job, running, vocab, _Silent(), description.get).run()
    again = record_of(
        reply,
        prompt_ids=job.prompt_ids,
        prompt_text=record.prompt or "",
        messages=record.messages,
        model_path=None if model is None else model.path,
        template_sha256=record.template_sha256,
        settings=record.settings,
        width=width,
        n_ctx=record.n_ctx or loading.window,
    )
    return reply, vocab, again


def _model(record: Record) -> InstalledModel:
    """The record's model file, where it was."""
    if not record.model_files or not Path(record.model_files[0].path).exists():
        where = record.model_files[0].path if record.model_files else record.model
        raise ModelNotFound(f"the model of record {record.id} is gone: {where}", "put the file back there")
    path = Path(record.model_files[0].path)
    from infer_cli.digests import cached_sha256

    return InstalledModel(record.model or path.stem, path, cached_sha256(path), None)


def _candidate(vocab: Vocab, token: int | None, logprobs: dict[int, float]) -> str:
    if token is None:
        return "the end"
    text = single_line(repr(vocab.token_text(token).decode("utf-8", "replace")))
    likely = f"log-probability {logprobs[token]:.4f}" if token in logprobs else "not among the likeliest"
    return f"{text} ({token}, {likely})"
