"""Changes the user's `config.toml`. What is not changed stays as it was written, comments included."""

from __future__ import annotations

from typing import Any

from infer_cli.errors import UnexpectedFailure, UsageError
from infer_cli.settings.config_file import config_path, read_settings, toml_text
from infer_cli.settings.toml_file import parse_toml


def value_of(text: str) -> object:
    """A value as TOML has it (`5`, `true`, `["a", "b"]`); any other text is a string."""
    path = config_path()
    for line in (f"value = {text}", f"value = {toml_text(text)}"):
        try:
            found = parse_toml(line.encode("utf-8", "surrogateescape"), path)
        except UsageError:
            continue
        if set(found) == {"value"}:  # else the text went on with a line of its own
            return found["value"]
    raise UsageError(f"{text!r} can't be a value", "a setting is text, a number, true, false or an array")


def with_setting(name: str, value: object) -> tuple[str, dict[str, Any]]:
    """The file's text and settings with `name` (`seed`, `run.seed`) set to `value`.

    Raises UsageError for a file that is wrong already, and for a name that has too many parts.
    """
    import tomlkit

    path = config_path()
    before = read_settings(path) or b""
    settings = parse_toml(before, path)
    *tables, key = name.split(".")
    if len(tables) > 1 or not all((*tables, key)):
        raise UsageError(f"{name!r} is no setting", "write NAME or COMMAND.NAME, such as run.temperature")
    document = tomlkit.parse(before.decode())
    where, within = (document, settings) if not tables else _table(document, settings, tables[0])
    where[next((known for known in within if _is_same(known, key)), key)] = value
    text = tomlkit.dumps(document)
    return text, parse_toml(text.encode(), path)


def _is_same(name: str, other: str) -> bool:
    """`max_tokens` is `max-tokens`."""
    return name.replace("_", "-") == other.replace("_", "-")


def write_config(text: str) -> None:
    """Raises UnexpectedFailure for trouble with the disk."""
    from infer_cli.system.files import write_atomic

    path = config_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, [text.encode()])
    except OSError as error:
        raise UnexpectedFailure(f"cannot write {path}: {error.strerror}", "check its permissions") from error


def _table(document: Any, settings: dict[str, Any], name: str) -> tuple[Any, dict[str, Any]]:
    """The table of a command, in the document and in its settings; an empty one where there is none."""
    import tomlkit

    if name not in document:
        document[name] = tomlkit.table()
    within = settings.setdefault(name, {})
    if not isinstance(within, dict):
        raise UsageError(f"{config_path()}: {name} is a setting, not the table of a command", "remove it")
    return document[name], within
