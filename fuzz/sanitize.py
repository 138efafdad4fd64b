"""What reaches a terminal: replies plain and as Markdown, and one-line messages.

Texts are made of pieces of control sequences, and shown over several ways of cutting them into chunks.
"""

from __future__ import annotations

import io
import random
import re
import zlib
from collections.abc import Iterator

from fuzz.target import Broken, Input, Target
from infer_cli.models.fetch.base import plain
from infer_cli.sinks.markdown import MarkdownSink
from infer_cli.sinks.plain import PlainSink
from infer_cli.text.sanitize import Sanitizer, sanitize, single_line
from infer_cli.types import Delta

# What a terminal obeys: C0 but TAB and LF, DEL, C1, bidirectional overrides.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e]")
# Ours: styles, and what paints the open block anew.
_OURS = re.compile(r"\x1b\[[\d;]*m|(?:\x1b\[\d+A)?\r\x1b\[J")
_PIECES = (
    "\x1b", "\x1b[", "\x1b]", "\x1b]8;;http://x\x1b\\", "\x1b]0;t\x07", "\x1bP", "\x1b_", "\x1b^",
    "\x1bX", "\x1bc",
    "\x1b[31m", "\x1b[2J", "\x1b[?1049h", "\x9b", "\x9b31m", "\x9d", "\x90", "\x9c", "\x85", "\x07",
    "\r", "\n", "\t",
    "\0", "\x08", "\x0c", "\x0e", "\x18", "\x1a", "\x7f", "\u202e", "\u202d", "\u2066", "\u2028",
    "\ufeff", "\\", ";",
    "0", "31", "m", "a", " ", "é", "日本", "👩\u200d🚀", "e\u0301", "\U000e0041",
)  # fmt: skip
_MARKUP = (
    "# ", "**", "`", "```\n", "```python\n", "- ", "1. ", "> ", "| a | b |\n|---|---|\n", "|", "[x](",
    "![", "<b>",
    "http://e.x/", "&#27;", "&#x1b;[31m", "&#155;", "&ZeroWidthSpace;", "\\", "~~", "---\n",
    "[ref]: /x\n", "\n\n",
    "[x]: <", "'", '"', "    ", "&#x202e;", "&#7;", "<!--", "$$", "* * *",
)  # fmt: skip


class SanitizeTarget(Target):
    name = "sanitize"
    statuses = frozenset()
    most_memory = 64 * 2**20

    def generate(self, rng: random.Random) -> Input:
        if rng.random() < 0.05:
            pieces = [
                rng.choice(_PIECES if rng.random() < 0.3 else _MARKUP) for _ in range(rng.randrange(1, 40))
            ]
            return Input("md", "".join(pieces).encode())
        pieces = [rng.choice(_PIECES) for _ in range(rng.randrange(1, 20))]
        if rng.random() < 0.1:
            pieces.insert(rng.randrange(len(pieces)), "x" * rng.choice((4090, 4095, 4096, 4097, 9000)))
        return Input("txt", "".join(pieces).encode())

    def check(self, given: Input) -> None:
        text = given.data.decode("utf-8", "replace")
        chunks = list(_cut(text))
        if given.kind == "md":
            _check_markdown(chunks)
            return
        clean = sanitize(text)
        if found := _OBEYED.search(clean):
            raise Broken(f"a control character is left: {found[0]!r}")
        if sanitize(clean) != clean:
            raise Broken("the filter changes what it has cleaned")
        cleaner = Sanitizer()
        if "".join(map(cleaner.feed, chunks)) != clean:
            raise Broken("the filter's outcome depends on the chunks")
        shown = _plain_sink(chunks)
        if _OBEYED.search(shown.removesuffix("\n")) or shown.removesuffix("\n") != clean.removesuffix("\n"):
            raise Broken("the plain sink shows something else than the filter leaves")
        for line in (single_line(text), plain(text)):
            if not line.isprintable():
                raise Broken("a line of a message is not printable")


def _plain_sink(chunks: list[str]) -> str:
    out = io.BytesIO()
    sink = PlainSink(out, raw=False, sanitize=True, reasoning="hide", n_samples=1)
    for chunk in chunks:
        sink.delta(Delta(0, chunk))
    sink.close()
    return out.getvalue().decode()


def _check_markdown(chunks: list[str]) -> None:
    out = io.StringIO()
    sink = MarkdownSink(out, reasoning="hide", n_samples=1, size=lambda: (40, 20), reflows=False)
    for chunk in chunks:
        sink.delta(Delta(0, chunk, tokens=(1,)))
    sink.close()
    if found := _OBEYED.search(_OURS.sub("", out.getvalue())):
        raise Broken(f"Markdown lets a control character through: {found[0]!r}")


def _cut(text: str) -> Iterator[str]:
    rng = random.Random(zlib.crc32(text.encode("utf-8", "surrogatepass")))
    while text:
        n = rng.choice((1, 1, 2, 3, 10, 5000))
        yield text[:n]
        text = text[n:]
