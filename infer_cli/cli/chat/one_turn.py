"""What `infer run --continue` does in its worker process: as `infer run`, one more turn of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from infer_cli.cli.chat import resumed
from infer_cli.cli.run.options import RunOptions, check
from infer_cli.cli.run.worker import Run
from infer_cli.cli.screen.terminal import Notices
from infer_cli.conversation import continuing
from infer_cli.conversation.dialogue import shape_of
from infer_cli.conversation.turns import Conversation, Plan
from infer_cli.errors import ContextOverflow
from infer_cli.process.explain import explained
from infer_cli.prompt.encode import EncodedPrompt
from infer_cli.prompt.fitting import Fitted
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.prompt.template import template_variables
from infer_cli.records.store import keep_turn
from infer_cli.records.thread import Thread
from infer_cli.settings.origins import Given

if TYPE_CHECKING:
    from infer_cli.answering.job import Job
    from infer_cli.backend.base import Vocab
    from infer_cli.conversation.continuing import Continued
    from infer_cli.models.installed import InstalledModel
    from infer_cli.prefix_cache.cache import PrefixCache
    from infer_cli.process.worker import Worker
    from infer_cli.prompt.input import RunInput
    from infer_cli.prompt.template import ChatTemplate
    from infer_cli.runtime.running import Running
    from infer_cli.runtime.session import Session
    from infer_cli.types import Reply


def answer(values: Mapping[str, tuple[object, str]], worker: Worker) -> int:
    """As `run_worker.answer`, the next turn of the last conversation. Raises InferError."""
    options = check({name: Given(*value) for name, value in values.items()})
    notices = Notices(quiet=options.quiet, stats=options.stats)
    try:
        with explained(worker), closed_at_end():
            continued = resumed.conversation(None, notices.warn)
            return _RunOn(resumed.as_before(options, continued), continued, worker, notices).answer()
    finally:
        notices.clear()


def _no_summary(prompt: EncodedPrompt, max_tokens: int) -> str:
    raise ContextOverflow(
        "the window is full, and of this conversation a summary would be made: `infer chat` does that",
        "go on with `infer chat --continue`, or give --overflow drop-oldest",
    )


class _RunOn(Run):
    _talk: Conversation
    _plan: Plan
    _model: InstalledModel

    def __init__(self, options: RunOptions, continued: Continued, worker: Worker, notices: Notices) -> None:
        super().__init__(options, worker, notices)
        self._continued = continued

    @property
    def _caches(self) -> bool:
        options = self._options
        return not (options.no_cache or options.no_record)

    def _restore(self, prefixes: PrefixCache, job: Job) -> None:
        prefixes.restore_talk(self._talk.evaluated)

    def _keep(self, prefixes: PrefixCache, session: Session, job: Job, reply: Reply) -> None:
        prefixes.keep_talk(self._talk.evaluated)

    def _job(self, session: Session, given: RunInput) -> Job:
        self._model = session.model
        job = super()._job(session, given)
        self._n_window = self._talk.window
        return replace(job, history=self._plan.past, truncation=self._plan.report)

    def _encode(
        self, session: Session, vocab: Vocab, given: RunInput
    ) -> tuple[EncodedPrompt, ChatTemplate, Fitted]:
        options = self._options
        template = session.chat_template(options.chat_template)
        variables = {} if options.prompt_template else template_variables(options.variables)
        window, chunk = shape_of(session.loaded, options.engine.ctx)
        talk = self._talk = Conversation(
            template, vocab, window, chunk, options.system, variables, options.overflow, options.deadline_s
        )
        continuing.restore(talk, self._continued, lambda record: continuing.is_by(record, self._model))
        plan = self._plan = talk.plan(given.text(given.attachments), options.max_tokens, _no_summary)
        if plan.truncation is not None:
            self._notices.warn(plan.truncation.told())
        encoded = EncodedPrompt(plan.prompt_ids, talk.text_read(plan.prompt_ids), plan.open_reasoning)
        # The conversation has made room by itself.
        return encoded, template, Fitted("error", given.messages, given.attachments, plan.n_tokens)

    def _record(self, replies: list[Reply], session: Session, running: Running, job: Job) -> None:
        (reply,) = replies
        if self._options.no_record or reply.error is not None or not reply.tokens:
            return
        talk, plan, thread = self._talk, self._plan, self._continued.thread
        turn = continuing.new_turn(talk, plan, thread.id)
        talk.add(plan, reply, self._options.stop)
        keep_turn(
            lambda: continuing.record_of_turn(
                reply,
                turn,
                model_path=None if session.model.is_fake else session.model.path,
                template_sha256=self._template_sha256,
                settings=self._settings,
                width=running.policy.width,
                loras=self._options.engine.loras,
                private=False,
            ),
            Thread(thread.id, talk.branch, talk.heads),
            self._notices.warn,
        )
