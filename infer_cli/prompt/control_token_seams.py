"""Where a chat template could glue text of its input into a control token.

A template that writes `<`, a name and `>` makes `<|im_end|>` of the name `|im_end|`. What of a control token
comes before the first character of the input, the template wrote: a prefix of the token that its source
leaves unfinished somewhere, or one that grows out of it by whole literals. The character after such a prefix
is a *seam*: text without any seam is in no control token.

Assumed of a template: it writes its own literals whole (strings, text between tags, parts of formats), names
of roles, numbers, the punctuation of JSON, and pieces of its input. One that cuts its own control tokens up
to put text into them is not seen through. What it does with its input (`replace`, `lower`, `reverse`, slices)
is not assumed: the rendering with guards shows it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_PLACEHOLDER = re.compile(r"%[^%a-zA-Z]*[a-zA-Z]|\{[^{}]*\}")
_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
# A quote, a tag, a place that `%` or `format` fills. White space may be trimmed.
_LITERAL_END = re.compile(r"\s*(?:['\"{%]|\Z)")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|([nrt]))")
_CHANGES_CASE = re.compile(r"(?:[|.'\"]|\bfilter)\s*(?:lower|upper|title|capitalize|swapcase|casefold)\b")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A template writes these without having them in its source: numbers, what JSON and lists are written with.
_PUNCTUATION = frozenset("{}[](): ,\n\\")  # no text of the input follows these, but a quote
_UNWRITTEN = ("-", ".", '"', "'", *"0123456789", *_PUNCTUATION)
# Letters that another letter's change of case can give: `K`, the Kelvin sign, is `k` in lower case.
_CHANGED_CASE = (
    "\u00df\u0130\u0131\u0149\u017f\u01f0\u1e96\u1e97\u1e98\u1e99\u1e9a\u1e9e\u212a"
    "\ufb00\ufb01\ufb02\ufb03\ufb04\ufb05\ufb06"
)


class Seams:
    """Of one template's source and some control tokens."""

    def __init__(self, source: str, tokens: Collection[str], words: Iterable[str]) -> None:
        """`words`: what the template may be given beside its input (roles)."""
        self._folds = _CHANGES_CASE.search(source) is not None
        self._tokens = [self._folded(token) for token in tokens if token]
        written = [self._folded(source), self._folded(_unescaped(source))]
        literals = {self._folded(text) for text in (*_literals(source), *words, *_UNWRITTEN)}
        # What is left of each token where text of the input could begin in it.
        begun = {
            (token, size)
            for token in self._tokens
            for size in _grown(token, _unfinished(token, written), literals)
        }
        self._rests = {token[size:] for token, size in begun}
        # Where its literals alone could make a token, a text that is nothing, or becomes it, joins them.
        unfinished = {token[size:] for token, size in begun if size}
        self.join = any(text.startswith(rest) for rest in unfinished for text in literals)
        # Whatever the template does with text, turn it round included, these are in a token made of it.
        self._ends = self._any_case({token[0] for token in self._tokens} | {t[-1] for t in self._tokens})
        self.chars = tuple(sorted(self._ends | self._any_case({rest[0] for rest in self._rests})))
        self._words = frozenset(_WORD.findall(source))
        # Matches strings that the template may look for in its input, of which no token can have a part.
        own = {text for text in _code_strings(source) if any(char in text for char in self.chars)}
        own = {text for text in own if not self._overlaps(text) and not self._overlaps(text.strip())}
        longest_first = sorted(own, key=lambda text: (-len(text), text))
        self.own_strings = re.compile("|".join(map(re.escape, longest_first))) if own else None

    def are_in(self, text: str) -> bool:
        """Whether such a character is in a text, or what stands around it may join."""
        return (self.join or any(char in text for char in self.chars)) and not self._is_known(text)

    def may_be_part(self, text: str) -> bool:
        """Whether a token could go on with the whole of this text, or begin or end in it."""
        return self.join or self.may_glue(text)

    def may_glue(self, text: str) -> bool:
        """As `may_be_part`, of a text that never becomes nothing."""
        if any(char in text for char in self._ends):
            return True
        text = self._folded(text).strip()
        return text != "" and any(rest.startswith(text) for rest in self._rests)

    def _is_known(self, text: str) -> bool:
        """Whether this is a word of the template's own, which it may look for, and no part of a token."""
        if text not in self._words:
            return False
        return not self._overlaps(text)

    def _overlaps(self, text: str) -> bool:
        text = self._folded(text)
        return any(_overlap(text, token) for token in self._tokens)

    def _folded(self, text: str) -> str:
        return text.lower() if self._folds else text

    def _any_case(self, chars: set[str]) -> set[str]:
        """Also what a change of case, if the template makes one, could turn into these."""
        if not self._folds:
            return chars
        found = {form for char in chars for form in (char, char.lower(), char.upper()) if len(form) == 1}
        for char in _CHANGED_CASE:
            if chars & {*char.lower(), *char.upper().lower(), *char.casefold()}:
                found.add(char)
        return found


