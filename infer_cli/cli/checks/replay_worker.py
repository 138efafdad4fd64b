"""What `infer replay` does in its worker process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.answering.one_question import OneQuestion
from infer_cli.answering.oneshot import OneShot
from infer_cli.answering.silent import SilentSink
from infer_cli.checking.replay import choices_that_differ, is_same, logprobs_at, reasons
from infer_cli.cli.flags.lists import print_objects
from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import ExitStatus, ModelNotFound
from infer_cli.models.installed import InstalledModel, fake_model, is_fake
from infer_cli.process.explain import explained
from infer_cli.records.compare import compare
from infer_cli.records.record import Record, record_of, was_choice
from infer_cli.records.recorded_job import engine_options, job_of, question_of
from infer_cli.records.store import Store, store_path
from infer_cli.records.thread import Thread
from infer_cli.runtime.long_prompt import PromptReader
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.reply_provenance import has_f16_prompt
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.runtime.session import Session
from infer_cli.text.sanitize import single_line
from infer_cli.types import Mode, Reply

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.process.worker import Worker


SESSION = "replay"  # turns find what the turn before has evaluated, as they did in the conversation


class _Verdict(NamedTuple):
    record: Record
    identical: bool
    lines: list[str]  # that say so


def answer_again(name: str, worker: Worker, *, quiet: bool, in_json: bool, as_lines: bool) -> int:
    """Replay one record, or a conversation turn by turn; returns the exit code. Raises InferError.

    `in_json`: the verdicts are an array, or with `as_lines` an object a line.
    """
    notices = Notices(quiet=quiet, stats=False)
    with Store.open(store_path(), notices.warn) as store:
        found = store.find(name)
        records = list(store.export(thread=found.id)) if isinstance(found, Thread) else [found]
    replay = _Replay(worker, notices)
    differing: list[str] = []

    def verdicts() -> Iterator[_Verdict]:
        for record in records:
            verdict = replay.verdict(record)
            if not verdict.identical:
                differing.append(record.id)
            yield verdict

    with explained(worker):
        if in_json:
            print_objects(map(_as_object, verdicts()), lines=as_lines)
        else:
            for record, _, lines in verdicts():
                place = f"turn {record.turn}  {record.id}  " if isinstance(found, Thread) else ""
                print(place + "\n".join(lines), flush=True)
    return ExitStatus.CHECK_FAILED if differing else ExitStatus.OK


def _as_object(verdict: _Verdict) -> dict[str, object]:
    record, identical, lines = verdict
    reasons = [] if identical else [line.strip() for line in lines]
    return {"id": record.id, "turn": record.turn, "identical": identical, "reasons": reasons}


class _Model:
    """A loaded model, and what of a record it was loaded for: `n_ctx` is the window, in tokens. Its engines
    are made when they are first needed."""

    def __init__(self, wanted: tuple[object, ...], mode: Mode, session: Session, n_ctx: int | None) -> None:
        self.wanted, self.mode, self.session = wanted, mode, session
        self._window = n_ctx or session.loaded.window
        self._running: RunningEngine | None = None
        self._scoring: RunningEngine | None = None

    @property
    def running(self) -> RunningEngine:
        if self._running is None:
            self._running = self.session.start(self._window)
        return self._running

    @property
    def scoring(self) -> RunningEngine:
        """The engine that takes requests for likelihoods."""
        if self._scoring is None:
            self._scoring = self.session.start_scoring(self._window)
        return self._scoring

    def close(self) -> None:
        for engine in (self._running, self._scoring):
            if engine is not None:
                engine.close()
        self.session.close()


class _Replay:
    """Answers records again, one after the other; on one engine as long as it is the recorded one."""

    def __init__(self, worker: Worker, notices: Notices) -> None:
        self._worker, self._notices = worker, notices
        self._model: _Model | None = None

    def verdict(self, record: Record) -> _Verdict:
        """Whether the reply is the same, and the lines that say so. Raises InferError."""
        options = engine_options(record)
        if self._model is not None and "invariant" in {self._model.mode, options.mode} != {options.mode}:
            # What sets that mode apart is read by llama.cpp once in a process.
            why = f"not compared: the mode was {options.mode} here: replay it by its own id"
            return _Verdict(record, False, [why])
        model = self._model_for(record, options)
        (reply,) = self._shot(record, model).run()
        if is_same(record, reply):
            return _Verdict(record, True, ["identical"])
        return _Verdict(record, False, _difference(record, reply, model))

    def _model_for(self, record: Record, options: EngineOptions) -> _Model:
        width = record.width or 1
        wanted = (record.model, record.model_files, options, width)
        if self._model is not None:
            if self._model.wanted == wanted:
                return self._model
            self._model.close()
            self._model = None
        session = Session(_installed(record), options, width, self._worker.native_fd)
        self._model = _Model(wanted, options.mode, session, record.n_ctx)
        return self._model

    def _shot(self, record: Record, model: _Model) -> OneShot | OneQuestion:
        """What asks again. Raises UsageError."""
        if was_choice(record):
            return OneQuestion(question_of(record), model.scoring, SilentSink())
        session, running, reader = model.session, model.running, None
        if has_f16_prompt(record.engine):
            reader = PromptReader(session, running, self._notices)
        job = job_of(record, session.loaded.vocab, SESSION)
        return OneShot(job, running, session.loaded.vocab, SilentSink(), reader)


def _difference(record: Record, reply: Reply, model: _Model) -> list[str]:
    """Where the reply parts from the recorded one, and what may be why."""
    vocab = model.session.loaded.vocab
    again = record_of(
        reply,
        prompt_ids=record.prompt_ids or (),
        prompt_text=record.prompt or "",
        messages=record.messages,
        model_path=None if model.session.model.is_fake else model.session.model.path,
        template_sha256=record.template_sha256,
        settings=record.settings,
        width=record.width or 1,
        n_ctx=record.n_ctx or model.session.loaded.window,
    )
    comparison = compare(record, again)
    if reply.choices is not None:
        lines = _choice_difference(record, reply)
    elif comparison.reply is None:
        lines = [f"differs: {record.finish_reason}, now {reply.finish_reason}"]
    else:
        index = comparison.reply.index
        logprobs = logprobs_at(reply, index)
        before = _candidate(vocab, comparison.reply.a, logprobs)
        now = _candidate(vocab, comparison.reply.b, logprobs)
        lines = [f"differs at token {index}: {before}, now {now}"]
    return lines + [f"  {single_line(reason)}" for reason in reasons(record, comparison)]


def _choice_difference(record: Record, reply: Reply) -> list[str]:
    if reply.text == record.text:
        first = "differs in likelihoods"
    else:
        first = f"differs: {_quoted(record.text)}, now {_quoted(reply.text)}"
    return [first] + [
        f"  {_quoted(now.text)}: log-probability {before.logprob!r}, now {now.logprob!r}"
        for before, now in choices_that_differ(record, reply)
    ]


def _quoted(text: str | None) -> str:
    return single_line(repr(text))


def _installed(record: Record) -> InstalledModel:
    """The record's model, its file where it was. Raises ModelNotFound."""
    if record.model is not None and is_fake(record.model):
        return fake_model(record.model)
    if not record.model_files or not Path(record.model_files[0].path).exists():
        where = record.model_files[0].path if record.model_files else record.model
        raise ModelNotFound(f"the model of record {record.id} is gone: {where}", "put the file back there")
    path = Path(record.model_files[0].path)
    from infer_cli.models.hashes import cached_sha256

    return InstalledModel(record.model or path.stem, path, cached_sha256(path), None)


def _candidate(vocab: Vocab, token: int | None, logprobs: dict[int, float]) -> str:
    if token is None:
        return "the end"
    text = single_line(repr(vocab.token_text(token).decode("utf-8", "replace")))
    likely = f"log-probability {logprobs[token]:.4f}" if token in logprobs else "not among the likeliest"
    return f"{text} ({token}, {likely})"
