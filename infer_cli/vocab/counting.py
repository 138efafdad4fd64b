"""Counts the tokens of texts, files and streams that need not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from infer_cli.errors import UsageError

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.models.gguf.header import Header
    from infer_cli.vocab.tiktoken_tokenizer import TiktokenTokenizer


@dataclass(frozen=True)
class CountedInput:
    """A text to be read once. `name` is None for the arguments and for a lone stdin."""

    name: str | None
    blocks: Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class CountedText:
    """A model's vocabulary. `vocab` loads llama.cpp's; `exact` does without it where it can."""

    name: str
    window: int | None
    vocab: Callable[[], Vocab]
    exact: TiktokenTokenizer | None
    without_exact: Literal["llama.cpp", "fake"]
    header: Header | None


def read_once(load: Callable[[], Vocab]) -> Callable[[], Vocab]:
    import threading

    lock = threading.Lock()
    loaded: list[Vocab] = []

    def get() -> Vocab:
        with lock:
            if not loaded:
                loaded.append(load())
            return loaded[0]

    return get


class TokenCounter:
    """Tokenizes inputs; `method` says by what, once they are read."""

    def __init__(self, source: CountedText, *, add_special: bool, parse_special: bool) -> None:
        self.source = source
        self._exact = None if parse_special else source.exact
        self._parse_special = parse_special
        self._before, self._after = self._frame() if add_special else ([], [])

    def _frame(self) -> tuple[list[int], list[int]]:
        from infer_cli.vocab.tiktoken_tokenizer import frame

        return frame(self.source.header, self.source.vocab())

    @property
    def method(self) -> str:
        if self._exact is None or self._exact.n_by_llama_cpp:
            return self.source.without_exact
        return "tiktoken"

    def ids(self, item: CountedInput) -> Iterator[list[int]]:
        """The ids of an input, a stretch at a time."""
        yield self._before
        if self._exact is not None:
            from infer_cli.system.processors import default_threads

            yield from self._exact.tokenize_blocks(item.blocks(), default_threads())
        else:
            from infer_cli.vocab.tiktoken_tokenizer import joined

            text = joined(item.blocks())
            vocab = self.source.vocab()
            yield vocab.tokenize_special(text) if self._parse_special else vocab.tokenize(text)
        yield self._after

    def count(self, item: CountedInput) -> int:
        if self._exact is None:
            return sum(map(len, self.ids(item)))
        from infer_cli.system.processors import default_threads

        n = self._exact.count_blocks(item.blocks(), default_threads())
        return len(self._before) + n + len(self._after)

    def text_of(self, ids: Sequence[int]) -> bytes:
        """What tokens stand for, control tokens included. Raises UsageError for an id that there is not."""
        source = self.source
        if source.exact is not None and source.header is None:  # an encoding without a model
            n_tokens, text = source.exact.n_tokens, source.exact.piece
        else:
            vocab = source.vocab()
            n_tokens, text = vocab.n_tokens, vocab.token_text
        for token in ids:
            if token >= n_tokens:
                raise UsageError(
                    f"{source.name} has no token {token}", f"its ids are below {n_tokens}: are they its own?"
                )
        return b"".join(map(text, ids))

    def piece(self, token: int) -> bytes:
        if self._exact is not None and token not in (*self._before, *self._after):
            return self._exact.piece(token)
        return self.source.vocab().token_text(token)
