"""The letter of a choice in a reply: "The answer is (B)", "B.", and not the article of "A dog"."""

from __future__ import annotations

import re

from infer_cli.evaluation.scorers.last import last_of

# L stands for the letters in both cases, U for them as the task names them, END for what must follow, OPEN
# for what may stand before. Repetitions are counted, so that the time grows with the text and not faster.
# After "A" no word may follow, which would make it an article; nor after "I". But "A is right" is an answer.
_END = r"(?!\w)(?:(?<![AaIi])|(?!\s{1,3}(?!(?:is|was|because|since|as|for|and|or)\b)[a-z]))"
_OPEN = r"""[\s(\[{*_"'`]{0,4}"""
_RULES = (
    # It is said to be the answer: "answer: B", "The correct option is **B**", "\boxed{B}".
    r"(?:\b(?i:answer|option|choice)(?:\s{0,3}(?:[:=]|\b(?i:is|was|would be|must be)\b)){1,2}"
    r"(?:\s{0,3}\b(?i:option|choice|letter)\b)?|\\boxed|\\text)OPEN(L)END",
    # The reply begins with it: "B", "(B) Paris", "B. Paris".
    r"\AOPEN(L)(?:[)\].:,*]|\s*\Z)",
    # It is marked: "(B)", "[B]", "**B**", "B)".
    r"(?:[(\[](?=L[)\]])|\*\*(?=L[.:)]?\*\*)|(?<!\w)(?=U\)(?!\w)))(L)",
    # It stands alone: "I choose B."
    r"(?<![\w'’])(U)(?!['’])END",
)


class LetterRules:
    """The rules for some letters. Where one finds nothing, the next is tried."""

    def __init__(self, letters: str) -> None:
        """Raises ValueError if these are not distinct letters or digits of ASCII."""
        both = letters.upper() + letters.lower()
        if not letters.isascii() or not letters.isalnum():
            raise ValueError(f"must be letters or digits without anything between, not {letters!r}")
        if len(set(letters.upper())) < len(letters):
            raise ValueError(f"has a letter twice: {letters!r}")
        self._named = {each: letter for letter in letters for each in (letter.upper(), letter.lower())}
        names = {"OPEN": _OPEN, "END": _END, "L": f"[{both}]", "U": f"[{letters}]"}
        self._rules = [
            re.compile(re.sub("OPEN|END|L|U", lambda name: names[name[0]], rule)) for rule in _RULES
        ]

    def first(self, text: str) -> str | None:
        """The first letter by the first rule that finds one, as the task names it."""
        for rule in self._rules:
            if found := rule.search(text):
                return self._named[found[1]]
        return None

    def last(self, text: str) -> str | None:
        for rule in self._rules:
            if found := last_of(rule.finditer(text)):
                return self._named[found[1]]
        return None
