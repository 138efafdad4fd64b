"""Flags that commands share: how a command takes a group of them, and how their values are read."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from infer_cli.cli.app import command_line
from infer_cli.cli.flags import options as o
from infer_cli.cli.flags.values import Values
from infer_cli.settings.origins import Given


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
