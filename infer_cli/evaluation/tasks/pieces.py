"""A text in pieces of bounded length, each of which can be scored after the one before it.

The tokenizer has no say, so that models are asked the same. A piece ends where a word does: a context's last
white space is tokenized with what follows it, and would be counted twice.
"""

from __future__ import annotations

import re

MOST_CHARS = 2000
_BREAK = re.compile(r"\s+")


def pieces_of(text: str, most: int = MOST_CHARS) -> list[str]:
    """Pieces that make up `text`. Each is at most `most` characters long, but for white space that is longer;
    it begins with a line end where there is one, else with a space, else anywhere."""
    pieces, start = [], 0
    while len(text) - start > most:
        cut = _cut(text, start, start + most)
        if cut == len(text):
            break
        pieces.append(text[start:cut])
        start = cut
    return [*pieces, text[start:]] if start < len(text) else pieces


def _cut(text: str, start: int, end: int) -> int:
    """Where the piece from `start` ends: behind a character that is no space."""
    lines, words = start, start
    for space in _BREAK.finditer(text, start, end + 1):
        if space.start() > start and space.start() <= end:
            words = space.start()
            if "\n" in space[0]:
                lines = space.start()
    if lines > start:
        return lines
    if words > start:
        return words
    cut = end
    while cut > start and text[cut - 1].isspace():
        cut -= 1
    if cut > start:
        return cut
    while cut < len(text) and text[cut].isspace():  # nothing but spaces
        cut += 1
    return min(cut + 1, len(text))
