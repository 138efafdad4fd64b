"""A talk: its turns, what of it is in the window, and the next request's history and prompt.

The template is rendered anew for every turn, with each reply's sampled ids in place of its text; what then
agrees with what was evaluated is history, and the rest is the turn's prompt. Undo, another reply and branches
are operations on the list of turns: each turn knows the evaluation that it ended with.

Knows no engine, no terminal and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from infer_cli.backend.base import Vocab
from infer_cli.conversation import shortening, summarizing
from infer_cli.conversation.shortening import CutTurn, Shown, TalkPolicy, Truncation
from infer_cli.engine import history
from infer_cli.errors import ContextOverflow, UsageError
from infer_cli.prompt.attachments import Attachment
from infer_cli.prompt.encode import EncodedPrompt, encode_prompt, tag_tokens
from infer_cli.prompt.fitting import cut_ends
from infer_cli.prompt.kept_replies import KeptReply
from infer_cli.prompt.template import ChatTemplate
from infer_cli.settings.defaults import FIT_RESERVE
from infer_cli.text.reasoning import ReasoningSplitter, TagPair, pairs_of
from infer_cli.text.stream import StopMatcher
from infer_cli.types import Message, Reply, Segment

MAIN_BRANCH = "main"
_DROPPING = "--continue --overflow drop-oldest"
_SUMMARY_HINT = f"{_DROPPING} drops the oldest turns in place of summarizing them"


@dataclass(frozen=True)
class Turn:
    """A message and its reply. `ids` are the reply's sampled ones, None where another model sampled them."""

    user: str
    text: str
    reasoning: str
    ids: tuple[int, ...] | None
    evaluated: tuple[Segment, ...]  # all that the sequence held when the reply ended
    shown: Shown  # what of the turns before was in the prompt
    opened: TagPair | None  # the tag pair that the prompt had left open
    replies: tuple[Reply, ...]  # one, and one more for each time it was continued

    @property
    def reply(self) -> Reply:
        return self.replies[-1]


# Asks the model for a text of at most so many tokens; the prompt is fitted to the window.
Summarize = Callable[[EncodedPrompt, int], str]


