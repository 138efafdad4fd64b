"""Where state lives. Pure getters: nothing here creates a directory.

`INFER_HOME` moves everything (models, cache, records, configuration) under one directory;
otherwise platformdirs decides.
"""

from __future__ import annotations

import os
from pathlib import Path


def _home() -> Path | None:
    home = os.environ.get("INFER_HOME")
    return Path(home).expanduser() if home else None


def config_dir() -> Path:
    """Holds `config.toml`, the user's own `models.toml` and `prompts/`."""
    home = _home()
    if home:
        return home / "config"
    from platformdirs import user_config_path

    return user_config_path("infer", appauthor=False)


def data_dir() -> Path:
    """Holds records and the model shelf's own notes."""
    home = _home()
    if home:
        return home / "data"
    from platformdirs import user_data_path

    return user_data_path("infer", appauthor=False)


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

    return user_cache_path("infer", appauthor=False)
