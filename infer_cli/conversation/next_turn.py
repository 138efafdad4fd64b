"""One more turn of a conversation that was kept, planned and then kept with it. Knows no terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_cli.conversation import continuing
from infer_cli.conversation.codec import TurnCodec
from infer_cli.conversation.conversation import Conversation, TurnPlan
from infer_cli.conversation.ledger import Ledger, new_turn
from infer_cli.conversation.model import ConversationModel, shape_of
from infer_cli.errors import ContextOverflow
from infer_cli.prompt.fitting import needed_window
from infer_cli.prompt.plan import check_not_empty
from infer_cli.records.thread import Thread
from infer_cli.text.reasoning import ReasoningTags

if TYPE_CHECKING:
    from infer_cli.conversation.continuing import KeptConversation
    from infer_cli.conversation.shortening import OverflowPolicy
    from infer_cli.prompt.encode import EncodedPrompt
    from infer_cli.prompt.template import ChatTemplate
    from infer_cli.runtime.running_engine import RunningEngine
    from infer_cli.runtime.session import Session
    from infer_cli.settings.origins import Setting
    from infer_cli.types import Reply


@dataclass(frozen=True)
class NextTurn:
    """A conversation with its turns so far, and the request for one more."""

    conversation: Conversation
    plan: TurnPlan
    thread: Thread
    template: ChatTemplate

    @property
    def reasoning(self) -> ReasoningTags:
        """The tags that the reply's reasoning may stand between."""
        return self.conversation.codec.reasoning(self.plan.open_reasoning)

    def keep(
        self,
        reply: Reply,
        session: Session,
        running: RunningEngine,
        *,
        stop: tuple[str, ...],
        settings: Sequence[Setting],
        warn: Callable[[str], None],
    ) -> None:
        """Make a reply part of the conversation and of the records. A failure of the latter is a warning."""
        conversation, plan, codec = self.conversation, self.plan, self.conversation.codec
        ledger = Ledger(warn)
        ledger.go_on(self.thread)
        turn = new_turn(conversation, plan, ledger.thread_id)
        conversation.add(plan, reply, stop)
        model = ConversationModel(session, running, self.template, codec.window, codec.chunk)
        ledger.add(reply, turn, conversation, model, settings)


def plan_next_turn(
    session: Session,
    kept: KeptConversation,
    message: str,
    template: ChatTemplate,
    *,
    system: str | None,
    variables: Mapping[str, object],
    overflow: OverflowPolicy,
    max_tokens: int,
    deadline_s: float | None,
    warn: Callable[[str], None],
) -> NextTurn:
    """The turn that answers a message after a conversation's last one. `warn` is told what had to go.

    Raises ContextOverflow where what may not be dropped does not fit the window, or a summary would be
    needed; UsageError for an empty prompt, and what a template fails with.
    """
    window, chunk = shape_of(session.loaded, session.options.ctx)
    codec = TurnCodec(template, session.loaded.vocab, window, chunk, variables, deadline_s)
    conversation = Conversation(codec, system, overflow)
    continuing.restore(conversation, kept, lambda record: continuing.is_by(record, session.model))
    plan = conversation.plan(message, max_tokens, _no_summary)
    if plan.truncation is not None:
        warn(plan.truncation.told())
    check_not_empty(plan.prompt_ids)
    # A lone answer's reserve for the reply holds here too: a conversation's is less in a small window.
    loaded = session.loaded
    needed_window(len(plan.prompt_ids), max_tokens, loaded.window, loaded.n_ctx_train)
    return NextTurn(conversation, plan, kept.thread, template)


def _no_summary(prompt: EncodedPrompt, max_tokens: int) -> str:
    raise ContextOverflow(
        "the window is full, and of this conversation a summary would be made: `infer chat` does that",
        "go on with `infer chat --continue`, or give --overflow drop-oldest",
    )
