"""Texts of a message that have a name: files, and what is piped in.

A text that is all of a message is the message, bare: `infer run < prompt.txt`. Where there is more than one
text, each that has a name stands between tags that say it, and the words of the user follow:

    <file name="notes.txt">
    …
    </file>

    What was full?

The name is the last part of the path, so the prompt is the same on another machine; of a file in a folder
that was given the path from that folder on, of a page its address. A text that itself holds
such a tag is put between `<file-2 …>` and `</file-2>`, or the first number beyond that it has no tag of: what
ends a text is never in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count
from pathlib import PurePath
from typing import NamedTuple

from infer_cli.text.sanitize import single_line

_TAG = "file"
_TAGS = re.compile(rf"</?\s*{_TAG}\b(?:-([0-9]+)\b)?", re.IGNORECASE)
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


class Attachment(NamedTuple):
    """A text with its name: a path as it was given, or `stdin`.

    `title`: what its tag says where that is not the last part of the name.
    """

    name: str
    text: str
    title: str | None = None


def are_several(attachments: Sequence[Attachment], words: str) -> bool:
    """Whether a message of these is more than one text."""
    return len(attachments) + bool(_bare(words)) > 1


def message_text(attachments: Sequence[Attachment], words: str, *, tagged: bool) -> str:
    """Attachments, then words, with a blank line between. `tagged`: attachments have their tags.

    Line ends at the end of each are dropped; empty texts too, but for attachments with tags. Nothing but
    empty texts is empty.
    """
    texts = [*(item.text for item in attachments), words]
    bare = [text for text in map(_bare, texts) if text]
    if tagged and bare:
        bare = [*map(between_tags, attachments), *filter(None, [_bare(words)])]
    return "\n\n".join(bare)


def between_tags(item: Attachment) -> str:
    """The text of an attachment, and its name."""
    name = single_line(
        PurePath(item.name).name if item.title is None else item.title
    )  # without control characters and line ends
    for character, escape in _ESCAPES.items():
        name = name.replace(character, escape)
    text, tag = _bare(item.text), _tag(item.text)
    return f'<{tag} name="{name}">\n{text}\n</{tag}>' if text else f'<{tag} name="{name}">\n</{tag}>'


def _tag(text: str) -> str:
    """The first tag that the text has not."""
    found = {match[1] for match in _TAGS.finditer(text)}
    if not found:
        return _TAG
    return next(f"{_TAG}-{n}" for n in count(2) if str(n) not in found)


def _bare(text: str) -> str:
    return text.rstrip("\r\n")
