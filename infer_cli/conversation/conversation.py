"""A conversation: what of it is in the window, and the next request's history and prompt.

What of a turn's rendered prompt agrees with what was evaluated is history, and the rest is the turn's prompt.

Knows no engine, no terminal and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infer_cli.conversation import shortening, summarizing
from infer_cli.conversation.codec import TurnCodec
from infer_cli.conversation.shortening import OverflowPolicy, Truncation, VisibleTurns
from infer_cli.conversation.turns import Branches, Turn
from infer_cli.engine import history
from infer_cli.errors import ContextOverflow, UsageError
from infer_cli.prompt.attachments import Attachment
from infer_cli.prompt.encode import EncodedPrompt
from infer_cli.prompt.fitting import cut_ends
from infer_cli.settings.defaults import FIT_RESERVE
from infer_cli.text.reasoning import TagPair
from infer_cli.types import Message, Reply, Segment

_DROPPING = "--continue --overflow drop-oldest"
_SUMMARY_HINT = f"{_DROPPING} drops the oldest turns in place of summarizing them"

# Asks the model for a text of at most so many tokens; the prompt is fitted to the window.
Summarize = Callable[[EncodedPrompt, int], str]


@dataclass(frozen=True)
class TurnPlan:
    """The next request. `continues`: the reply goes on after the last turn's."""

    user: str
    past: tuple[Segment, ...]
    prompt_ids: tuple[int, ...]
    visible: VisibleTurns
    open_reasoning: TagPair | None
    opened: TagPair | None
    truncation: Truncation | None
    continues: bool = False

    @property
    def n_tokens(self) -> int:
        return history.length(self.past) + len(self.prompt_ids)

    @property
    def report(self) -> dict[str, object] | None:
        """The `truncation` of the reply."""
        return None if self.truncation is None else self.truncation.report()


