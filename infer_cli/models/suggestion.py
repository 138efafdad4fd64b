"""Which model of the catalogue could take the place of the small default one on this machine. Told once."""

from __future__ import annotations

from infer_cli.models.catalogue import Catalogue, ModelEntry
from infer_cli.system.paths import data_dir
from infer_cli.system.private_files import make_private_dir

_WINDOW = 8192  # tokens
_SHARE = 0.5  # of the memory that is free: other programs go on running
_MARK = "suggested-a-model"


def suggested_for(catalogue: Catalogue, free_bytes: int | None) -> ModelEntry | None:
    """The largest of the suggested models that fits well; None where none does, or nobody knows."""
    if free_bytes is None:
        return None
    fitting = {
        entry.name: needed
        for entry in catalogue.entries.values()
        if entry.suggested and (needed := entry.memory(_WINDOW)) is not None and needed <= _SHARE * free_bytes
    }
    return catalogue.entries[max(fitting, key=fitting.__getitem__)] if fitting else None


def was_told() -> bool:
    """Whether a model has been suggested here before. Raises UsageError where there is no home directory."""
    return (data_dir() / _MARK).exists()


def mark_as_told() -> bool:
    """Whether this process is the one to tell: nobody told before, and that it is told can be kept."""
    try:
        make_private_dir(data_dir())
        (data_dir() / _MARK).touch(exist_ok=False)
    except OSError:
        return False
    return True
