"""`infer` and `infer --help`: the list of commands, quick, and the same as the commands themselves say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from infer_cli.cli.app import command_line
from infer_cli.cli.examples import add_examples
from infer_cli.cli.panels import ORDER, definition_list, panels
from tests.cli_helpers import infer


def summaries(*, only_listed: bool) -> dict[str, str]:
    command = typer.main.get_command(command_line(only_listed=only_listed))
    return {
        name: sub.get_short_help_str(limit=1000) for name, sub in getattr(command, "commands", {}).items()
    }


def test_the_list_of_commands_is_what_each_says_of_itself() -> None:
    listed = summaries(only_listed=True)
    assert listed == summaries(only_listed=False)
    assert all(listed.values())


def test_infer_alone_shows_its_help() -> None:
    alone, asked = infer(), infer("--help")
    assert (alone.code, alone.out, alone.err) == (0, asked.out, "")
    assert b"chat        Talk with a model." in alone.out


def pages(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Each command and group with its name; the name of `infer` itself is empty."""
    yield name, command
    for inner, sub in getattr(command, "commands", {}).items():
        yield from pages(sub, f"{name} {inner}".strip())


def help_text(name: str) -> str:
    return infer(*name.split(), "--help", env={"COLUMNS": "80"}).text


def test_nothing_is_cut_in_a_list_of_commands() -> None:
    top: Any = typer.main.get_command(command_line())
    for name, command in pages(top):
        longest = max(map(len, getattr(command, "commands", {})), default=0)
        for inner, sub in getattr(command, "commands", {}).items():
            assert len(sub.get_short_help_str(limit=1000)) <= 80 - longest - 8, f"{name} {inner}"
    shown = help_text("")
    assert "..." not in shown.replace("[ARGS]...", "") and "Examples:\n    infer run" in shown


def test_three_examples_of_each_command_are_command_lines() -> None:
    """Words after `infer` up to a shell's sign are parsed as the command itself would."""
    top: Any = typer.main.get_command(command_line())
    add_examples(top)
    for name, command in pages(top):
        assert command.epilog, f"infer {name}: cli/examples.py has none for it"
        lines = [line.strip() for line in command.epilog.splitlines()[2:]]
        assert len(set(lines)) == 3, name
        for line in lines:
            calls = [words for words in commands_in(line) if words[:1] == ["infer"]]
            assert any(reached.startswith(name) for reached in [parsed(top, words[1:]) for words in calls]), (
                line
            )
            assert len(line) <= 76, line


def commands_in(line: str) -> Iterator[list[str]]:
    """The commands of a line, also those of `$(…)`, without redirections."""
    for inner in re.findall(r"\$\(([^)]*)\)", line):
        yield from commands_in(inner)
    line = re.sub(r'"?\$\([^)]*\)"?', "5c0ffee0 b7a3f1c2", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|&>"):
            yield words
            words = ["a file"] if word == ">" else []
        elif "=" not in word or words:
            words.append(word)
    yield words


def parsed(command: Any, words: list[str]) -> str:
    """The name of the command that is reached; raises what Typer raises for words that it does not take."""
    context = command.make_context("infer", list(words))
    if not getattr(command, "commands", None):
        return ""
    left = [*context._protected_args, *context.args]
    return f"{left[0]} {parsed(command.commands[left[0]], left[1:])}".strip()


@pytest.mark.parametrize("name", ["run", "models pull", "records"])
def test_help_ends_with_examples(name: str) -> None:
    *_, heading, one, two, three = help_text(name).rstrip().split("\n")
    assert heading == "  Examples:"
    assert all(f"infer {name}" in line for line in (one, two, three)), (one, two, three)


def test_run_and_chat_list_the_same_choices() -> None:
    run, chat = (re.findall(r"--[\w-]+ [\w-]+(?:\|[\w-]+)+", help_text(name)) for name in ("run", "chat"))
    assert set(chat) - set(run) == {"--keys emacs|vi", "--resume ID|NAME"} and set(run) <= set(chat)
    assert any("|summarize" in choices for choices in run)


def test_flags_stand_in_panels_in_one_order() -> None:
    top: Any = typer.main.get_command(command_line())
    panel_of: dict[str, str] = {}
    for name, command in pages(top):
        if getattr(command, "commands", {}):
            continue
        found = panels(command, command.make_context(name, [], resilient_parsing=True))
        known = [panel for panel in found if panel in ORDER]
        assert known == sorted(known, key=ORDER.index), name
        assert list(found)[-1] in ("Options", "Other"), name
        for panel in known:
            for names, _ in found[panel]:
                flag = re.findall(r"--[\w-]+", names)[-1]
                assert panel_of.setdefault(flag, panel) == panel, f"infer {name} {flag}"
    assert panel_of["--overflow"] == panel_of["--ctx"] == "Window" and panel_of["--seed"] == "Sampling"


@pytest.mark.parametrize("columns", [40, 80, 100, 160])
def test_help_fits_the_terminal(columns: int) -> None:
    shown = infer("run", "--help", env={"COLUMNS": str(columns)}).text.partition("Examples:")[0]
    assert max(map(len, shown.splitlines())) <= columns
    order = [heading for heading in re.findall(r"^(\w+):$", shown, re.MULTILINE) if heading in ORDER]
    assert order == ["Model", "Prompt", "Sampling", "Output", "Window", "Engine"]
    words = [word for word in re.sub(r"\|\n +", "|", shown).split() if word.startswith("error|")]
    assert words == ["error|drop-oldest|drop-middle|keep-ends|summarize"]


def test_a_list_of_flags_is_wrapped_beside_their_names() -> None:
    records = [("--long-name one|two|three|four", "Some words about it."), ("-h, --help", "Show help-pages.")]
    assert list(definition_list(records, 30)) == [
        "  --long-name one|two|three|",
        "      four",
        "              Some words about",
        "              it.",
        "  -h, --help  Show help-pages.",
    ]


@pytest.mark.parametrize("group", ["models", "records", "cache", "template", "config"])
def test_a_group_alone_shows_its_help(group: str) -> None:
    alone = infer(group)
    assert (alone.code, alone.out, alone.err) == (0, infer(group, "--help").out, "")
    assert b"Commands:" in alone.out
