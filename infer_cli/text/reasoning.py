"""Tells a reply's reasoning block from its answer, piece by piece.

Reasoning counts only at the start of a reply (white space aside): later tags are text, so an answer that
talks about `<think>` is shown as it is. It knows text and tags; token ids only in `ReasoningTags`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from infer_cli.text.stream import Utf8Stream


class TagPair(NamedTuple):
    opening: str
    closing: str


KNOWN_PAIRS = (
    TagPair("<think>", "</think>"),
    TagPair("<thinking>", "</thinking>"),
    TagPair("<reasoning>", "</reasoning>"),
    TagPair("[THINK]", "[/THINK]"),
    TagPair("<|START_THINKING|>", "<|END_THINKING|>"),
    TagPair("<seed:think>", "</seed:think>"),
    TagPair("◁think▷", "◁/think▷"),
)


@dataclass(frozen=True)
class ReasoningTags:
    """What a reply's reasoning may stand between: one of `pairs`, or `opened`, which the prompt has opened.
    `tokens` are the control tokens that are tags, with their text."""

    pairs: tuple[TagPair, ...] = ()
    opened: TagPair | None = None
    tokens: Mapping[int, bytes] = field(default_factory=dict)


def pairs_of(template_source: str) -> tuple[TagPair, ...]:
    """The pairs a model may use: those whose opening tag its chat template mentions."""
    return tuple(pair for pair in KNOWN_PAIRS if pair.opening in template_source)


def opened_pair(pairs: Sequence[TagPair], prompt: str) -> TagPair | None:
    """The pair that a rendered prompt leaves open at its very end (DeepSeek-R1, QwQ), if any."""
    end = prompt.rstrip()
    return next((pair for pair in pairs if end.endswith(pair.opening)), None)


class ReasoningSplitter:
    """Splits a stream of text. Joined, its parts are the stream without the tags, and without white space
    before the opening and after the closing one.

    `starts_inside`: the pair that the prompt left open.
    """

    def __init__(self, pairs: Sequence[TagPair], starts_inside: TagPair | None = None) -> None:
        self._pairs = tuple(pairs)
        self._inside = starts_inside
        self._may_open = starts_inside is None and bool(self._pairs)
        self._strip = False  # just after a closing tag
        self._held = ""

    @property
    def inside(self) -> TagPair | None:
        """The pair that is open."""
        return self._inside

    @property
    def is_over(self) -> bool:
        """Whether all that follows is answer, as it comes."""
        return not (self._may_open or self._inside is not None or self._strip or self._held)

    def feed(self, text: str) -> list[tuple[str, bool]]:
        """(text, is_reasoning) parts that can be shown now, none empty."""
        text, self._held = self._held + text, ""
        parts: list[tuple[str, bool]] = []
        if self._may_open:
            text = self._open(text)
        if self._inside is not None:
            text = self._close(text, self._inside, parts)
        if self._strip:
            text = text.lstrip()
            self._strip = not text
        if text:
            parts.append((text, False))
        return parts

    def finish(self) -> list[tuple[str, bool]]:
        """What is still held back: the reply ended inside a tag, or in white space before it."""
        held, self._held = self._held, ""
        return [(held, self._inside is not None)] if held else []

    def _open(self, text: str) -> str:
        """Look for an opening tag at the start; text goes on to be shown, or is held."""
        start = text.lstrip()
        # Longest first: a known tag may begin another.
        for pair in sorted(self._pairs, key=lambda pair: -len(pair.opening)):
            if start.startswith(pair.opening):
                self._inside, self._may_open = pair, False
                return start[len(pair.opening) :]
        if any(pair.opening.startswith(start) for pair in self._pairs):  # also true of white space alone
            self._held = text
            return ""
        self._may_open = False
        return text

    def _close(self, text: str, pair: TagPair, parts: list[tuple[str, bool]]) -> str:
        """Show reasoning up to the closing tag; returns what follows it."""
        end = text.find(pair.closing)
        if end >= 0:
            self._inside, self._strip = None, True
            rest = text[end + len(pair.closing) :]
        else:
            end = len(text) - _overlap(text, pair.closing)
            self._held, rest = text[end:], ""
        if end > 0:
            parts.append((text[:end], True))
        return rest


class ReasoningMeter:
    """Counts the tokens of a reply's reasoning, as `ReasoningSplitter` tells it from the answer. Of tags that
    are several tokens, those of the opening one do not count, those of the closing one do.

    `opened`: the pair that the prompt left open.
    """

    def __init__(self, pairs: Sequence[TagPair], opened: TagPair | None = None) -> None:
        self._utf8 = Utf8Stream()
        self._splitter = ReasoningSplitter(pairs, opened)
        self.n_tokens = 0

    @property
    def inside(self) -> TagPair | None:
        """The pair that is open after the last token."""
        return self._splitter.inside

    def feed(self, piece: bytes) -> None:
        """The next token's text."""
        self.n_tokens += self.inside is not None
        if not self._splitter.is_over:
            self._splitter.feed(self._utf8.feed(piece))


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that begins `tag`."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return size
    return 0
