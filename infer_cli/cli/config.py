"""`infer config`: the user's settings."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from infer_cli.cli.flags.lists import AsJson, AsJsonl, print_objects, wants_json
from infer_cli.settings.config_file import config_path, read_config, toml_key, toml_text
from infer_cli.text.sanitize import single_line

app = typer.Typer(help="Show and change the configuration file.")


@app.command()
def path() -> None:
    """Print where config.toml is looked for."""
    print(config_path())


@app.command()
def show(as_json: AsJson = False, as_jsonl: AsJsonl = False) -> None:
    """Print the settings of config.toml, a line each."""
    settings: dict[str, object] = {}
    for key, value in read_config().items():
        if isinstance(value, dict):
            settings |= {f"{key}.{toml_key(inner)}": setting for inner, setting in value.items()}
        else:
            settings[key] = value
    if wants_json(as_json, as_jsonl):
        shown = ({"name": name, "value": _in_json(value)} for name, value in settings.items())
        print_objects(shown, lines=as_jsonl)
    else:
        for name, value in settings.items():
            print(f"{name} = {toml_text(value)}")


@app.command("set", context_settings={"ignore_unknown_options": True})  # -1 is a value
def set_(
    name: Annotated[str, typer.Argument(help="A flag's long name without the dashes, or COMMAND.NAME.")],
    value: Annotated[str, typer.Argument(help='Text, or a value as TOML has it: 5, true, ["a", "b"].')],
) -> None:
    """Change a setting in config.toml. Comments and all else in the file stay."""
    from infer_cli.cli.app import check_settings
    from infer_cli.settings.config_edit import value_of, with_setting, write_config

    setting = value_of(value)
    text, settings = with_setting(name, setting)
    check_settings(settings)
    write_config(text)
    print(f"{single_line(name)} = {single_line(toml_text(setting))} in {config_path()}", file=sys.stderr)


@app.command()
def edit() -> None:
    """Open config.toml in your editor ($VISUAL, $EDITOR), then check it."""
    from infer_cli.cli.app import check_settings
    from infer_cli.cli.screen.editor import edit_file
    from infer_cli.errors import UnexpectedFailure
    from infer_cli.settings.config_edit import write_config

    if not config_path().exists():
        write_config("")
    if not edit_file(config_path()):
        raise UnexpectedFailure("the editor failed", "`infer config show` shows what is in the file")
    check_settings(read_config())


def _in_json(value: object) -> object:
    """Dates and times are text."""
    if isinstance(value, dict):
        return {key: _in_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_json(item) for item in value]
    return value if isinstance(value, (str, int, float)) else toml_text(value)
