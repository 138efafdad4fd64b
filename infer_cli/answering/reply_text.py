"""A reply's text on its way from bytes to shown characters, with its reasoning apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from infer_cli.text.reasoning import ReasoningSplitter, TagPair
from infer_cli.text.stream import Utf8Stream
from infer_cli.types import Delta, Token


class ReplyText:
    """Fed with a reply's tokens as they come, or with all of its bytes at the end. The text is the same."""

    def __init__(self, pairs: Sequence[TagPair], open_reasoning: TagPair | None, sample: int = 0) -> None:
        self._utf8 = Utf8Stream()
        self._splitter = ReasoningSplitter(pairs, open_reasoning)
        self._sample = sample
        self._answer: list[str] = []
        self._reasoning: list[str] = []

    @property
    def answer(self) -> str:
        """All so far that is no reasoning."""
        return "".join(self._answer)

    @property
    def reasoning(self) -> str | None:
        """The reasoning so far, None where there is none."""
        return "".join(self._reasoning) or None

    @property
    def ends_in_reasoning(self) -> bool:
        """Whether the reasoning has not come to its end."""
        return self._splitter.inside is not None

    @property
    def reasoning_is_over(self) -> bool:
        """Whether all that comes is the answer."""
        return self._splitter.is_over

    def show(self, tokens: Sequence[Token]) -> Iterator[Delta]:
        """What can be shown now. The first delta names the tokens, whether or not text came with them; the
        log-probabilities are those of a token that comes alone."""
        parts = self._keep(self._splitter.feed(self._utf8.feed(b"".join(token.text for token in tokens))))
        (text, is_reasoning), *rest = parts or [("", False)]
        logprobs = tokens[0].logprobs if len(tokens) == 1 else None
        yield Delta(self._sample, text, is_reasoning, tuple(token.token for token in tokens), logprobs)
        for text, is_reasoning in rest:
            yield Delta(self._sample, text, is_reasoning)

    def finish(self, data: bytes) -> Iterator[Delta]:
        """The rest, once all tokens are there: `data` is what none of them has shown."""
        parts = self._splitter.feed(self._utf8.feed(data) + self._utf8.finish())
        for text, is_reasoning in self._keep(parts + self._splitter.finish()):
            yield Delta(self._sample, text, is_reasoning)

    def _keep(self, parts: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
        for text, is_reasoning in parts:
            (self._reasoning if is_reasoning else self._answer).append(text)
        return parts


def whole_text(data: bytes, pairs: Sequence[TagPair], open_reasoning: TagPair | None) -> ReplyText:
    """The text of a reply that has ended."""
    text = ReplyText(pairs, open_reasoning)
    for _ in text.finish(data):
        pass
    return text
