"""What the word that is being typed can become in a chat: commands, and what each takes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from infer_cli.cli import candidates
from infer_cli.cli.candidates import Candidate
from infer_cli.cli.chat.slash_commands import COMMANDS, SETTINGS, CommandHost, turns_of
from infer_cli.cli.foreign_words import CHAT_COMMANDS
from infer_cli.errors import InferError
from infer_cli.text.sanitize import single_line


class Completion(NamedTuple):
    """`text` takes the place of the last `replaces` characters of the line; `shown` is its name in a list."""

    text: str
    replaces: int
    shown: str
    about: str


def completions(chat: CommandHost, line: str) -> Iterator[Completion]:
    """For the end of a line. Nothing for a message, and nothing where what could be offered can't be read."""
    if not line.startswith("/") or "\n" in line:
        return
    name, space, argument = line[1:].partition(" ")
    if not space:
        for known, command in COMMANDS.items():
            if known.startswith(name):
                yield Completion(f"/{known}", len(line), command.usage, command.help)
        return
    offer = _OFFERS.get(CHAT_COMMANDS.get(name, name))
    if offer is None:
        return
    try:
        yield from offer(chat, argument.lstrip())
    except (InferError, OSError):  # the command itself says what is wrong
        return


def _matching(found: Iterable[Candidate], begun: str) -> Iterator[Completion]:
    for text, about in found:
        if text.lower().startswith(begun.lower()) and text.isprintable():
            yield Completion(text, len(begun), text, single_line(about))


def _settings(chat: CommandHost, begun: str) -> Iterator[Completion]:
    """A name, with its value as it is, or a value of one that has few."""
    in_use = {setting.name: f"{setting.value} ({setting.origin})" for setting in chat.settings}
    name, separator, value = begun.replace("=", " ", 1).partition(" ")
    name = name.replace("-", "_")
    if not separator:
        return _matching((Candidate(known, in_use.get(known, "")) for known in SETTINGS), name)
    return _matching(map(Candidate, SETTINGS.get(name, ())), value.lstrip())


def _branches(chat: CommandHost, begun: str) -> Iterator[Completion]:
    branches = chat.dialogue.conversation.branches
    found = (
        Candidate(name, turns_of(n) + (", this one" if name == branches.current else ""))
        for name, n in branches.sizes.items()
    )
    return _matching(found, begun)


def _models(chat: CommandHost, begun: str) -> Iterator[Completion]:
    yield from _matching(candidates.models(), begun)
    if begun:
        yield from _matching(candidates.aliases(), begun)


def _file(chat: CommandHost, begun: str) -> Iterator[Completion]:
    for path, shown in _entries(begun):
        yield Completion(path, len(begun), shown, "")


def _files(chat: CommandHost, begun: str) -> Iterator[Completion]:
    """The last of several names; one that has spaces is put in quotes, which a folder leaves open."""
    word = _last_word(begun)
    for path, shown in _entries(word.lstrip("'\"")):
        quoted = shlex.quote(path) if any(c in " '\"\\" for c in path) and os.sep == "/" else path
        text = quoted[:-1] if quoted != path and path.endswith(os.sep) else quoted
        yield Completion(text, len(word), shown, "")


def _last_word(text: str) -> str:
    """With its quote, which may be open."""
    start, quote = 0, ""
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == " ":
            start = i + 1
    return text[start:]


def _entries(begun: str) -> Iterator[tuple[str, str]]:
    """Paths in a folder that begin so, each with its name. A folder's end with a separator."""
    head, name = os.path.split(begun)
    for entry in sorted(os.scandir(os.path.expanduser(head) or "."), key=lambda entry: entry.name):
        end = os.sep if entry.is_dir() else ""
        is_hidden = not name and entry.name.startswith(".")
        if entry.name.startswith(name) and not is_hidden and entry.name.isprintable():
            yield os.path.join(head, entry.name) + end, entry.name + end


def _words(*words: str) -> Callable[[CommandHost, str], Iterator[Completion]]:
    return lambda chat, begun: _matching(map(Candidate, words), begun)


def _conversations(chat: CommandHost, begun: str) -> Iterator[Completion]:
    return _matching(candidates.conversations(), begun)


# Of each command that takes something of which there are few.
_OFFERS: dict[str, Callable[[CommandHost, str], Iterator[Completion]]] = {
    "system": _words("none"),
    "set": _settings,
    "seed": _words("new"),
    "model": _models,
    "regen": _words("same"),
    "branch": _branches,
    "load": _conversations,
    "read": _file,
    "attach": _files,
    "export": _file,
}
