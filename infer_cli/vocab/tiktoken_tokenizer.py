"""Token ids without llama.cpp: a `tiktoken.Encoding` made of a GGUF's own vocabulary, where that is exact.

Exact is proven per vocabulary: its merges are turned into ranks that leave no choice (`merges`), Unicode
categories of tiktoken are compared with llama.cpp's, and a probe text, every token's own text among it, must
give llama.cpp's ids. The verdict is kept in the cache directory, under a hash of vocabulary and versions.

What tiktoken can't do for one text (bytes that are not UTF-8, bytes without a token, runs so long that its
regular expressions give up) llama.cpp does. Knows no weights, no prompts and no output.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from infer_cli.backend.pretokenizers import CUT, LINE_CUT, PreTokenizer
from infer_cli.errors import OutOfMemory, UsageError
from infer_cli.system.memory import available_memory
from infer_cli.vocab.merges import token_bytes

if TYPE_CHECKING:
    import tiktoken

    from infer_cli.backend.base import Vocab
    from infer_cli.models.gguf.header import Header

_T = TypeVar("_T")

VERSION = 1  # of the proof and of the file that keeps its outcome
TOKENS, TYPES, MERGES = (f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges"))
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # llama_token_type
# Tokens that llama.cpp makes USER_DEFINED whatever the file says (llama-vocab.cpp, gpt-oss).
MADE_USER_DEFINED = frozenset({b"<|channel|>", b"<|message|>", b"<|start|>", b"<|constrain|>"})
_NEVER_IN_UTF8 = bytes([0xC0, 0xC1, *range(0xF5, 0x100)])

# What reads as UTF-8 of a number beyond U+10FFFF: llama.cpp ends the process over it.
_BEYOND_UNICODE = re.compile(rb"\xf4[\x90-\xbf][\x80-\xbf]{2}|[\xf5-\xf7][\x80-\xbf]{3}")

BLOCK_BYTES = 1 << 20
_ALWAYS_HELD = 64 << 20
_MEMORY_A_BYTE = 45  # of a text that is tokenized at once: 42 where each byte is a token
_NEAR_END = 1 << 12
_BEFORE_CUT = 8  # bytes in which a cut may begin, at least
_CROSSES_A_CUT = re.compile(rb"[A-Za-z] |\n[^\s]")


class NotText(UsageError):
    """Bytes that no tokenizer here can read."""


class TooLongAtOnce(OutOfMemory):
    """A text without a place to cut it that is more than the memory can hold as tokens."""


@dataclass(frozen=True)
class Verdict:
    """Whether tiktoken is exact for a vocabulary, and if so what its encoding is made of.

    `order`: ids of the tokens of two bytes and more, lowest rank first. `added`: ids of the tokens that are
    found in text before anything else, in llama.cpp's order.
    """

    exact: bool
    reason: str = ""
    order: tuple[int, ...] = ()
    added: tuple[int, ...] = ()


class TiktokenTokenizer:
    """`backend.base.Vocab.tokenize` by tiktoken. Safe to call from any thread.

    `load_vocab` gives llama.cpp's vocabulary; it is called at most once, and only if needed.
    `n_by_llama_cpp` counts the texts that llama.cpp tokenized.
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        pre: PreTokenizer,
        order: Sequence[int],
        added: Sequence[int],
        load_vocab: Callable[[], Vocab],
    ) -> None:
        import tiktoken

        meanings = token_bytes(tokens)
        byte_ids = {meaning[0]: i for i, meaning in enumerate(meanings) if meaning and len(meaning) == 1}
        self._ids = [byte_ids.get(byte, -1) for byte in range(256)] + list(order)
        ranks = {bytes([byte]): byte for byte in range(256)}
        for rank, token in enumerate(order, 256):
            meaning = meanings[token]
            assert meaning is not None
            ranks[meaning] = rank
        self._encoding: tiktoken.Encoding = tiktoken.Encoding(
            "gguf", pat_str=pre.pattern, mergeable_ranks=ranks, special_tokens={}
        )
        self._no_token = bytes(b for b in range(256) if b not in byte_ids and b not in _NEVER_IN_UTF8)
        self._added = [(tokens[i], i) for i in added]
        self._added_starts = sorted({text[:4] for text, _ in self._added})
        self._tokens, self._meanings = tokens, meanings
        crossing = any(_CROSSES_A_CUT.search(text) for text, _ in self._added)
        self._cut = None if crossing else CUT if pre.splits_words else LINE_CUT
        self._load_vocab = load_vocab
        self._lock = threading.Lock()
        self._vocab: Vocab | None = None
        self.n_by_llama_cpp = 0

    def tokenize(self, text: bytes) -> list[int]:
        """Ids of plain text: no special token is added or recognized, USER_DEFINED ones match."""
        ids: list[int] = []
        table = self._ids
        for part in self._parts(text):
            if isinstance(part, int):
                ids.append(part)
                continue
            ranks = self._ranks(part)
            if ranks is None:
                return self._by_llama_cpp(text)
            ids += [table[rank] for rank in ranks]
        return ids

    def count(self, text: bytes) -> int:
        """How many ids `tokenize` gives."""
        n = 0
        for part in self._parts(text):
            ranks = [part] if isinstance(part, int) else self._ranks(part)
            if ranks is None:
                return len(self._by_llama_cpp(text))
            n += len(ranks)
        return n

    def tokenize_blocks(self, blocks: Iterable[bytes], n_threads: int) -> Iterator[list[int]]:
        """Ids of one long text that comes in blocks, a list for each stretch, in order.

        The ids are those of the whole text. Memory holds a few blocks where the text has words or lines.
        """
        return self._in_threads(self.tokenize, blocks, n_threads)

    def count_blocks(self, blocks: Iterable[bytes], n_threads: int) -> int:
        """How many ids `tokenize_blocks` gives."""
        return sum(self._in_threads(self.count, blocks, n_threads))

    def _in_threads(
        self, work: Callable[[bytes], _T], blocks: Iterable[bytes], n_threads: int
    ) -> Iterator[_T]:
        """Results for the stretches of a text, in order. tiktoken works without Python's lock."""
        from concurrent.futures import Future, ThreadPoolExecutor

        with ThreadPoolExecutor(n_threads, "infer-tokenize") as pool:
            running: deque[Future[_T]] = deque()
            for stretch in self._stretches(blocks):
                running.append(pool.submit(work, stretch))
                if len(running) > n_threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()

    @property
    def n_tokens(self) -> int:
        return len(self._tokens)

    def piece(self, token: int) -> bytes:
        """Bytes that a token of some text stands for."""
        meaning = self._meanings[token]
        return self._tokens[token] if meaning is None else meaning

    def _stretches(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        held = _Held()
        for block in blocks:
            # Only what is new can have a new cut; a few bytes before it may begin one.
            end = self._last_cut(held.tail, block) if self._cut is not None else None
            held.add(block)
            if end is not None:
                text = held.taken()
                end += len(text) - len(block)
                yield text[:end]
                held.add(text[end:])
        if text := held.taken():
            yield text

    def _last_cut(self, tail: bytes, block: bytes) -> int | None:
        """The last cut that `block` brings, as an index into it; below 0 where the cut is in `tail`."""
        assert self._cut is not None
        text = tail + block
        for start in (max(0, len(text) - _NEAR_END), 0):
            ends = [match.end() for match in self._cut.finditer(text, start)]
            if ends:
                return ends[-1] - len(tail)
        return None

    def _parts(self, text: bytes) -> list[bytes | int]:
        """The text with added tokens taken out, the longest first everywhere (`tokenizer_st_partition`)."""
        starts = tuple(start for start in self._added_starts if start in text)
        parts: list[bytes | int] = [text] if text else []
        if not starts:
            return parts
        for added, token in self._added:
            if not added.startswith(starts) or added not in text:
                continue
            split: list[bytes | int] = []
            for part in parts:
                if isinstance(part, int) or added not in part:
                    split.append(part)
                    continue
                for i, piece in enumerate(part.split(added)):
                    if i:
                        split.append(token)
                    if piece:
                        split.append(piece)
            parts = split
        return parts

    def _ranks(self, text: bytes) -> list[int] | None:
        """tiktoken's ranks; None where it is not to be trusted with this text."""
        if self._no_token and len(text.translate(None, self._no_token)) != len(text):
            return None
        try:
            ranks = self._encoding.encode_ordinary(text.decode("utf-8"))
        except UnicodeDecodeError:
            return None
        except BaseException as e:
            if type(e).__name__ != "PanicException":  # Rust's, and no Exception
                raise
            return None
        # tiktoken drops what its pattern does not match.
        return ranks if self._encoding.decode_bytes(ranks) == text else None

    def _by_llama_cpp(self, text: bytes) -> list[int]:
        check_text(text)
        with self._lock:
            if self._vocab is None:
                self._vocab = self._load_vocab()
            self.n_by_llama_cpp += 1
        return self._vocab.tokenize(text)


class _Held:
    """Blocks of a text that wait to be tokenized at once."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._n_bytes = 0
        self.tail = b""

    def add(self, block: bytes) -> None:
        """Raises TooLongAtOnce."""
        self._blocks.append(block)
        self._n_bytes += len(block)
        self.tail = (self.tail + block[-_BEFORE_CUT:])[-_BEFORE_CUT:]
        available = available_memory() if self._n_bytes > _ALWAYS_HELD else None
        if available is not None and self._n_bytes * _MEMORY_A_BYTE > available:
            from infer_cli.settings.sizes import size_text

            raise TooLongAtOnce(
                f"{size_text(self._n_bytes)} have to be tokenized at once, and there is no memory for that",
                "count it in parts, or see whether it is a text: texts are cut between words and lines",
            )

    def taken(self) -> bytes:
        """All of it; nothing is held after."""
        text = b"".join(self._blocks)
        self._blocks, self._n_bytes, self.tail = [], 0, b""
        return text


def joined(blocks: Iterable[bytes]) -> bytes:
    """A text that llama.cpp has to tokenize at once. Raises NotText, TooLongAtOnce."""
    held = _Held()
    for block in blocks:
        held.add(block)
    text = held.taken()
    check_text(text)
    return text


def check_text(text: bytes) -> None:
    """Raises NotText for bytes that llama.cpp can't take. What else is no UTF-8 it takes for U+FFFD."""
    if found := _BEYOND_UNICODE.search(text):
        raise NotText(
            f"the bytes {found[0].hex(' ')} are beyond the last character of Unicode", "give a text file"
        )


def frame(header: Header | None, vocab: Vocab) -> tuple[list[int], list[int]]:
    """Ids that llama.cpp puts before and after a text where special tokens are asked for."""
    kind = None if header is None else header.metadata.get("tokenizer.ggml.model")
    if kind in ("rwkv", "plamo2"):
        return [], []
    before = [vocab.bos] if vocab.add_bos and vocab.bos is not None else []
    if header is not None and kind == "bert":  # [CLS] and [SEP], whatever the file says of BOS and EOS
        separator = header.get_int("tokenizer.ggml.seperator_token_id")  # the format's own spelling
        bos = 101 if vocab.bos is None else vocab.bos
        return [bos], [102 if separator is None else separator]
    return before, [vocab.eos] if vocab.add_eos and vocab.eos is not None else []


# --- the proof ------------------------------------------------------------------------------------


# --- the cache ------------------------------------------------------------------------------------