@lru_cache(maxsize=32)
def seams_of(source: str, tokens: frozenset[str], words: frozenset[str]) -> Seams:
    """As `Seams`, made once: a batch asks for every row."""
    return Seams(source, tokens, words)


def _unfinished(token: str, written: Iterable[str]) -> set[int]:
    """Sizes of the token's prefixes with which a literal seems to end in a text; 0 is always one."""
    sizes = {0}
    for text in written:
        at = text.find(token[0])
        while at >= 0:
            size = 1
            while size < len(token) and text.startswith(token[size], at + size):
                size += 1
            if size < len(token) and _LITERAL_END.match(text, at + size):
                sizes.add(size)
            at = text.find(token[0], at + 1)
    return sizes


def _grown(token: str, sizes: set[int], literals: Collection[str]) -> set[int]:
    """With the sizes that these prefixes have after any number of literals."""
    usable = [text for text in literals if text and text in token]
    passed, pending = set(sizes), list(sizes)
    found = set(sizes)
    while pending:
        size = pending.pop()
        for text in usable:
            grown = size + len(text)
            if grown >= len(token) or not token.startswith(text, size):
                continue
            if text not in _PUNCTUATION:
                found.add(grown)
            if grown not in passed:
                passed.add(grown)
                pending.append(grown)
    return found


def _literals(source: str) -> Iterator[str]:
    """Texts that the template may write: strings, what stands between its tags, and parts of formats."""
    for text in _whole_literals(source):
        yield text
        yield from _PLACEHOLDER.split(text)


def _whole_literals(source: str) -> Iterator[str]:
    done = 0
    for tag in _TAG.finditer(source):
        yield from _data(source[done : tag.start()])
        done = tag.end()
    yield from _data(source[done:])
    yield from _code_strings(source)


def _code_strings(source: str) -> Iterator[str]:
    for tag in _TAG.finditer(source):
        yield from _strings(tag.group())
    yield from _strings(source)  # once more: a string may hold what ends a tag


def _data(text: str) -> Iterator[str]:
    yield from (text, text.strip(), text.lstrip(), text.rstrip())  # as with `{%-`


def _strings(code: str) -> Iterator[str]:
    for single, double in _LITERAL.findall(code):
        yield _unescaped(single or double)


def _unescaped(text: str) -> str:
    def char(match: re.Match[str]) -> str:
        x, u, long, octal, letter = match.groups()
        if letter:
            return {"n": "\n", "r": "\r", "t": "\t"}[letter]
        code = int(octal, 8) if octal else int(x or u or long, 16)
        return chr(code) if code < 0x110000 else match.group()

    return _ESCAPE.sub(char, text)


def _overlap(text: str, token: str) -> bool:
    """Whether a text put beside others could be a part of the token."""
    if text in token or token in text:
        return True
    longest = min(len(text), len(token) - 1)
    return any(
        text.endswith(token[:size]) or text.startswith(token[-size:]) for size in range(1, longest + 1)
    )
