"""Turns the merges of a GGUF vocabulary into ranks for tiktoken, or refuses.

llama.cpp merges a pair of symbols only if the file lists that pair; tiktoken merges any two whose
concatenation has a rank. What makes both the same: take a stretch of text whose two ends no merge has crossed
yet. The merges within it happened in the order in which they happen to that stretch alone, because the
lowest rank of all is the lowest rank within. So if it now consists of two symbols, they are the two that
merging this stretch alone comes to, and there is only one such pair per token. `rank_order` finds it for
every token: listed, its rank is the token's rank; not listed, tiktoken must not know the token.

Knows no pre-tokenizers, no Unicode and no files but the header it is given.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_TOKEN_CHARS = 1024
MAX_WORK = 400_000_000  # sum of squared token lengths; 18 million for a vocabulary of 256,000


class NotRepresentable(Exception):
    """Why tiktoken cannot stand in for this vocabulary."""


def _byte_characters() -> str:
    """GPT-2's printable stand-in for each byte, in byte order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(spare)) for byte in range(256))


BYTE_CHARACTERS = _byte_characters()
_TO_BYTES = {ord(char): chr(byte) for byte, char in enumerate(BYTE_CHARACTERS)}


def token_bytes(tokens: Sequence[bytes]) -> list[bytes | None]:
    """What each token stands for; None where its text is not in GPT-2's byte alphabet."""
    alphabet = frozenset(BYTE_CHARACTERS)
    texts = [token.decode("utf-8", "replace") for token in tokens]
    return [
        text.translate(_TO_BYTES).encode("latin-1") if text and alphabet.issuperset(text) else None
        for text in texts
    ]


def rank_order(tokens: Sequence[bytes], merges: Sequence[bytes], *, ignore_merges: bool) -> list[int]:
    """Ids of the tokens of two bytes and more that tiktoken must know, lowest rank first.

    `ignore_merges`: a piece that is a token is taken whole, whatever the merges make of it.
    Raises NotRepresentable.
    """
    alphabet = frozenset(BYTE_CHARACTERS)
    ids = {
        text: i
        for i, text in enumerate(token.decode("utf-8", "replace") for token in tokens)
        if text and alphabet.issuperset(text)
    }
    ranks: dict[str, int] = {}
    for i, merge in enumerate(merges):
        line = merge.decode("utf-8", "replace")
        if line.count(" ") != 1:
            raise NotRepresentable("a merge is not a pair of tokens")
        ranks.setdefault(line, i)
    results = {line.replace(" ", "") for line in ranks}
    _check_work(ids.keys() | results)

    for text in results - ids.keys():
        if " ".join(_merged(text, ranks)) in ranks:
            raise NotRepresentable(f"its merges make {text[:40]!r}, which is not a token")

    by_rank: dict[int, int] = {}
    whole: list[int] = []  # tokens that merges never make, but that a piece may be
    for text, i in ids.items():
        if len(text) < 2:
            continue
        parts = _merged(text, ranks)
        rank = ranks.get(" ".join(parts))
        if rank is not None:
            by_rank[rank] = i
        elif ignore_merges:
            if len(parts) == 2:
                raise NotRepresentable(f"its merges stop short of the token {text[:40]!r}")
            whole.append(i)
    return [by_rank[rank] for rank in sorted(by_rank)] + whole


def _check_work(texts: set[str]) -> None:
    work = 0
    for text in texts:
        if len(text) > MAX_TOKEN_CHARS:
            raise NotRepresentable(f"a token is longer than {MAX_TOKEN_CHARS} bytes")
        work += len(text) ** 2
    if work > MAX_WORK:
        raise NotRepresentable("its tokens are too long to be checked")


def _merged(text: str, ranks: dict[str, int]) -> list[str]:
    """Symbols of a text after merging it, down to two: the lowest rank first, the leftmost of equals."""
    parts = list(text)
    while len(parts) > 2:
        best, at = len(ranks), -1
        left = parts[0]
        for i in range(1, len(parts)):
            right = parts[i]
            rank = ranks.get(left + " " + right)
            if rank is not None and rank < best:
                best, at = rank, i - 1
            left = right
        if at < 0:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
