"""The user's `config.toml`: defaults for flags, as `flag-name = value` at the top level for every command
that has the flag, or in a table named after one command. Knows no flags: the command line checks names."""

from __future__ import annotations

from pathlib import Path

from infer_cli.errors import UsageError
from infer_cli.system.paths import config_dir


def config_path() -> Path:
    return config_dir() / "config.toml"


def read_config() -> dict[str, object]:
    """The file as a dictionary; empty where there is none. Raises UsageError as `read_toml`."""
    path = config_path()
    data = read_settings(path)
    if data is None:
        return {}
    from infer_cli.settings.toml_file import parse_toml

    return parse_toml(data, path)


def read_settings(path: Path) -> bytes | None:
    """A file of settings; None where there is nothing. Raises UsageError for what can't be read."""
    try:
        path.lstat()  # most have none, and need not import what reads it
        from infer_cli.system.files import read_regular

        return read_regular(path)
    except FileNotFoundError:
        return None
    except OSError as e:
        is_home_wrong = isinstance(e, NotADirectoryError)
        hint = "set INFER_HOME to a directory" if is_home_wrong else "correct or remove it"
        raise UsageError(f"{path} can't be read: {e.strerror}", hint) from None


def toml_key(name: str) -> str:
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else toml_text(name)


def toml_text(value: object) -> str:
    """A value as TOML has it, in one line."""
    import json

    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # JSON's strings are TOML's, but for one control character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_key(key)} = {toml_text(item)}" for key, item in value.items()) + "}"
    return str(value)  # numbers, dates and times
