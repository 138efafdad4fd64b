"""Tasks that come with this program. Their data does not."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "shipped"


def shipped_names() -> list[str]:
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def shipped_path(name: str) -> Path | None:
    """The file of a shipped task; None where no task is called so."""
    return _FOLDER / f"{name}.toml" if name in shipped_names() else None
