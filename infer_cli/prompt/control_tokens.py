"""Control tokens in text, and guards that keep a user's text from becoming one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from infer_cli.errors import ModelInvalid, UsageError
from infer_cli.prompt.control_token_seams import Seams

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab


_NONCHARACTERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))

HasSeam: TypeAlias = Callable[[object, Seams], bool]

_C_SPACE = " \t\n\v\f\r"  # isspace() of the C locale, as llama.cpp strips

CONTROLS_HINT = (
    "take what looks like the model's markup out of messages, tools and variables (names too),"
    " or give another --chat-template"
)


class Control(NamedTuple):
    """As `ControlToken`, hashable and decoded."""

    text: str
    id: int
    lstrip: bool
    rstrip: bool


def controls_of(vocab: Vocab) -> Controls:
    # A text that is not UTF-8 can't be guarded in a `str`, so such a token is never recognized.
    return _build_controls(
        tuple(
            Control(token.text.decode(), token.id, token.lstrip, token.rstrip)
            for token in vocab.control_tokens()
            if token.text and _is_utf8(token.text)
        )
    )


@lru_cache(
    maxsize=4
)  # compiling hundreds of tokens for every prompt of a batch would cost more than the prompts
def _build_controls(tokens: tuple[Control, ...]) -> Controls:
    return Controls(tokens)


class Controls:
    """Control tokens of a vocabulary, found in text as llama.cpp's `tokenizer_st_partition` finds them."""

    def __init__(self, tokens: Sequence[Control]) -> None:
        # By descending length in bytes; of equal texts the first.
        self._tokens: dict[str, Control] = {}
        for token in sorted(tokens, key=lambda token: -len(token.text.encode())):
            self._tokens.setdefault(token.text, token)
        self.texts = tuple(self._tokens)
        self._texts_by_id = {token.id: text for text, token in self._tokens.items()}
        self.pattern = _longest_of(self.texts)

    def text_of(self, token: int) -> str:
        return self._texts_by_id[token]

    def partition(self, text: str) -> list[str | int]:
        """Ids of control tokens and the text between them, in order."""
        spans: list[tuple[int, int] | int] = [(0, len(text))] if text else []
        for token in self._present(text):
            split: list[tuple[int, int] | int] = []
            for span in spans:
                if isinstance(span, int):
                    split.append(span)
                else:
                    split.extend(_split(text, *span, token))
            spans = split
        return [span if isinstance(span, int) else text[span[0] : span[1]] for span in spans]

    def _present(self, text: str) -> list[Control]:
        """Tokens whose text occurs, overlapped or not, longest first."""
        found = {match.group() for match in _occurrences(self.pattern, text)}
        # The pattern gives the longest text at a place; shorter ones there are its beginnings.
        begun = {text[:size] for text in found for size in range(1, len(text) + 1)}
        return [token for text, token in self._tokens.items() if text in begun]


def _split(text: str, start: int, end: int, token: Control) -> Iterator[tuple[int, int] | int]:
    """One raw fragment, cut at every occurrence of a token; its attributes eat white space beside it."""
    while (match := text.find(token.text, start, end)) >= 0:
        left_end = match
        while token.lstrip and left_end > start and text[left_end - 1] in _C_SPACE:
            left_end -= 1
        if left_end > start:
            yield start, left_end
        yield token.id
        start = match + len(token.text)
        while token.rstrip and start < end and text[start] in _C_SPACE:
            start += 1
    if start < end:
        yield start, end


