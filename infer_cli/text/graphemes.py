"""Where a text can be cut: between graphemes, which are what a reader takes for characters (UAX #29)."""

from __future__ import annotations

from collections.abc import Iterator

_LONGEST = (
    1024  # code points that are looked at for one: far more than anyone's script, and 512 flags in a row
)
_LEAST_INDENT = 2  # of a line that goes on


def graphemes(text: str) -> Iterator[str]:
    from wcwidth import iter_graphemes

    return iter_graphemes(text)


def beginning(text: str, n_chars: int) -> str:
    """At most so many code points from the start of a text; whole graphemes only."""
    return text[: grapheme_start(text, n_chars)]


def grapheme_start(text: str, index: int) -> int:
    """Where the grapheme begins that a cut before `text[index]` would split; `index` where it splits none."""
    if not 0 < index < len(text):
        return index
    around = text[index - 1 : index + 1]
    if around.isascii():
        return index - (around == "\r\n")
    begin = max(index - _LONGEST, 0)
    *_, last = graphemes(text[begin : index + 1])
    return index + 1 - len(last)


def grapheme_end(text: str, index: int) -> int:
    """Where the grapheme ends that a cut before `text[index]` would split; `index` where it splits none."""
    start = grapheme_start(text, index)
    return index if start == index else start + len(next(graphemes(text[start : start + 2 * _LONGEST])))


def cells(text: str) -> int:
    """Columns of a terminal that a line of printable characters takes."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    return max(wcswidth(text), 0)


def shortened(text: str, most: int) -> str:
    """A line of printable characters in at most so many columns: the end gives way to an ellipsis."""
    if cells(text) <= most:
        return text
    kept, used = [], 1
    for grapheme in graphemes(text):
        used += cells(grapheme)
        if used > most:
            break
        kept.append(grapheme)
    return "".join(kept) + "…"


def wrapped(text: str, indent: int, width: int) -> list[str]:
    """Lines that leave `indent` columns free, cut between words.

    A word that finds no room begins further left, or is longer than the terminal is wide.
    """
    lines: list[str] = []
    line, is_empty = " " * indent, True
    for word in text.split():
        if cells(line) + (not is_empty) + cells(word) > width and not (is_empty and lines):
            lines.append(line.rstrip())
            line, is_empty = " " * max(min(indent, width - cells(word)), _LEAST_INDENT), True
        line += word if is_empty else " " + word
        is_empty = False
    return [*lines, line]
