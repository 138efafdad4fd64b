"""A conversation as it is led: messages are answered, and what was said is kept. Knows no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from infer_cli.answering.job import Job, make_job
from infer_cli.answering.oneshot import OneShot
from infer_cli.answering.reply import failure_of
from infer_cli.answering.silent import SilentSink
from infer_cli.conversation import continuing
from infer_cli.conversation.cache import ConversationCache
from infer_cli.conversation.codec import TurnCodec
from infer_cli.conversation.conversation import Conversation, TurnPlan
from infer_cli.conversation.ledger import Ledger, new_turn
from infer_cli.conversation.model import ConversationModel
from infer_cli.conversation.reply_settings import ReplySettings
from infer_cli.errors import InferError, UsageError
from infer_cli.prompt.thinking import NO_BUDGET, budget_of, thinking_variables
from infer_cli.records.thread import Told
from infer_cli.runtime.long_prompt import PromptReader
from infer_cli.settings.origins import Given, RunSeed, Setting
from infer_cli.settings.sampling import SamplingChoice
from infer_cli.settings.seeds import draw_seed
from infer_cli.text.reasoning import ReasoningTags
from infer_cli.types import Reply, SamplingParams, ThinkingParams

if TYPE_CHECKING:
    from infer_cli.answering.sink import Sink
    from infer_cli.conversation.continuing import KeptConversation
    from infer_cli.conversation.shortening import OverflowPolicy
    from infer_cli.prompt.encode import EncodedPrompt
    from infer_cli.records.record import Record

SESSION = "chat"
_GREEDY = SamplingChoice(SamplingParams(), None, ())

# Why a message was not taken: stopped before its prompt was read or while it was, or the deadline came.
NotTaken = Literal["stopped", "stopped in prefill", "deadline"]


class TakenReply(NamedTuple):
    """A reply that has become part of the conversation. `n_tokens` of the window's are in use."""

    reply: Reply
    model: str
    n_tokens: int
    window: int
    is_stopped: bool


class DialogueView(Protocol):
    """What shows a dialogue, and is told of it as it happens."""

    def warn(self, message: str) -> None: ...

    def note(self, message: str) -> None:
        """What is good to know."""

    def detail(self, message: str) -> None:
        """What is of interest to statistics alone."""

    def status(self, text: str) -> None:
        """What is being waited for."""

    def clear_status(self) -> None: ...

    def sink(self) -> Sink:
        """Where the next reply goes."""

    def reply_taken(self, taken: TakenReply) -> None:
        """The reply has been streamed; it is not recorded yet."""

    def message_not_taken(self, why: NotTaken) -> None: ...


@dataclass(frozen=True)
class DialogueOptions:
    """What a dialogue begins with. `seed` is an int; `settings` those beside sampling and seed."""

    model: str | None  # None: the default one
    system: str | None
    variables: Mapping[str, object]  # of the chat template
    overflow: OverflowPolicy
    sampling: Mapping[str, Given]
    seed: RunSeed | None
    max_tokens: int
    thinking: ThinkingParams
    stop: tuple[str, ...]
    deadline_s: float | None  # of each reply
    settings: tuple[Setting, ...]
    records: bool
    private: bool  # hashes alone are recorded
    caches: bool
    cache_bytes: int | None  # most that the prefix cache may hold


@dataclass
class Totals:
    """Of all replies so far, in tokens. `n_late` replies were ended by the deadline."""

    n_replies: int = 0
    n_late: int = 0
    n_evaluated: int = 0
    n_reused: int = 0
    n_sampled: int = 0

    def add(self, reply: Reply) -> None:
        """Count what a computation cost: of a reply, or of a summary."""
        usage = reply.usage
        self.n_evaluated += usage.prompt_tokens - usage.cached_tokens + max(len(reply.tokens) - 1, 0)
        self.n_reused += usage.cached_tokens
        self.n_sampled += usage.completion_tokens


