"""The records of a conversation: each reply as it comes, and where it stands. A failure is one warning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.backend.spec import LoraSpec
from infer_cli.conversation.shortening import VisibleTurns
from infer_cli.engine import history
from infer_cli.errors import InferError, UsageError
from infer_cli.records.record import Evaluated, Place, Record, adapters_of, evaluated, record_of
from infer_cli.records.store import Store, keep_turn, store_path
from infer_cli.records.thread import Thread, ThreadSummary, Told
from infer_cli.settings.origins import Setting
from infer_cli.system.ids import new_id
from infer_cli.text.reasoning import TagPair
from infer_cli.types import Message, Reply, Segment

if TYPE_CHECKING:
    from infer_cli.conversation.conversation import Conversation, TurnPlan
    from infer_cli.conversation.model import ConversationModel


@dataclass(frozen=True)
class NewTurn:
    """What the record of a turn has that one of a lone answer has not. Made before the conversation takes the
    turn in."""

    prompt_ids: tuple[int, ...]
    prompt_text: str
    messages: tuple[Message, ...]
    history: tuple[Evaluated, ...]
    place: Place
    reasoning_pairs: tuple[TagPair, ...]
    open_reasoning: TagPair | None
    window: int


def new_turn(conversation: Conversation, plan: TurnPlan, thread_id: str) -> NewTurn:
    """The turn that a conversation would have with the reply to `plan`."""
    segments = history.normalized((*plan.past, Segment("prompt", plan.prompt_ids)))
    messages = [Message("system", conversation.system)] if conversation.system else []
    messages.append(Message("user", plan.user))
    if plan.continues:
        messages.append(Message("assistant", conversation.turns[-1].text))
    place = Place(
        thread_id,
        conversation.turns[-1].reply.id if conversation.turns else None,
        len(conversation.turns) + (not plan.continues),
        len(plan.visible.gone),
        _shortened(plan.visible),
    )
    return NewTurn(
        history.flat(segments),
        conversation.codec.prompt_text(plan.prompt_ids),
        tuple(messages),
        evaluated(segments),
        place,
        conversation.codec.pairs,
        plan.open_reasoning,
        conversation.window,
    )


def record_of_turn(
    reply: Reply,
    turn: NewTurn,
    *,
    model_path: Path | None,
    template_sha256: str | None,
    settings: Sequence[Setting],
    width: int,
    loras: Sequence[LoraSpec],
    private: bool,
) -> Record:
    """The record of a turn whose reply has just ended. Raises OSError where the model's files are gone."""
    return record_of(
        reply,
        kind="chat",
        prompt_ids=turn.prompt_ids,
        prompt_text=turn.prompt_text,
        messages=turn.messages,
        model_path=model_path,
        template_sha256=template_sha256,
        settings=settings,
        width=width,
        n_ctx=turn.window,
        adapters=adapters_of(loras),
        reasoning_pairs=turn.reasoning_pairs,
        open_reasoning=turn.open_reasoning,
        history=turn.history,
        place=turn.place,
        private=private,
    )


def _shortened(visible: VisibleTurns) -> dict[str, object] | None:
    """As a record has it: None where the oldest turns are gone and nothing else."""
    if visible == VisibleTurns(frozenset(range(len(visible.gone)))):
        return None
    summary = visible.summary
    return {
        "dropped": [i + 1 for i in sorted(visible.gone)],
        "summary": None
        if summary is None
        else {"text": summary.text, "turns": [i + 1 for i in summary.turns]},
        "cuts": [{"turn": i + 1, **cut._asdict()} for i, cut in sorted(visible.cuts.items())],
    }


class _LedgerThread(NamedTuple):
    """The conversation that is written. `is_kept`: some of it is in the store."""

    id: str
    name: str | None = None
    is_kept: bool = False


class Ledger:
    """Writes one conversation to the user's store; `begin` and `go_on` choose which. `off`: writes nothing;
    `private`: hashes only."""

    def __init__(self, warn: Callable[[str], None], *, off: bool = False, private: bool = False) -> None:
        self._warn, self._off, self._private = warn, off, private
        self._thread = _LedgerThread(new_id())

    @property
    def thread_id(self) -> str:
        return self._thread.id

    @property
    def can_go_on(self) -> bool:
        """Whether the conversation is kept, so that another process can go on with it."""
        return self._thread.is_kept and not self._private

    @property
    def name(self) -> str | None:
        return self._thread.name

    def begin(self) -> None:
        """From here on it is a new conversation."""
        self._thread = _LedgerThread(new_id())

    def go_on(self, thread: Thread) -> None:
        self._thread = _LedgerThread(thread.id, thread.name, is_kept=True)

    def add(
        self,
        reply: Reply,
        turn: NewTurn,
        conversation: Conversation,
        model: ConversationModel,
        settings: Sequence[Setting],
    ) -> None:
        """Record a reply that the conversation has just taken in as this turn."""
        if self._off:
            return
        session = model.session
        keep_turn(
            lambda: record_of_turn(
                reply,
                turn,
                model_path=None if session.model.is_fake else session.model.path,
                template_sha256=model.template.sha256,
                settings=settings,
                width=model.running.policy.width,
                loras=session.options.loras,
                private=self._private,
            ),
            self._state(conversation),
            self._warn,
        )
        self._thread = self._thread._replace(is_kept=True)

    def move(self, conversation: Conversation, told: Told) -> None:
        """Note where the conversation stands, and what it was told, after something changed without a new
        reply."""
        if self._off or not self._thread.is_kept:
            return
        try:
            with Store.open(store_path(), self._warn) as store:
                store.move(self._state(conversation, told))
        except InferError as e:
            self._warn(f"where the conversation stands was not recorded: {e}")

    def _state(self, conversation: Conversation, told: Told | None = None) -> Thread:
        branches = conversation.branches
        return Thread(self.thread_id, branches.current, branches.heads, told=told)

    def rename(self, name: str) -> None:
        """Raises UsageError, UnexpectedFailure."""
        if self._off:
            raise UsageError("nothing is recorded here, so no name can be kept")
        with Store.open(store_path(), self._warn) as store:
            store.rename(self.thread_id, name)
        self._thread = self._thread._replace(name=name)

    def recent(self, limit: int) -> list[ThreadSummary]:
        """Conversations, the one that was used last first. Raises UnexpectedFailure."""
        with Store.open(store_path(), self._warn) as store:
            return store.threads(limit)