class Guards:
    """Breaks up control tokens' texts in user text, reversibly.

    Raises UsageError where the input uses up Unicode's 32 noncharacters.
    """

    def __init__(self, controls: Controls, inputs: Sequence[str], called: str, n_spare: int = 0) -> None:
        """`called`: how an error calls the template (`ChatTemplate.called`)."""
        self._called = called
        used = (*inputs, *controls.texts)
        free = (
            char
            for char in _NONCHARACTERS
            if not any(form in text for form in (char, *escapes_of(char)) for text in used)
        )
        # A token of one character can't be broken up: another noncharacter stands in for it.
        singles = [text for text in controls.texts if len(text) == 1]
        chosen = list(islice(free, 1 + len(singles) + n_spare))
        if len(chosen) < 1 + len(singles) + n_spare:
            raise UsageError(
                "the messages hold too many of Unicode's noncharacters (U+FDD0 to U+FDEF)",
                "remove them: they are not for text",
            )
        self._guard = chosen[0]
        self._stand_ins = list(zip(singles, chosen[1 : 1 + len(singles)], strict=True))
        # What their escapes mean. How a character is escaped that is no plain one, nobody knows: None.
        meant = {stand_in: char if is_plain(char) else None for char, stand_in in self._stand_ins}
        meant[self._guard] = ""
        self._meant = {form: text for char, text in meant.items() for form in escapes_of(char)}
        self._escaped = re.compile(rf"(?<!\\)(\\*)({'|'.join(self._meant)})")
        self.spare = chosen[1 + len(singles) :]  # noncharacters for other uses
        self._pattern = controls.pattern

    def guard(self, text: object) -> object:
        """Text without any control token's text: a guard follows the first character of each occurrence."""
        if not isinstance(text, str):
            return text
        parts: list[str] = []
        done = 0
        for match in _occurrences(self._pattern, text):
            cut = match.start() + 1
            parts += (text[done:cut], self._guard)
            done = cut
        return self._stand_in("".join((*parts, text[done:])) if parts else text)

    def guard_seams(
        self, value: object, seams: Seams, has_seam: HasSeam, but: re.Pattern[str] | None
    ) -> object:
        """Text with guards around every seam, `but` what that matches; so is what else the template may write
        into a token."""
        if not has_seam(value, seams):
            return self.guard(value)
        text = str(self.guard(str(value)))
        parts: list[str] = []
        done = 0
        for match in but.finditer(text) if but is not None else ():
            parts += (self._around(text[done : match.start()], seams.chars), match.group())
            done = match.end()
        text = "".join((*parts, self._around(text[done:], seams.chars)))
        if seams.join or not isinstance(value, str):
            text = self._guard + text + self._guard
        return text

    def _around(self, text: str, chars: Iterable[str]) -> str:
        for char in chars:
            text = text.replace(char, self._guard + char + self._guard)
        return text

    def remove(self, text: str) -> str:
        """Raises UsageError where the template wrote a guard as an escape that can't be taken back."""
        if any(form in text for form in self._meant):
            text = self._escaped.sub(self._unescaped, text)
        text = text.replace(self._guard, "")
        for char, stand_in in self._stand_ins:
            text = text.replace(stand_in, char)
        return text

    def _unescaped(self, match: re.Match[str]) -> str:
        slashes, code = match.groups()
        meant = self._meant[code]
        # Text that is escaped once has an odd number of them there: pairs that are its own, and one.
        if len(slashes) % 2 == 0 or meant is None:
            raise UsageError(
                f"{self._called} escapes text with control tokens in a way that can't be undone",
                CONTROLS_HINT,
            )
        return slashes[:-1] + meant

    def _stand_in(self, text: str) -> str:
        for char, stand_in in self._stand_ins:
            text = text.replace(char, stand_in)
        return text


def escapes_of(char: str) -> tuple[str, ...]:
    """How JSON and `repr` write a noncharacter, the backslashes apart."""
    code = f"u{ord(char):04x}"
    return code, code.upper()


def is_plain(char: str) -> bool:
    return char.isascii() and char.isprintable() and char not in "\"'\\"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _occurrences(pattern: re.Pattern[str] | None, text: str) -> Iterator[re.Match[str]]:
    """Matches at every place, overlapping ones included."""
    position = 0
    while pattern is not None and (match := pattern.search(text, position)):
        yield match
        position = match.start() + 1


class _Tree(dict[str, "_Tree"]):
    """Texts by their characters."""

    ends = False  # a text ends here


def _longest_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Matches the longest of some texts that occurs at a place; None where there are none.

    A tree of common beginnings: vocabularies have hundreds of `<|reserved_special_token_N|>`.
    Raises ModelInvalid where the texts nest deeper than Python's regular expressions can.
    """
    root = _Tree()
    for text in texts:
        node = root
        for char in text:
            node = node.setdefault(char, _Tree())
        node.ends = True
    try:
        return re.compile(_branches(root)) if root else None
    except (RecursionError, OverflowError) as error:
        raise ModelInvalid("the vocabulary's control tokens begin each other too deeply") from error


def _branches(node: _Tree) -> str:
    written: list[str] = []
    for char, child in node.items():
        literal = char
        while len(child) == 1 and not child.ends:
            ((char, child),) = child.items()
            literal += char
        written.append(re.escape(literal) + _branches(child))
    if not written:
        return ""
    return f"(?:{'|'.join(written)}){'?' if node.ends else ''}"
