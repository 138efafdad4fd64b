"""What a shell's Tab offers, by Typer's protocol (`_INFER_COMPLETE`): words for each parameter that has some.

Where nothing is offered the shell offers files. What can't be read offers nothing: an error here would be
written into the line that is being typed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from infer_cli.cli import candidates
from infer_cli.cli.candidates import Candidate
from infer_cli.cli.translation import with_our_command
from infer_cli.errors import InferError, UsageError

_Offer = Callable[[], Iterable[Candidate]]

_CHOICE = re.compile(r"[a-z0-9][a-z0-9_-]*")  # in a metavar; what the user puts in is in capitals
# A shell would split other words, or read them as its own language. zsh evaluates what it is given.
_SAFE = re.compile(r"[\w.:/@+~-]+")
_UNSAFE_ABOUT = re.compile(r"[^\w .,:!?/+-]+")

_OF_INSTALLED = {"models rm", "models path", "models verify"}


def read_line() -> list[str]:
    """Put the line that a shell asks about in our words, where Typer will read it.

    Returns the words before the one that is being typed, without `infer`.
    """
    of_bash = "COMP_WORDS" in os.environ
    line = os.environ["COMP_WORDS"] if of_bash else os.environ.get("_TYPER_COMPLETE_ARGS", "")
    try:
        words = shlex.split(line)
    except ValueError:  # a quote is open: it stays as it is
        return line.split()[1:-1]
    n_of_others = len(words) if line.endswith(" ") else len(words) - 1
    at = int(os.environ["COMP_CWORD"]) if of_bash else n_of_others
    before, after = words[1:at], words[at:]
    if of_bash:  # it takes `--model=NAME` for three words
        before, after = _without_signs(before), _without_signs(after)
    with contextlib.suppress(UsageError):  # there is no such command
        before = with_our_command(before)
    words = [*words[:1], *before, *after]
    os.environ["COMP_WORDS" if of_bash else "_TYPER_COMPLETE_ARGS"] = shlex.join(words) + " " * (not after)
    os.environ["COMP_CWORD"] = str(1 + len(before))
    return before


def _without_signs(words: list[str]) -> list[str]:
    return [word for word in words if word != "="]


def add_completions(command: Any, everything: Callable[[], Any], name: str = "") -> None:
    """Give the parameters of a Typer command, and of all inside it, what they can be.

    `everything` builds all commands, for the names of settings.
    """
    for param in getattr(command, "params", []):
        offer = _offer(name, param, everything)
        if offer is not None:
            param.shell_complete = partial(_completions, offer)
    for inner, sub in getattr(command, "commands", {}).items():
        add_completions(sub, everything, f"{name} {inner}".strip())


def _offer(command: str, param: Any, everything: Callable[[], Any]) -> _Offer | None:
    metavar = (param.metavar or "").strip("[].")
    is_argument = param.param_type_name == "argument"
    if command == "config set":
        return partial(_settings, everything) if param.name == "name" else None
    if is_argument and command.startswith("records "):
        return candidates.records
    if is_argument and command == "replay":
        return _records_and_conversations
    if metavar == "ID|NAME":
        return candidates.conversations
    if param.name == "thread":
        return partial(candidates.conversations, whole_ids=True)
    if metavar == "MODEL" or "--model" in param.opts or (is_argument and param.name == "model"):
        return partial(candidates.models, only_installed=command in _OF_INSTALLED)
    if metavar == "TASK":
        return candidates.tasks
    if param.name == "prompt_template":
        return candidates.prompt_templates
    if param.name in ("cache_type_k", "cache_type_v"):
        return _cache_types
    choices = choices_of(param)
    return (lambda: map(Candidate, choices)) if choices else None


def choices_of(param: Any) -> list[str]:
    """The words that a flag's help lists: `auto` and `all` of `auto|all|N`."""
    return [word for word in (param.metavar or "").split("|") if _CHOICE.fullmatch(word)]


def _records_and_conversations() -> Iterator[Candidate]:
    yield from candidates.records()
    yield from candidates.conversations()


def _cache_types() -> Iterator[Candidate]:
    from infer_cli.backend.ggml_types import KV_TYPES

    yield from map(Candidate, KV_TYPES)


def _settings(everything: Callable[[], Any]) -> Iterator[Candidate]:
    """Long names of flags, once each."""
    seen: set[str] = set()
    for command in everything().commands.values():
        for param in command.params:
            for flag in param.opts if param.param_type_name == "option" else ():
                if flag.startswith("--") and flag not in ("--help", *seen):
                    seen.add(flag)
                    yield Candidate(flag[2:], param.help or "")


class _Item(NamedTuple):
    """A completion, as Typer reads it."""

    value: str
    help: str | None


def _completions(offer: _Offer, context: Any, incomplete: str) -> list[_Item]:
    try:
        found = list(offer())
    except (InferError, OSError):
        return []
    return [
        _Item(text, _UNSAFE_ABOUT.sub(" ", about).strip() or None)
        for text, about in found
        if text.startswith(incomplete) and _SAFE.fullmatch(text)
    ]
