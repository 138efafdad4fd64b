"""`infer config`: the user's settings."""

from __future__ import annotations

import typer

from infer_cli.settings.config_file import config_path, read_config, toml_key, toml_text

app = typer.Typer(help="Show the configuration file.")


@app.command()
def path() -> None:
    """Print where config.toml is looked for."""
    print(config_path())


@app.command()
def show() -> None:
    """Print the settings of config.toml, a line each."""
    for key, value in read_config().items():
        if isinstance(value, dict):
            for inner, setting in value.items():
                print(f"{key}.{toml_key(inner)} = {toml_text(setting)}")
        else:
            print(f"{key} = {toml_text(value)}")