@dataclass(frozen=True)
class Plan:
    """The next request. `continues`: the reply goes on after the last turn's."""

    user: str
    past: tuple[Segment, ...]
    prompt_ids: tuple[int, ...]
    shown: Shown
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
    """`window` in tokens; `chunk`: prompt tokens a call, 1 where their shapes do not matter. `deadline_s`:
    the time that rendering one prompt may take."""

    def __init__(
        self,
        template: ChatTemplate,
        vocab: Vocab,
        window: int,
        chunk: int,
        system: str | None = None,
        variables: Mapping[str, object] | None = None,
        overflow: TalkPolicy = shortening.DEFAULT,
        deadline_s: float | None = None,
    ) -> None:
        self.system = system
        self._deadline_s = deadline_s
        self.overflow = overflow
        self.branch = MAIN_BRANCH
        self._branches: dict[str, list[Turn]] = {MAIN_BRANCH: []}
        self._variables = variables
        self._use(template, vocab, window, chunk)

    def _use(self, template: ChatTemplate, vocab: Vocab, window: int, chunk: int) -> None:
        self._template, self._vocab, self.window, self._chunk = template, vocab, window, chunk
        self.pairs = pairs_of(template.source)
        self.tag_tokens = tag_tokens(vocab, self.pairs) if self.pairs else {}

    def switch(self, template: ChatTemplate, vocab: Vocab, window: int, chunk: int) -> None:
        """Go on with another model: it reads the talk as text, for ids mean nothing to it."""
        self._use(template, vocab, window, chunk)
        for name, turns in self._branches.items():
            self._branches[name] = [replace(turn, ids=None, evaluated=(), shown=Shown()) for turn in turns]

    # --- the turns -----------------------------------------------------------------------------

    @property
    def turns(self) -> list[Turn]:
        return self._branches[self.branch]

    @property
    def branches(self) -> dict[str, int]:
        """Turns of each branch, by name."""
        return {name: len(turns) for name, turns in self._branches.items()}

    def switch_branch(self, name: str) -> bool:
        """Go to a branch; a new name begins as a copy of this one. Whether it is new."""
        is_new = name not in self._branches
        if is_new:
            self._branches[name] = list(self.turns)
        self.branch = name
        return is_new

    @property
    def heads(self) -> dict[str, str | None]:
        """Id of each branch's last reply, by name; None where it has no turn."""
        return {name: turns[-1].reply.id if turns else None for name, turns in self._branches.items()}

    def clear(self) -> None:
        """Begin anew; the system prompt stays."""
        self.restore({MAIN_BRANCH: []}, MAIN_BRANCH)

    def restore(self, branches: Mapping[str, Sequence[Turn]], branch: str) -> None:
        """Take these branches for its own and go to one of them."""
        self._branches = {name: list(turns) for name, turns in branches.items()}
        self.branch = branch

    def undo(self) -> Turn:
        """Take the last turn back. Raises UsageError where there is none."""
        if not self.turns:
            raise UsageError("there is no turn yet")
        return self.turns.pop()

    def messages(self) -> list[Message]:
        """The whole talk, with the system message."""
        messages = self._system()
        for turn in self.turns:
            messages += (Message("user", turn.user), Message("assistant", turn.text))
        return messages

    def _system(self) -> list[Message]:
        return [Message("system", self.system)] if self.system else []

    @property
    def shown(self) -> Shown:
        """What of the turns before the last one was in its prompt."""
        return self.turns[-1].shown if self.turns else Shown()

    @property
    def evaluated(self) -> tuple[Segment, ...]:
        """All that the sequence held when the last reply ended; empty where another model wrote it."""
        return self.turns[-1].evaluated if self.turns else ()

    @property
    def n_tokens(self) -> int:
        """Tokens of the window that are in use."""
        return history.length(self.evaluated)

    # --- the next request ----------------------------------------------------------------------

    def plan(self, user: str, max_tokens: int, summarize: Summarize | None = None) -> Plan:
        """The request for a reply to `user`, after making room where the window is full.

        `summarize` is called where the policy wants a summary; what it raises is passed on.
        Raises ContextOverflow where the message does not fit, UsageError where the template refuses.
        """
        reserve = min(max_tokens, FIT_RESERVE, self.window // 2)
        shown, truncation = self.shown, None
        encoded = self._encode(user, shown)
        if len(encoded.ids) + reserve > self.window:
            shown, truncation = self._room(user, shown, reserve, summarize)
            fitted = self._encode(user, shown)
            if len(fitted.ids) + reserve > self.window:
                raise self._does_not_fit(user, len(encoded.ids), len(fitted.ids), reserve)
            encoded = fitted
        past, prompt_ids = history.split(encoded.ids, self.evaluated, self._chunk)
        opened = encoded.open_reasoning
        return Plan(user, past, prompt_ids, shown, opened, opened, truncation)

    def _room(
        self, user: str, before: Shown, reserve: int, summarize: Summarize | None
    ) -> tuple[Shown, Truncation | None]:
        """What of the turns is kept in the window; more than fits where no more can go."""

        def count(shown: Shown) -> int:
            return len(self._encode(user, shown).ids)

        limit = int(self.window * shortening.LOW_WATER) - reserve
        if self.overflow == "error":
            return before, None
        if self.overflow == "keep-ends":
            texts = [(turn.user, turn.text) for turn in self.turns]
            return shortening.cut(before, texts, count, limit, self.window - reserve)
        if self.overflow != "summarize":
            return shortening.drop(before, len(self.turns), count, limit, self.overflow)
        budget = summarizing.budget(self.window)
        shown, went = shortening.summarized(before, len(self.turns), count, limit - budget)
        if not went or count(shown) + budget + reserve > self.window:
            return before, None
        assert summarize is not None
        earlier = None if before.summary is None else before.summary.text
        text = summarize(self._summary_prompt(earlier, went, budget), budget).strip().rstrip("\ufffd")
        if not text:
            raise ContextOverflow("the window is full, and the model wrote no summary", _SUMMARY_HINT)
        return shortening.with_summary(before, shown, went, text, count)

    def _does_not_fit(self, user: str, n_before: int, n_after: int, reserve: int) -> ContextOverflow:
        end = f"and {reserve} are kept for the reply: they do not fit the window of {self.window}"
        alone = len(self._encode(user, Shown().without(range(len(self.turns)))).ids)
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
        variables = {"enable_thinking": False, **(self._variables or {})}

        def encode(texts: Sequence[Attachment]) -> EncodedPrompt:
            contents = [item.text for item in texts]
            turns = list(zip(contents[::2], contents[1::2], strict=True))
            message = Message("user", summarizing.request(earlier, turns, budget))
            template = self._template.within(self._deadline_s)
            return encode_prompt(template, [message], self._vocab, variables=variables)

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

    def plan_more(self) -> Plan:
        """The request that lets the last reply go on. Raises UsageError where it can't."""
        if not self.turns:
            raise UsageError("there is no reply yet")
        turn = self.turns[-1]
        if turn.ids is None:
            raise UsageError("another model wrote the last reply", "/regen has this one answer")
        if not turn.ids or self._vocab.is_eog(turn.ids[-1]):
            raise UsageError("the last reply is complete")
        past = history.normalized((*turn.evaluated, Segment("decoded", turn.ids[-1:])))
        if history.length(past) + 1 >= self.window:
            hint = "" if self.overflow == "error" else "the next message makes room"
            raise UsageError("the window is full: the reply can't go on", hint)
        inside = self._reasoning_at(turn.ids, turn.opened)[1]
        return Plan(turn.user, past, (), turn.shown, inside, turn.opened, None, continues=True)

    def text_read(self, ids: Sequence[int]) -> str:
        """Text of a prompt's ids, control tokens by their names."""
        return b"".join(map(self._vocab.token_text, ids)).decode("utf-8", "replace")

    def _encode(self, user: str, shown: Shown) -> EncodedPrompt:
        messages = self._system()
        n_before = len(messages)
        kept: dict[int, KeptReply] = {}
        for i in shown.left(len(self.turns)):
            turn, cut = self.turns[i], shown.cuts.get(i, CutTurn(None, None))
            messages.append(Message("user", turn.user if cut.user is None else cut.user))
            if cut.reply is None and turn.ids is not None:
                kept[len(messages)] = self._kept(turn.ids, turn.opened)
            messages.append(Message("assistant", turn.text if cut.reply is None else cut.reply))
        messages.append(Message("user", user))
        if shown.summary is not None:
            first = messages[n_before]
            content = summarizing.in_front_of(first.text, shown.summary.text)
            messages[n_before] = replace(first, content=content)
        template = self._template.within(self._deadline_s)
        return encode_prompt(template, messages, self._vocab, kept=kept, variables=self._variables)

    def _kept(self, ids: tuple[int, ...], opened: TagPair | None) -> KeptReply:
        if ids and self._vocab.is_eog(ids[-1]):
            ids = ids[:-1]
        n_reasoning, inside, pair = self._reasoning_at(ids, opened)
        if pair is None or inside is not None:  # no block, or one that was cut off: it stands as it is
            return KeptReply(ids)
        return KeptReply(ids, n_reasoning, pair, pair_opened=opened is None)

    def _reasoning_at(
        self, ids: Sequence[int], opened: TagPair | None
    ) -> tuple[int, TagPair | None, TagPair | None]:
        """(tokens of the reasoning block, the pair still open at the end, the block's pair)."""
        text, pair = b"", opened
        for n, token in enumerate(ids, 1):
            text += self._piece(token)
            if pair is None:
                start = text.lstrip()
                pair = next((p for p in self.pairs if start.startswith(p.opening.encode())), None)
                if pair is None and not any(p.opening.encode().startswith(start) for p in self.pairs):
                    return 0, None, None
            if pair is not None and pair.closing.encode() in text:
                return n, None, pair
        return len(ids), pair, pair

    def _piece(self, token: int) -> bytes:
        return self.tag_tokens.get(token) or self._vocab.piece(token)

    # --- the reply -----------------------------------------------------------------------------

    def add(self, plan: Plan, reply: Reply, stop: tuple[str, ...] = ()) -> Turn:
        """Take a reply in, whole or cut. A plan that continues replaces the last turn."""
        before = self.turns.pop() if plan.continues else None
        old_ids = (before.ids or ()) if before is not None else ()
        evaluated = (*plan.past, Segment("prompt", plan.prompt_ids), Segment("decoded", reply.tokens[:-1]))
        text, reasoning = reply.text or "", reply.reasoning or ""
        if before is not None:  # a character may lie across the cut
            text, reasoning = self.text_of(old_ids, reply.tokens, plan.opened, stop)
        turn = Turn(
            plan.user,
            text,
            reasoning,
            old_ids + reply.tokens,
            history.normalized(evaluated),
            plan.shown,
            plan.opened,
            (*(before.replies if before is not None else ()), reply),
        )
        self.turns.append(turn)
        return turn

    def text_of(
        self, old: Sequence[int], new: Sequence[int], opened: TagPair | None, stop: tuple[str, ...]
    ) -> tuple[str, str]:
        """Answer and reasoning of `old` tokens that went on with `new` ones, which `stop` may end."""
        matcher = StopMatcher(tuple(text.encode() for text in stop))
        data = b"".join(map(self._piece, old))
        data += b"".join(matcher.feed(self._piece(token))[0] for token in new) + matcher.finish()[0]
        splitter = ReasoningSplitter(self.pairs, opened)
        parts = splitter.feed(data.decode("utf-8", "replace")) + splitter.finish()
        answer = "".join(text for text, is_reasoning in parts if not is_reasoning)
        return answer, "".join(text for text, is_reasoning in parts if is_reasoning)
