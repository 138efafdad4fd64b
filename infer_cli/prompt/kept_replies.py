"""Puts the ids of earlier replies where a template put their text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.errors import ModelInvalid
from infer_cli.prompt.control_tokens import escapes_of
from infer_cli.text.reasoning import TagPair

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab


class KeptReply(NamedTuple):
    """A reply's sampled ids without its end token, to stand in a prompt as they are.

    `n_reasoning` of them, from the start, are its reasoning block up to and with the closing tag; `pair` is
    that block's, `pair_opened` whether the opening tag is among the ids (and not the prompt's own end).
    """

    ids: tuple[int, ...]
    n_reasoning: int = 0
    pair: TagPair | None = None
    pair_opened: bool = True


class Splice:
    """Puts replies' ids where the template put their messages' contents.

    A whole reply is the placeholder `MARK index MARK`; one with reasoning is two of them, for the block (`r`)
    and for the answer (`a`), the first one between its tags, so that templates find the block.
    """

    def __init__(self, kept: Mapping[int, KeptReply], mark: str, vocab: Vocab, called: str) -> None:
        """`mark`: a character that is in no text here. `called`: how an error calls the template."""
        self._kept, self._mark, self._vocab, self._called = kept, mark, vocab, called
        self._placeholder = re.compile(f"{mark}([0-9]+)([ra]?){mark}" if kept else "(?!)")

    def content(self, index: int) -> str:
        reply = self._kept[index]
        if reply.pair is None:
            return self._place(index)
        opening, closing = reply.pair
        return f"{opening}{self._place(index, 'r')}{closing}{self._place(index, 'a')}"

    def _place(self, index: int, part: str = "") -> str:
        return f"{self._mark}{index}{part}{self._mark}"

    def joined(self, text: str) -> str:
        """The rendering with every block that stands whole before its answer become one placeholder.

        Raises ModelInvalid where the template took a placeholder apart.
        """
        for index, reply in self._kept.items():
            if reply.pair is not None:
                opening = re.escape(reply.pair.opening) + r"\s*" if reply.pair_opened else ""
                block = self._place(index, "r") + r"\s*" + re.escape(reply.pair.closing) + r"\s*"
                text = re.sub(f"{opening}{block}{self._place(index, 'a')}", self._place(index), text)
        left = self._placeholder.sub("", text) if self._kept else ""
        if self._kept and any(form in left for form in (self._mark, *escapes_of(self._mark))):
            raise ModelInvalid(
                f"{self._called} takes earlier replies apart",
                "give another one with --chat-template",
            )
        return text

    def parts(self, text: str) -> Iterator[str | tuple[int, ...]]:
        """Text to be tokenized, and ids, in order."""
        done = 0
        for match in self._placeholder.finditer(text):
            ids = self._ids(match)
            before = text[done : match.start()]
            # Some templates put a space before a reply whose first token brings its own.
            if before.endswith(" ") and ids and self._vocab.piece(ids[0]).startswith(b" "):
                before = before[:-1]
            if before:
                yield before
            yield ids
            done = match.end()
        if text[done:]:
            yield text[done:]

    def text(self, rendered: str) -> str:
        """The rendering as it reads."""

        def pieces(match: re.Match[str]) -> str:
            return b"".join(map(self._vocab.piece, self._ids(match))).decode("utf-8", "replace")

        return self._placeholder.sub(pieces, rendered)

    def _ids(self, match: re.Match[str]) -> tuple[int, ...]:
        reply = self._kept[int(match[1])]
        if match[2] == "r":
            return reply.ids[: reply.n_reasoning]
        if match[2] == "a":
            answer = reply.ids[reply.n_reasoning :]
            n_space = 0
            while n_space < len(answer) and not self._vocab.piece(answer[n_space]).strip():
                n_space += 1
            return answer[n_space:]
        return reply.ids