class Conversation:
    """Turns that one model reads and answers, with a system prompt that may change."""

    def __init__(
        self,
        codec: TurnCodec,
        system: str | None = None,
        overflow: OverflowPolicy = shortening.DEFAULT,
    ) -> None:
        self.codec, self.system, self.overflow = codec, system, overflow
        self.branches = Branches()

    def switch(self, codec: TurnCodec) -> None:
        """Go on with another model, which reads the turns as text."""
        self.codec = codec
        self.branches.leave_ids_behind()

    @property
    def turns(self) -> list[Turn]:
        """Of the branch in use."""
        return self.branches.turns

    def messages(self) -> list[Message]:
        """All of it, with the system message."""
        messages = [Message("system", self.system)] if self.system else []
        for turn in self.turns:
            messages += (Message("user", turn.user), Message("assistant", turn.text))
        return messages

    @property
    def visible(self) -> VisibleTurns:
        """What of the turns before the last one was in its prompt."""
        return self.turns[-1].visible if self.turns else VisibleTurns()

    @property
    def evaluated(self) -> tuple[Segment, ...]:
        """All that the sequence held when the last reply ended; empty where another model wrote it."""
        return self.turns[-1].evaluated if self.turns else ()

    @property
    def n_tokens(self) -> int:
        """Tokens of the window that are in use."""
        return history.length(self.evaluated)

    @property
    def window(self) -> int:
        """In tokens."""
        return self.codec.window

    # --- the next request ----------------------------------------------------------------------

    def encode(self, user: str, visible: VisibleTurns) -> EncodedPrompt:
        """The prompt of a message after what is visible of the turns. Raises UsageError."""
        return self.codec.encode(self.system, self.turns, visible, user)

    def plan(self, user: str, max_tokens: int, summarize: Summarize | None = None) -> TurnPlan:
        """The request for a reply to `user`, after making room where the window is full.

        `summarize` is called where the policy wants a summary; what it raises is passed on.
        Raises ContextOverflow where the message does not fit, UsageError where the template refuses.
        """
        reserve = min(max_tokens, FIT_RESERVE, self.window // 2)
        visible, truncation = self.visible, None
        encoded = self.encode(user, visible)
        if len(encoded.ids) + reserve > self.window:
            visible, truncation = self._make_room(user, visible, reserve, summarize)
            fitted = self.encode(user, visible)
            if len(fitted.ids) + reserve > self.window:
                raise self._does_not_fit(user, len(encoded.ids), len(fitted.ids), reserve)
            encoded = fitted
        past, prompt_ids = history.split(encoded.ids, self.evaluated, self.codec.chunk)
        opened = encoded.open_reasoning
        return TurnPlan(user, past, prompt_ids, visible, opened, opened, truncation)

    def _make_room(
        self, user: str, before: VisibleTurns, reserve: int, summarize: Summarize | None
    ) -> tuple[VisibleTurns, Truncation | None]:
        """What of the turns is kept in the window; more than fits where no more can go."""

        def count(visible: VisibleTurns) -> int:
            return len(self.encode(user, visible).ids)

        limit = int(self.window * shortening.LOW_WATER) - reserve
        if self.overflow == "error":
            return before, None
        if self.overflow == "keep-ends":
            texts = [(turn.user, turn.text) for turn in self.turns]
            return shortening.cut(before, texts, count, limit, self.window - reserve)
        if self.overflow != "summarize":
            return shortening.drop(before, len(self.turns), count, limit, self.overflow)
        budget = summarizing.budget(self.window)
        visible, went = shortening.summarized(before, len(self.turns), count, limit - budget)
        if not went or count(visible) + budget + reserve > self.window:
            return before, None
        assert summarize is not None
        earlier = None if before.summary is None else before.summary.text
        text = summarize(self._summary_prompt(earlier, went, budget), budget).strip().rstrip("\ufffd")
        if not text:
            raise ContextOverflow("the window is full, and the model wrote no summary", _SUMMARY_HINT)
        return shortening.with_summary(before, visible, went, text, count)

    def _does_not_fit(self, user: str, n_before: int, n_after: int, reserve: int) -> ContextOverflow:
        end = f"and {reserve} are kept for the reply: they do not fit the window of {self.window}"
        alone = len(self.encode(user, VisibleTurns().without(range(len(self.turns)))).ids)
        if alone + reserve > self.window:
            return ContextOverflow(
                f"the message is {alone} tokens {end}", "shorten it, or start with a larger --ctx"
            )
        what = f"the conversation with this message is {n_before} tokens"
        if self.overflow == "error":
            return ContextOverflow(
                f"{what} {end}", f"shorten the message, /undo or /clear turns, or go on with {_DROPPING}"
            )
        if self.overflow == "summarize":
            return ContextOverflow(f"{what}, no summary can be fitted in, {end}", _SUMMARY_HINT)
        return ContextOverflow(
            f"{what}, {n_after} without all that --overflow {self.overflow} may cut, {end}",
            f"shorten the message, or go on with {_DROPPING}",
        )

    def _summary_prompt(self, earlier: str | None, went: Sequence[int], budget: int) -> EncodedPrompt:
        """The request for a summary; texts that are too long for it are cut in their middles."""

        def encode(texts: Sequence[Attachment]) -> EncodedPrompt:
            contents = [item.text for item in texts]
            turns = list(zip(contents[::2], contents[1::2], strict=True))
            return self.codec.encode_request(summarizing.request(earlier, turns, budget))

        texts = [Attachment("", text) for i in went for text in (self.turns[i].user, self.turns[i].text)]
        limit = self.window - budget
        encoded = encode(cut_ends(texts, lambda items: len(encode(items).ids), limit).attachments)
        if len(encoded.ids) > limit:
            raise ContextOverflow(
                f"the window is full, and asking for a summary of {len(went)} turns takes"
                f" {len(encoded.ids)} tokens of it",
                _SUMMARY_HINT,
            )
        return encoded

    def plan_more(self) -> TurnPlan:
        """The request that lets the last reply go on. Raises UsageError where it can't."""
        if not self.turns:
            raise UsageError("there is no reply yet")
        turn = self.turns[-1]
        if turn.ids is None:
            raise UsageError("another model wrote the last reply", "/regen has this one answer")
        if not turn.ids or self.codec.is_complete(turn.ids):
            raise UsageError("the last reply is complete")
        past = history.normalized((*turn.evaluated, Segment("decoded", turn.ids[-1:])))
        if history.length(past) + 1 >= self.window:
            hint = "" if self.overflow == "error" else "the next message makes room"
            raise UsageError("the window is full: the reply can't go on", hint)
        inside = self.codec.open_pair(turn.ids, turn.opened)
        return TurnPlan(turn.user, past, (), turn.visible, inside, turn.opened, None, continues=True)

    # --- the reply -----------------------------------------------------------------------------

    def add(self, plan: TurnPlan, reply: Reply, stop: tuple[str, ...] = ()) -> Turn:
        """Take a reply in, whole or cut. A plan that continues replaces the last turn."""
        before = self.turns.pop() if plan.continues else None
        old_ids = (before.ids or ()) if before is not None else ()
        evaluated = (*plan.past, Segment("prompt", plan.prompt_ids), Segment("decoded", reply.tokens[:-1]))
        text, reasoning = reply.text or "", reply.reasoning or ""
        if before is not None:  # a character may lie across the cut
            text, reasoning = self.codec.reply_text(old_ids, reply.tokens, plan.opened, stop)
        turn = Turn(
            plan.user,
            text,
            reasoning,
            old_ids + reply.tokens,
            history.normalized(evaluated),
            plan.visible,
            plan.opened,
            (*(before.replies if before is not None else ()), reply),
        )
        self.turns.append(turn)
        return turn
