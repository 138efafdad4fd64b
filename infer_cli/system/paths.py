"""Where state lives. Pure getters: nothing here creates a directory.

`INFER_HOME` moves everything (models, cache, records, configuration) under one directory;
otherwise platformdirs decides. All raise UsageError where there is no such home directory.
"""

from __future__ import annotations

import os
from pathlib import Path

from infer_cli.errors import UsageError


def _home() -> Path | None:
    home = os.environ.get("INFER_HOME")
    if not home:
        return None
    try:
        return Path(home).expanduser().absolute()
    except RuntimeError:
        raise UsageError(
            f"INFER_HOME {home!r}: there is no such user's home directory", "give it a whole path"
        ) from None


def _known(path: Path) -> Path:
    """What platformdirs says. Raises UsageError where it is none: no HOME, and a user without one."""
    if not path.is_absolute():
        raise UsageError("this user has no home directory", "set INFER_HOME to a directory")
    return path


def config_dir() -> Path:
    """Holds `config.toml`, the user's own `models.toml` and `prompts/`."""
    home = _home()
    if home:
        return home / "config"
    from platformdirs import user_config_path

    return _known(user_config_path("infer", appauthor=False))


def data_dir() -> Path:
    """Holds records and the notes on installed models."""
    home = _home()
    if home:
        return home / "data"
    from platformdirs import user_data_path

    return _known(user_data_path("infer", appauthor=False))


def models_dir() -> Path:
    """Holds downloaded GGUF files."""
    home = _home()
    return (home / "models") if home else data_dir() / "models"


def cache_dir() -> Path:
    """Holds what can be computed again."""
    home = _home()
    if home:
        return home / "cache"
    from platformdirs import user_cache_path

    return _known(user_cache_path("infer", appauthor=False))
