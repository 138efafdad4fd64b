"""Flags that commands share: how a command takes a group of them, and how their values are read."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest
import typer

from infer_cli.cli.app import command_line
from infer_cli.cli.flags import options as o
from infer_cli.cli.flags.values import Values
from infer_cli.cli.screen.terminal import settings_table
from infer_cli.settings.origins import Given, Setting
from tests.cli_helpers import INFER, REPO, infer, one_error_line


def test_a_group_stands_for_its_flags_where_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    @o.takes_groups
    def command(
        context: typer.Context, *, model: o.Model = None, cache: o.CacheFlags, quiet: o.Quiet = False
    ) -> int:
        print(model, cache.no_cache, cache.cache_size, quiet, sorted(o.given_values(context)))
        return 0

    app = typer.Typer(add_completion=False)
    app.command()(command)
    built: Any = typer.main.get_command(app)
    assert [param.name for param in built.params] == ["model", "no_cache", "cache_size", "quiet"]
    built.main(["--cache-size", "1GB", "-m", "fake"], standalone_mode=False)
    assert capsys.readouterr().out == "fake False 1GB False ['cache_size', 'model']\n"


@pytest.mark.parametrize("name", ["run", "chat", "batch"])
def test_a_variable_is_called_as_errors_call_it(name: str) -> None:
    """`given_values` makes its name of the parameter's."""
    built: Any = typer.main.get_command(command_line([name]))
    variables = {param.name: param.envvar for param in built.commands[name].params if param.envvar}
    assert len(variables) > 20
    assert variables == {name: f"INFER_{name.upper()}" for name in variables}


def test_values_are_read_in_the_types_that_they_have() -> None:
    values = Values(
        {"seed": Given(7, "--seed"), "stop": Given(("a", "b"), "config.toml"), "raw": Given(True, "-")}
    )
    assert (values.whole("seed"), values.texts("stop"), values.is_set("raw")) == (7, ("a", "b"), True)
    assert (values.whole("top_k"), values.texts("var"), values.is_set("json")) == (None, (), False)
    assert values.by_flag() == {"seed", "raw"}
    with pytest.raises(TypeError, match="seed is 7"):
        values.text("seed")


@pytest.mark.parametrize("typed", [["--think=high"], ["--stats=false"], ["--logprobs"]])
def test_an_error_of_the_parser_names_the_help_of_its_command(typed: list[str]) -> None:
    one_error_line(infer("run", "hi", *typed), 2, "see `infer run --help`")


@pytest.mark.parametrize("n", ["0", "-2"])
def test_too_few_tokens(n: str) -> None:
    one_error_line(infer("run", "-m", "fake", "hi", "-n", n), 2, f"--max-tokens {n}", "-1 is as many")


def test_the_values_of_a_switch_have_no_empty_one() -> None:
    done = infer("run", "-m", "fake", "hi", env={"INFER_STATS": "abc"})
    one_error_line(done, 2, "Recognized values: 0, 1", "INFER_STATS")


def test_a_file_that_is_not_there_has_a_hint() -> None:
    one_error_line(infer("run", "-m", "fake", "-f", "nope.txt", "hi"), 2, "no file nope.txt", "hint: check")


@pytest.mark.skipif(os.name == "nt", reason="exit codes of signals")
@pytest.mark.parametrize("command", ["models list", "models show smollm2 --json", "task list --json"])
def test_a_reader_that_has_gone_is_the_same_exit_code_everywhere(command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*INFER, *command.split()], stdout=writing, stderr=subprocess.PIPE, cwd=REPO)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_what_is_not_set_is_said_in_words() -> None:
    shown = settings_table([Setting("think", None, "default"), Setting("ctx", 512, "--ctx")])
    assert shown.splitlines() == ["think = not set  (default)", "ctx   = 512      (--ctx)"]