class Dialogue:
    """A conversation with its model, which `open_model` finds by name and loads.

    What fails raises InferError; a message that does leaves the conversation as it was. Ctrl-C is `stop`, or
    KeyboardInterrupt where that has nothing to stop.
    """

    def __init__(
        self,
        options: DialogueOptions,
        open_model: Callable[[str | None], ConversationModel],
        view: DialogueView,
        kept: KeptConversation | None = None,
    ) -> None:
        """`kept`: the conversation to go on with."""
        self._options, self._open_model, self._view = options, open_model, view
        self._model = model = open_model(options.model)
        self.reply_settings = ReplySettings(
            options.sampling,
            options.seed,
            options.max_tokens,
            options.thinking,
            options.settings,
            model.session.recommended,
        )
        codec = self._codec_of(model)
        self.conversation = Conversation(codec, options.system, options.overflow)
        self.ledger = Ledger(view.warn, off=not options.records, private=options.private)
        self.totals = Totals()
        self._cache = self._cache_of(model)
        self._summaries: dict[tuple[int, ...], str] = {}  # by the ids that ask for them
        self._shot: OneShot | None = None
        self._is_stopped = False
        if kept is not None:
            self._take_up(kept)
            if self._cache is not None:
                self._cache.restore(self.conversation.evaluated)

    def _cache_of(self, model: ConversationModel) -> ConversationCache | None:
        if not self._options.caches:
            return None
        return ConversationCache(model, self._options.cache_bytes, self._view.detail)

    def _codec_of(self, model: ConversationModel) -> TurnCodec:
        """How a model reads turns. Raises UsageError where its reasoning can't be turned off."""
        given, think = self._options.variables, self.reply_settings.thinking.think
        found = thinking_variables(model.template, think, given)
        if found.unused:
            self._view.warn(f"think: {found.unused}")
        return model.codec({**given, **found.variables}, self._options.deadline_s)

    def keep_state(self) -> None:
        """At the end: keep what was evaluated for another process. Never fails."""
        if self._cache is not None and self.totals.n_replies:
            self._cache.keep(self.conversation.evaluated)

    def stop(self) -> bool:
        """End the reply with what it has; whether there is one. Safe in a signal handler."""
        if self._shot is None:
            return False
        self._is_stopped = True
        self._shot.cancel()
        return True

    # --- the model and what was said before ----------------------------------------------------

    @property
    def model_name(self) -> str:
        return self._model.name

    def change_model(self, name: str) -> None:
        """Load another model and go on with the same conversation; the old one stays where that fails."""
        self._switch_model(name)
        self._moved()

    def _switch_model(self, name: str) -> None:
        new = self._open_model(name)
        try:
            codec = self._codec_of(new)
            self.reply_settings.use(new.session.recommended)
        except InferError:
            new.close()
            raise
        old, self._model = self._model, new
        old.close()
        self._summaries.clear()
        self.conversation.switch(codec)
        self._cache = self._cache_of(new)

    def load(self, kept: KeptConversation) -> None:
        """Go on with another conversation, and with the model that it had."""
        if not self._wrote(kept.last):
            self._switch_model(continuing.model_of(kept.last))
        self.conversation.system = kept.system
        self._take_up(kept)

    def _take_up(self, kept: KeptConversation) -> None:
        continuing.restore(self.conversation, kept, self._wrote)
        self.ledger.go_on(kept.thread)
        if self._wrote(kept.last) and kept.last.template_sha256 != self._model.template.sha256:
            self._view.warn("the chat template is not the one that this conversation had")

    def _wrote(self, record: Record) -> bool:
        return continuing.is_by(record, self._model.session.model)

    # --- changes without a reply ---------------------------------------------------------------

    def clear(self) -> None:
        """Begin another conversation; the system prompt stays."""
        self.conversation.branches.clear()
        self.ledger.begin()

    def set_system(self, text: str | None) -> None:
        self.conversation.system = text
        self._moved()

    def set_sampling(self, given: Mapping[str, Given]) -> None:
        self.reply_settings.set_sampling(given)
        self._moved()

    def set_max_tokens(self, n: int) -> None:
        self.reply_settings.set_max_tokens(n)
        self._moved()

    def set_think(self, think: bool | None) -> None:
        """Whether the model thinks from the next message on; None: as its template has it. Raises UsageError
        and changes nothing."""
        before = self.reply_settings.thinking
        self.reply_settings.thinking = before._replace(think=think)
        try:
            self.conversation.codec = self._codec_of(self._model)
        except InferError:
            self.reply_settings.thinking = before
            raise
        self.reply_settings.note("think", think)
        self._moved()

    def set_reasoning_budget(self, n: int | None) -> None:
        """Tokens of reasoning, at most; None: as many as the reply."""
        self.reply_settings.thinking = self.reply_settings.thinking._replace(budget=n)
        self.reply_settings.note("reasoning_budget", n)
        self._moved()

    def set_overflow(self, policy: OverflowPolicy) -> None:
        """What makes room in a full window from the next message on."""
        self.conversation.overflow = policy
        self.reply_settings.note("overflow", policy)
        self._moved()

    def set_seed(self, seed: RunSeed | None) -> None:
        """None: each reply draws its own."""
        self.reply_settings.seed = seed
        self._moved()

    def undo(self) -> str:
        """Take the last turn back; returns its message."""
        turn = self.conversation.branches.undo()
        self._moved()
        return turn.user

    def switch_branch(self, name: str) -> bool:
        """Go to a branch; a new name begins as a copy of this one. Whether it is new."""
        is_new = self.conversation.branches.switch(name)
        self._moved()
        return is_new

    def _moved(self) -> None:
        turns, model = self.conversation.turns, None
        if turns and turns[-1].ids is None:  # another one gave the last answer
            own = self._model.session.model
            model = own.name if own.is_fake else continuing.handle(own.name, own.path)
        settings = self.reply_settings.all_of(self.reply_settings.choose())
        self.ledger.move(self.conversation, Told(model, self.conversation.system, settings))

    # --- replies -------------------------------------------------------------------------------

    def ask(self, message: str, seed: RunSeed | None = None) -> bool:
        """Compute the reply to a message; whether both became part of the conversation."""
        try:
            return self._answer(
                self.conversation.plan(message, self.reply_settings.max_tokens, self._summary), seed
            )
        except KeyboardInterrupt:  # while the prompt was made, a summary included
            self._view.message_not_taken("stopped")
            raise

    def ask_again(self, *, same: bool = False, seed: int | None = None) -> None:
        """Another reply to the last message: with this seed, or `same`: with the seed that it had."""
        if not self.conversation.turns:
            raise UsageError("there is no reply yet")
        turn = self.conversation.turns[-1]
        if same:
            seed = turn.replies[0].seed
        self._ask_instead(turn.user, RunSeed(draw_seed() if seed is None else seed, "/regen"))

    def replace_last(self, message: str) -> None:
        """Another last message."""
        self._ask_instead(message, None)

    def _ask_instead(self, message: str, seed: RunSeed | None) -> None:
        # In the conversation alone: what is kept moves with the reply.
        before = self.conversation.branches.undo()
        is_taken = False
        try:
            is_taken = self.ask(message, seed)
        finally:
            if not is_taken:
                self.conversation.turns.append(before)

    def go_on(self) -> None:
        """Let the last reply go on."""
        self._answer(self.conversation.plan_more(), None)

    def _answer(self, plan: TurnPlan, seed: RunSeed | None) -> bool:
        if plan.truncation is not None:
            self._view.warn(plan.truncation.told())
        choice = self.reply_settings.choose(seed)
        if self._cache is not None and not self.totals.n_replies and not plan.past:
            self._cache.restore_beginning(plan.prompt_ids)  # later on, the engine itself holds more
        with self._replied(self._job(plan, choice), self._view.sink()) as reply:
            return self._take_in(plan, reply, choice)

    def _job(self, plan: TurnPlan, choice: SamplingChoice) -> Job:
        codec, settings = self.conversation.codec, self.reply_settings
        tags = codec.reasoning(plan.open_reasoning)
        n_reasoning = settings.thinking.budget
        if plan.continues:
            tags = ReasoningTags((), tags.opened, tags.tokens)
            if n_reasoning is not None:
                n_reasoning = max(0, n_reasoning - codec.n_reasoning(self.conversation.turns[-1]))
        budget = budget_of(n_reasoning, tags.pairs, tags.opened, codec.vocab)
        if n_reasoning is not None and budget is None and not plan.continues:
            self._view.warn(f"reasoning_budget: {NO_BUDGET}")
        return make_job(
            plan.prompt_ids,
            choice,
            tags,
            max_tokens=settings.max_tokens,
            stop=self._options.stop,
            deadline_s=self._options.deadline_s,
            history=plan.past,
            session=SESSION,
            truncation=plan.report,
            think=settings.thinking.think,
            budget=budget,
        )

    def _summary(self, prompt: EncodedPrompt, max_tokens: int) -> str:
        """A summary by the model, greedy. Raises KeyboardInterrupt where it is stopped."""
        if prompt.ids in self._summaries:
            return self._summaries[prompt.ids]
        self._view.status("summarizing the oldest turns")
        tags = self.conversation.codec.reasoning(prompt.open_reasoning)
        job = make_job(prompt.ids, _GREEDY, tags, max_tokens=max_tokens)
        with self._replied(job, SilentSink()) as reply:
            if self._is_stopped:
                raise KeyboardInterrupt
        text = self._summaries[prompt.ids] = reply.text or ""
        return text

    @contextlib.contextmanager
    def _replied(self, job: Job, sink: Sink) -> Iterator[Reply]:
        """The reply to a job, counted. `stop` does nothing more until it is dealt with."""
        model = self._model
        reader = PromptReader(model.session, model.running, self._view)
        shot = OneShot(job, model.running, self.conversation.codec.vocab, sink, reader)
        self._is_stopped = False
        self._shot = shot
        try:
            try:
                (reply,) = shot.run()
            finally:
                sink.close()
                self._view.clear_status()
            if reply.error is not None:
                raise failure_of(reply, self.model_name)
            self.totals.add(reply)
            yield reply
        finally:
            self._shot = None

    def _take_in(self, plan: TurnPlan, reply: Reply, choice: SamplingChoice) -> bool:
        """Make a reply part of the conversation and of the records; whether it has become so."""
        is_late = reply.finish_reason == "deadline"
        self.totals.n_replies += 1
        self.totals.n_late += is_late
        if not reply.tokens:
            self._view.message_not_taken("deadline" if is_late else "stopped in prefill")
            return False
        conversation = self.conversation
        turn = new_turn(conversation, plan, self.ledger.thread_id)
        conversation.add(plan, reply, self._options.stop)
        self._view.reply_taken(
            TakenReply(reply, self.model_name, conversation.n_tokens, conversation.window, self._is_stopped)
        )
        self.ledger.add(reply, turn, conversation, self._model, self.reply_settings.all_of(choice))
        return True
