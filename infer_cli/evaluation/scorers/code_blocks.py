"""Blocks of code in a reply of Markdown: between fences of three backticks or tildes, or more."""

from __future__ import annotations

import re
from typing import NamedTuple

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)")


class CodeBlock(NamedTuple):
    label: str  # the first word after the fence, in small letters; empty where there is none
    code: str


def code_blocks(text: str) -> list[CodeBlock]:
    """All of them, in their order. A block whose fence is not closed ends with the text, as in CommonMark."""
    if "```" not in text and "~~~" not in text:
        return []
    found = []
    fence, label, lines = "", "", list[str]()
    for line in text.split("\n"):
        line = line.removesuffix("\r")
        mark = _FENCE.match(line)
        if not fence:
            if mark and not (mark[1][0] == "`" and "`" in mark[2]):
                fence, label, lines = mark[1], mark[2].strip().partition(" ")[0].lower(), []
        elif mark and mark[1].startswith(fence) and not mark[2].strip():
            found.append(CodeBlock(label, "\n".join(lines)))
            fence = ""
        else:
            lines.append(line)
    if fence:
        found.append(CodeBlock(label, "\n".join(lines)))
    return found


def blocks_of(text: str, language: str | None) -> list[str]:
    """The code of the blocks with that label, else of those without any; of all blocks for None."""
    blocks = code_blocks(text)
    if language is None:
        return [block.code for block in blocks]
    labelled = [block.code for block in blocks if block.label == language.lower()]
    return labelled or [block.code for block in blocks if not block.label]
