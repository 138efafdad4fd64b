"""`infer` and `infer --help`: the list of commands, quick, and the same as the commands themselves say."""

from __future__ import annotations

import pytest
import typer

from infer_cli.cli.app import command_line
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


@pytest.mark.parametrize("group", ["models", "records", "cache", "template", "config"])
def test_a_group_alone_shows_its_help(group: str) -> None:
    alone = infer(group)
    assert (alone.code, alone.out, alone.err) == (0, infer(group, "--help").out, "")
    assert b"Commands:" in alone.out


@pytest.mark.parametrize(
    ("words", "completed"),
    [("infer ba", "batch"), ("infer run --see", "--seed"), ("infer models lis", "list")],
)
def test_a_shell_completes_commands_and_their_flags(words: str, completed: str) -> None:
    asked = {"_INFER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert infer(env=asked).text.split() == [completed]
