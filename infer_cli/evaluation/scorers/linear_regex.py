"""Regular expressions of tasks, in time that grows with the text and not faster: RE2 never backtracks."""

from __future__ import annotations

import re
from collections.abc import Iterator

import re2

MOST_MEMORY = 1 << 20  # of a compiled pattern, in bytes
# What the matches in one text may cost together, in characters read. To find the next match RE2 may read to
# the end of the text, each time; and where a pattern needs too many states, it takes longer for each part.
MOST_WORK = 500_000_000
_PARTS = 10  # of a compiled pattern, that cost as much as reading a character does

PATTERN_HINT = "write it with what RE2 has, which looks neither ahead nor back"

_SURROGATES = re.compile("[\ud800-\udfff]")
_NOT_IN_LINEAR_TIME = (
    (r"\(\?<[=!]", "look-behind"),
    (r"\(\?[=!]", "look-ahead"),
    (r"\(\?>", "an atomic group"),
    (r"\(\?\(", "a condition"),
    (r"[*+?}]\+", "a possessive quantifier"),
    (r"\\[1-9]|\(\?P=", "a back-reference"),
)


class PatternError(ValueError):
    """A pattern that can't be used. The message says why."""


class TextTooLong(ValueError):
    """A text is too long to look for all that a pattern might find in it."""


class LinearPattern:
    """A pattern, compiled once. Raises PatternError if it can't be."""

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        options = re2.Options()
        options.log_errors = False
        options.max_mem = MOST_MEMORY
        options.case_sensitive = not ignore_case
        try:
            self._compiled = re2.compile(pattern, options)
        except re2.error as e:
            raise PatternError(_reason(e, pattern)) from None
        except UnicodeEncodeError:
            raise PatternError("has half of a surrogate pair") from None
        self.n_groups: int = self._compiled.groups
        self._n_parts: int = self._compiled.programsize

    def found_in(self, text: str) -> bool:
        """Raises TextTooLong, as the other methods do."""
        self._spend(MOST_WORK, text)
        return self._compiled.search(_encodable(text)) is not None

    def is_all_of(self, text: str) -> bool:
        self._spend(MOST_WORK, text)
        return self._compiled.fullmatch(_encodable(text)) is not None

    def matches(self, text: str, group: int) -> Iterator[str]:
        """What `group` matched, wherever it did, from left to right."""
        left = self._spend(MOST_WORK, text)
        for match in self._compiled.finditer(_encodable(text)):
            start, end = match.span(group)
            if start >= 0:
                yield text[start:end]
            left = self._spend(left, text)

    def _spend(self, left: int, text: str) -> int:
        """How much work is left after one more search in `text`."""
        left -= len(text) * (_PARTS + self._n_parts) // _PARTS
        if left < 0:
            raise TextTooLong(f"{len(text)} characters are too many for the pattern")
        return left


def _encodable(text: str) -> str:
    """`text` with another character in the place of each half of a surrogate pair, which UTF-8 has not."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _reason(error: Exception, pattern: str) -> str:
    said = error.args[0]
    said = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    if said.startswith(("invalid perl operator", "invalid escape sequence", "bad repetition operator")):
        for construct, name in _NOT_IN_LINEAR_TIME:
            if found := re.search(construct, pattern):
                return f"has {name}, {found[0]}, which can't be matched in linear time"
    return f"is not a regular expression of RE2: {said}"
