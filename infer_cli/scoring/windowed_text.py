"""A text as tokens, cut into the windows that are scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from infer_cli.errors import UsageError
from infer_cli.prompt.messages import check_unicode
from infer_cli.prompt.pairs import prefix_token
from infer_cli.scoring.windows import Span, Windowing, spans_of
from infer_cli.types import ScoreRequest

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab


class WindowedText:
    """`spans` are of `tokens`. `head`: the token that stands in place of each window's first one, if any."""

    def __init__(
        self, windowing: Windowing, tokens: Sequence[int], head: int | None, vocab: Vocab, n_bytes: int
    ) -> None:
        """`n_bytes`: of the text. Rolling: `tokens` begin with the prefix token."""
        self.windowing, self.tokens, self.head = windowing, tokens, head
        self.spans = spans_of(windowing, len(tokens) - windowing.rolling)
        self._piece_bytes = cache(lambda token: len(vocab.piece(token)))
        self._is_whole = windowing.rolling and windowing.limit is None
        self._n_bytes = n_bytes

    @property
    def n_read(self) -> int:
        """Tokens that the largest window reads: its last one is only predicted."""
        return max(span.end - span.start for span in self.spans) - 1

    @property
    def n_scored(self) -> int:
        """Tokens of all windows together."""
        return sum(span.n_scored for span in self.spans)

    def ids(self, span: Span) -> tuple[int, ...]:
        ids = tuple(self.tokens[span.start : span.end])
        return ids if self.head is None else (self.head, *ids[1:])

    def request(self, number: int, prefix: str = "") -> ScoreRequest:
        """For one of the windows; its number, after the prefix, is the id."""
        span = self.spans[number]
        return ScoreRequest(f"{prefix}{number}", self.ids(span), span.first)

    def requests(self, prefix: str = "") -> Iterator[tuple[int, ScoreRequest]]:
        """Each window's number and request."""
        for number in range(len(self.spans)):
            yield number, self.request(number, prefix)

    def scored_bytes(self, n_windows: int) -> int:
        """Bytes that the tokens stand for which the first so many windows score."""
        if self._is_whole and n_windows == len(self.spans):
            return self._n_bytes  # SentencePiece's tokens may have a space before the text
        scored = (token for span in self.spans[:n_windows] for token in self._scored(span))
        return sum(map(self._piece_bytes, scored))

    def _scored(self, span: Span) -> Sequence[int]:
        return self.tokens[span.start + span.first : span.end]


def cut_text(text: str, windowing: Windowing, vocab: Vocab, n_ctx_train: int) -> WindowedText:
    """A plain text's windows; control tokens in it stay text.

    Disjoint and strided windows: as llama-perplexity reads a file, without the line end that ends it, and
    with BOS before it where the vocabulary adds one. Then BOS also stands in place of the first token of each
    disjoint window; not of strided ones, where `perplexity_v2` puts it too late. Rolling: all of the text
    after the prefix token (BOS, else EOS).
    Raises UsageError for a text that is too short, and where `Windowing.check` does.
    """
    windowing.check(n_ctx_train)
    check_unicode(text, "the text")
    if not text:
        raise UsageError("the text is empty", "give one of which a window can be scored")
    bos = vocab.bos if vocab.add_bos else None
    if windowing.rolling:
        head, data = None, text.encode()
        tokens = [prefix_token(vocab), *vocab.tokenize(data)]
    else:
        head, data = bos if windowing.stride is None else None, text.removesuffix("\n").encode()
        tokens = vocab.tokenize(data)
        if bos is not None and tokens[:1] != [bos]:
            tokens = [bos, *tokens]
    n_tokens = len(tokens) - windowing.rolling
    if n_tokens < windowing.least_tokens:
        raise UsageError(
            f"the text is {n_tokens} tokens, and at least {windowing.least_tokens} are needed",
            "give a longer text, a smaller window with --ctx, or --rolling, which scores any text",
        )
    return WindowedText(windowing, tokens, head, vocab, len(data))
