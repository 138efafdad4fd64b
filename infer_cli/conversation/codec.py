"""A conversation's turns to the ids that one model reads, and sampled ids to text.

The template is rendered anew for every turn, with each reply's sampled ids in place of its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from infer_cli.backend.base import Vocab
from infer_cli.conversation import summarizing
from infer_cli.conversation.shortening import CutTurn, VisibleTurns
from infer_cli.conversation.turns import Turn
from infer_cli.prompt.encode import EncodedPrompt, encode_prompt, tag_tokens
from infer_cli.prompt.kept_replies import KeptReply
from infer_cli.prompt.template import ChatTemplate
from infer_cli.text.reasoning import ReasoningMeter, ReasoningSplitter, ReasoningTags, TagPair, pairs_of
from infer_cli.text.stream import StopMatcher
from infer_cli.types import Message


class TurnCodec:
    """`window` in tokens; `chunk`: prompt tokens a call, 1 where their shapes do not matter. `deadline_s`:
    the time that rendering one prompt may take."""

    def __init__(
        self,
        template: ChatTemplate,
        vocab: Vocab,
        window: int,
        chunk: int,
        variables: Mapping[str, object] | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self.vocab, self.window, self.chunk = vocab, window, chunk
        self.pairs = pairs_of(template.source)
        self._tag_tokens = tag_tokens(vocab, self.pairs) if self.pairs else {}
        self._template, self._variables, self._deadline_s = template, variables, deadline_s

    # --- turns to ids --------------------------------------------------------------------------

    def encode(
        self, system: str | None, turns: Sequence[Turn], visible: VisibleTurns, user: str
    ) -> EncodedPrompt:
        """The prompt of a message after what is visible of the turns. Raises UsageError."""
        messages = [Message("system", system)] if system else []
        n_before = len(messages)
        kept: dict[int, KeptReply] = {}
        for i in visible.left(len(turns)):
            turn, cut = turns[i], visible.cuts.get(i, CutTurn(None, None))
            messages.append(Message("user", turn.user if cut.user is None else cut.user))
            if cut.reply is None and turn.ids is not None:
                kept[len(messages)] = self._kept(turn.ids, turn.opened)
            messages.append(Message("assistant", turn.text if cut.reply is None else cut.reply))
        messages.append(Message("user", user))
        if visible.summary is not None:
            first = messages[n_before]
            content = summarizing.in_front_of(first.text, visible.summary.text)
            messages[n_before] = replace(first, content=content)
        template = self._template.within(self._deadline_s)
        return encode_prompt(template, messages, self.vocab, kept=kept, variables=self._variables)

    def encode_request(self, message: str) -> EncodedPrompt:
        """A message alone, to be answered without thinking. Raises UsageError."""
        variables = {"enable_thinking": False, **(self._variables or {})}
        template = self._template.within(self._deadline_s)
        return encode_prompt(template, [Message("user", message)], self.vocab, variables=variables)

    def _kept(self, ids: tuple[int, ...], opened: TagPair | None) -> KeptReply:
        if self.is_complete(ids):
            ids = ids[:-1]
        n_reasoning, inside, pair = self._reasoning_at(ids, opened)
        if pair is None or inside is not None:  # no block, or one that was cut off: it stands as it is
            return KeptReply(ids)
        return KeptReply(ids, n_reasoning, pair, pair_opened=opened is None)

    # --- ids to text ---------------------------------------------------------------------------

    def is_complete(self, ids: Sequence[int]) -> bool:
        """Whether the model ended a reply of these ids itself."""
        return bool(ids) and self.vocab.is_eog(ids[-1])

    def reasoning(self, opened: TagPair | None) -> ReasoningTags:
        """What the reasoning of a reply may stand between, after a prompt that left `opened` open."""
        return ReasoningTags(self.pairs, opened, self._tag_tokens)

    def open_pair(self, ids: Sequence[int], opened: TagPair | None) -> TagPair | None:
        """The pair that a reply of these ids has left open, after a prompt that left `opened` open."""
        return self._reasoning_at(ids, opened)[1]

    def n_reasoning(self, turn: Turn) -> int:
        """Tokens of reasoning that a turn's reply has, as a budget counts them."""
        meter = ReasoningMeter(self.pairs, turn.opened)
        for token in turn.ids or ():
            meter.feed(self._piece(token))
        return meter.n_tokens

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
        return self._tag_tokens.get(token) or self.vocab.piece(token)

    def prompt_text(self, ids: Sequence[int]) -> str:
        """Text of a prompt's ids, control tokens by their names."""
        return b"".join(map(self.vocab.token_text, ids)).decode("utf-8", "replace")

    def reply_text(
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
