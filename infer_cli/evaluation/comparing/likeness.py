"""What tells that items of two programs are the same: the row of data and the words of the prompt.

Programs write neither alike. Of a row, its canonical JSON is taken, without fields that are null (loaders of
data add such). Of a prompt, what was said is taken: what a chat template puts around it is left out, and so
are system messages, which some templates add of their own accord, and white space at both ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from infer_cli.evaluation.tasks.doc import canonical_json
from infer_cli.system.hashing import sha256

_N_BYTES = 16  # of a hash
# How chat templates mark a turn: its role, then its text.
_TURNS = (
    re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>\n?|\Z)", re.DOTALL),
    re.compile(r"<start_of_turn>(\w+)\n(.*?)(?:<end_of_turn>\n?|\Z)", re.DOTALL),
    re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n(.*?)(?:<\|eot_id\|>|\Z)", re.DOTALL),
)
_BEGINNINGS = ("<bos>", "<s>", "<|begin_of_text|>")
_ROLES = {"model": "assistant"}


class Likeness(NamedTuple):
    """Hashes. `document` is None where a program does not say the row of data."""

    document: bytes | None
    prompt: bytes


def likeness_of(document: Mapping[str, object] | None, prompt: object) -> Likeness:
    """`prompt`: a text, with or without a chat template, or messages (or their JSON)."""
    told = None
    if document is not None:
        known = {name: value for name, value in document.items() if value is not None}
        told = sha256(canonical_json(known))[:_N_BYTES]
    return Likeness(told, sha256(said(prompt).encode(errors="surrogatepass"))[:_N_BYTES])


def said(prompt: object) -> str:
    """The one message of a prompt, or all of several as JSON."""
    if isinstance(prompt, str):
        turns = _turns_of(prompt)
        if turns is None:
            return prompt.strip()
    else:
        turns = _messages(prompt)
    turns = [(role, text.strip()) for role, text in turns if role not in ("system", "developer")]
    # An open turn of the model's, in which the reply begins.
    if turns and turns[-1][0] == "assistant" and not turns[-1][1]:
        turns.pop()
    return turns[0][1] if len(turns) == 1 and turns[0][0] == "user" else json.dumps(turns)


def _turns_of(text: str) -> list[tuple[str, str]] | None:
    """None: it has no chat template that is known."""
    if text.startswith('[{"'):
        try:
            return _messages(json.loads(text))
        except (ValueError, RecursionError):
            return None
    for beginning in _BEGINNINGS:
        text = text.removeprefix(beginning)
    for pattern in _TURNS:
        turns: list[tuple[str, str]] = []
        end = 0
        for match in pattern.finditer(text):
            if match.start() != end:
                break
            turns.append((_ROLES.get(match[1], match[1]), match[2]))
            end = match.end()
        if turns and not text[end:].strip():
            return turns
    return None


def _messages(value: object) -> list[tuple[str, str]]:
    """Raises ValueError for what are no messages."""
    if not isinstance(value, list):
        raise ValueError("no messages")
    return [(str(each.get("role")), text_of(each.get("content"))) for each in value if isinstance(each, dict)]


def text_of(content: object) -> str:
    """Of a message: its text, or the texts of its parts."""
    if not isinstance(content, list):
        return "" if content is None else str(content)
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
