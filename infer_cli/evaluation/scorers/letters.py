"""The letter of a choice in a reply: "The answer is (B)", "B.", and not the article of "A dog"."""

from __future__ import annotations

import re
from collections.abc import Iterable

from infer_cli.evaluation.scorers.last import last_of

# L stands for the letters in both cases, U for them as the task names them, END for what must follow, OPEN
# for what may stand before. Repetitions are counted, so that the time grows with the text and not faster; a
# rule begins with a set of characters, which `re` finds quickly.
# After "A" no word may follow, which would make it an article; nor after "I". But "A is right" is an answer.
_END = r"(?!\w)(?:(?<![AaIi])|(?!\s{1,3}(?!(?:is|was|because|since|as|for|and|or)\b)[a-z]))"
_OPEN = r"""[\s(\[{*_"'`]{0,4}"""
_SINGLE = r"(?<!\w[\s\S])"  # the character before this place begins a word

# The reply begins with it: "B", "(B) Paris", "B. Paris".
_BEGINNING = r"OPEN([L])(?:[)\].:,*]|\s*\Z)"
# It is said to be the answer: "answer: B", "The correct option is **B**", "\boxed{B}".
_STATED = (
    r"[AaOoCc\\](?:SINGLE(?i:(?<=a)nswer|(?<=o)ption|(?<=c)hoice)"
    r"(?:\s{0,3}(?:[:=]|\b(?i:is|was|would be|must be)\b)){1,2}(?:\s{0,3}\b(?i:option|choice|letter)\b)?"
    r"|(?<=\\)(?:boxed|text))OPEN([L])END"
)
# It is marked: "(B)", "[B]", "**B**", "B)".
_MARKED = r"[([*U](?:(?<=[([])([L])[)\]]|(?<=\*)\*([L])[.:)]?\*\*|SINGLE(?<=([U]))\)(?!\w))"
# It stands alone: "I choose B."
_ALONE = r"[U](?<![\w'’][\s\S])(?<=([U]))(?!['’])END"


class LetterRules:
    """The rules for some letters. Where one finds nothing, the next is tried."""

    def __init__(self, letters: str) -> None:
        """Raises ValueError if these are not distinct letters or digits of ASCII."""
        if not letters.isascii() or not letters.isalnum():
            raise ValueError(f"must be letters or digits without anything between, not {letters!r}")
        if len(set(letters.upper())) < len(letters):
            raise ValueError(f"has a letter twice: {letters!r}")
        self._named = {each: letter for letter in letters for each in (letter.upper(), letter.lower())}
        names = {"OPEN": _OPEN, "END": _END, "SINGLE": _SINGLE, "L": "".join(self._named), "U": letters}
        stated, beginning, marked, alone = (
            re.compile(re.sub("OPEN|END|SINGLE|L|U", lambda name: names[name[0]], rule))
            for rule in (_STATED, _BEGINNING, _MARKED, _ALONE)
        )
        self._first = (stated.search, beginning.match, marked.search, alone.search)
        self._last = (
            lambda text: last_of(stated.finditer(text)),
            beginning.match,
            lambda text: last_of(marked.finditer(text)),
            lambda text: last_of(alone.finditer(text)),
        )

    def first(self, text: str) -> str | None:
        """The first letter by the first rule that finds one, as the task names it."""
        return self._found(find(text) for find in self._first)

    def last(self, text: str) -> str | None:
        return self._found(find(text) for find in self._last)

    def _found(self, by_rule: Iterable[re.Match[str] | None]) -> str | None:
        found = next(filter(None, by_rule), None)
        return self._named[found[found.lastindex or 0]] if found else None
