"""A command line in the words of other programs, in ours. Imports nothing heavy: each start comes here.

The words are in `foreign_words.py`. What stands after `--`, and the value of a flag, is never a foreign word.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from infer_cli.cli import foreign_words as foreign
from infer_cli.errors import UsageError

_MOST_SHOWN = 150  # characters of a line to type


def with_our_command(
    arguments: list[str], flags_of_run: Callable[[], Mapping[str, bool]] | None = None
) -> list[str]:
    """A whole command line that begins with a command of ours, as far as its first words are known.

    `flags_of_run`: spellings of its flags, and whether each takes a value; asked for where flags stand before
    a prompt. Raises UsageError for a command or a flag that there is not here.
    """
    if not arguments:
        return arguments
    first, *rest = arguments
    if first in foreign.COMMANDS:
        return [*foreign.COMMANDS[first], *rest]
    if first == "help":
        return [*rest, "--help"]
    if not first.startswith("-") and _is_text(first):
        return ["run", *arguments]
    if first in foreign.OTHER_COMMANDS:
        raise UsageError(f"No such command {first!r}", foreign.OTHER_COMMANDS[first])
    if flags_of_run is not None and first.startswith("-") and any(_is_text(word) for word in rest):
        line = _Line("run", arguments, flags_of_run())
        line.read()
        if line.begins_with_text:
            return ["run", *arguments]
    return arguments


def _is_text(word: str) -> bool:
    return len(word.split()) > 1


def with_our_flags(command: str, arguments: list[str], takes_value: Mapping[str, bool]) -> list[str]:
    """The arguments of a command (`run`, `models pull`), as it knows them.

    `takes_value`: of each spelling of its flags. Raises UsageError for a flag that there is not here, for the
    name of a model where `infer run` takes a prompt, and for a file of a system prompt that can't be read.
    """
    if {"-h", "--help"}.intersection(arguments):
        return arguments
    line = _Line(command, arguments, takes_value)
    line.read()
    if command == "run":
        line.check_first_word()
    elif command == "chat":
        line.take_model()
    return line.translated()


class _Word(NamedTuple):
    text: str
    place: int  # in the arguments


class _Line:
    """The arguments of one command, read as its parser reads them: flags with their values, then words."""

    def __init__(self, command: str, arguments: Sequence[str], takes_value: Mapping[str, bool]) -> None:
        self._command = command
        self._arguments = arguments
        self._takes_value = takes_value
        self._flags: list[str] = []
        self._words: list[str] = []
        self._first: _Word | None = None  # before `--`
        self._names_model = False
        self._is_foreign = False
        self._lacks_value: str | None = None  # the last argument, where it is a flag that has one

    def read(self) -> None:
        at = 0
        while at < len(self._arguments):
            argument = self._arguments[at]
            if argument == "--":
                self._words += self._arguments[at + 1 :]
                return
            if argument == "-" and self._command == "run":
                self._flags += ["--file", "-"]
                self._is_foreign = True
            elif argument == "-" or not argument.startswith("-"):
                self._first = self._first or (None if self._words else _Word(argument, at))
                self._words.append(argument)
            else:
                at += self._read_flag(argument, self._arguments[at + 1 : at + 2])
            at += 1

    @property
    def begins_with_text(self) -> bool:
        """Whether the first of its words is a prompt, and no command."""
        return bool(self._words) and _is_text(self._words[0])

    def _read_flag(self, argument: str, following: Sequence[str]) -> int:
        """Returns how many of the arguments after it, at most one, are its value."""
        name, equals, glued = argument.partition("=")
        if name not in self._takes_value:
            ours = foreign.FLAGS.get(name)
            is_prompt = name in foreign.PROMPTS and self._command == "run"
            if is_prompt or ours in self._takes_value:
                value = [glued] if equals else following
                self._take_foreign(name, ours, value)
                return 0 if equals else len(value)
            if argument.startswith("-n") and "-n" not in self._takes_value and "--limit" in self._takes_value:
                raise UsageError("No such option: -n", "--limit N takes so many")
            if name in foreign.OTHER_FLAGS:
                raise UsageError(f"No such option: {name}", foreign.OTHER_FLAGS[name])
        self._flags.append(argument)
        spelling, has_value = self._spelling(argument)
        self._names_model = self._names_model or spelling in ("-m", "--model")
        if has_value or not self._takes_value.get(spelling, False):
            return 0
        if not following:  # the first word would become its value
            self._lacks_value = spelling
        self._flags += following
        return len(following)

    def _spelling(self, argument: str) -> tuple[str, bool]:
        """The flag of an argument, and whether its value is in the argument too; of `-cm NAME` it is `-m`."""
        name, equals, _ = argument.partition("=")
        if name in self._takes_value or argument.startswith("--"):
            return name, bool(equals)
        for at, letter in enumerate(argument[1:], 2):
            if self._takes_value.get(f"-{letter}", False):
                return f"-{letter}", at < len(argument)
        return argument[:2], False

    def _take_foreign(self, name: str, ours: str | None, value: Sequence[str]) -> None:
        self._is_foreign = True
        if not value:
            self._lacks_value = name
        if ours is None:
            self._words += value
            return
        self._names_model = self._names_model or ours == "--model"
        if name == "-s" and value and value[0].isdecimal():
            raise UsageError(
                f"-s {value[0]}: is it a seed or a system prompt?",
                f"--seed {value[0]} is a seed, --system {value[0]} a system prompt",
            )
        if name in foreign.SYSTEM_FILES:
            value = [_text_of(path) for path in value]
        self._flags += [f"{ours}={text}" for text in value]

    def check_first_word(self) -> None:
        """Raises UsageError where the first word names a model, or is like such a name and more words follow,
        and no flag names one."""
        if self._first is None or self._names_model:
            return
        word, place = self._first
        from infer_cli.models.known import model_meant, model_named

        model = model_named(word)
        is_known = model is not None
        if not is_known and len(self._words) > 1:
            model = model_meant(word)
        if model is not None:
            rest = [*self._arguments[:place], *self._arguments[place + 1 :]]
            talks = not rest and sys.stdin is not None and sys.stdin.isatty()
            raise UsageError(
                f"{word!r} names a model, and here stands the prompt"
                if is_known
                else f"{word!r} looks like the name of a model, and here stands the prompt",
                f"type `{_typed(['infer', 'chat' if talks else 'run', '-m', model, *rest])}`;"
                f" after -- it is prompt text",
            )

    def take_model(self) -> None:
        """The first word is `-m`'s, where that is not given."""
        if self._first is not None and not self._names_model:
            from infer_cli.models.known import model_named

            word = self._first.text
            if _is_text(word):
                raise UsageError(
                    f"a chat has no message on its command line: {word[:60]!r}",
                    "start `infer chat` and type it there; `infer run` answers one prompt",
                )
            self._words.remove(word)
            self._flags.append(f"--model={model_named(word) or word}")
            self._is_foreign = True

    def translated(self) -> list[str]:
        if not self._is_foreign:
            return list(self._arguments)
        if self._lacks_value is not None:
            raise UsageError(
                f"Option {self._lacks_value!r} requires an argument", f"see `infer {self._command} --help`"
            )
        end = ["--"] if any(word.startswith("-") for word in self._words) else []
        return [*self._flags, *end, *self._words]


def _typed(words: Sequence[str]) -> str:
    """A command line to type, one line; a long text in it is `…`."""
    import shlex

    line = shlex.join(words)
    if len(line) <= _MOST_SHOWN and line.isprintable():
        return line
    return shlex.join(words[:4]) + " …"


def _text_of(path: str) -> str:
    from infer_cli.prompt.messages import decode_input
    from infer_cli.system.files import read_bytes

    return decode_input(read_bytes(path), path).rstrip("\r\n")  # as `$(cat FILE)` would
