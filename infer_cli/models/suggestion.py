"""Which model of the catalogue could take the place of the small default one on this machine. Told once."""

from __future__ import annotations

from typing import NamedTuple

from infer_cli.models.catalogue import Catalogue, ModelEntry
from infer_cli.system.paths import data_dir
from infer_cli.system.private_files import make_private_dir

_WINDOW = 8192  # tokens
_SHARE = 0.5  # of the memory that is free: other programs go on running
_LEAST_RATE = 5.0  # tokens a second: as fast as people read
_MARK = "suggested-a-model"


class Suggested(NamedTuple):
    """A model, the bytes of its file, and about how many tokens a second it writes here."""

    name: str
    size: int
    rate: float


def suggested_for(catalogue: Catalogue, free_bytes: int | None, rate: float) -> Suggested | None:
    """The largest of the suggested models that fits well and writes fast enough to be read as it comes; None
    where none does, or nobody knows. The default model has just written `rate` tokens a second.

    Each token reads all weights once, so a model of twice the size writes half as fast.
    """
    small = catalogue.entries[catalogue.default].size
    if free_bytes is None or small is None:
        return None
    fitting = [
        Suggested(entry.name, entry.size, rate * small / entry.size)
        for entry in catalogue.entries.values()
        if entry.suggested and entry.size and _needs_at_most(entry, _SHARE * free_bytes)
    ]
    quick = [each for each in fitting if each.rate >= _LEAST_RATE]
    return max(quick, key=lambda each: each.size, default=None)


def _needs_at_most(entry: ModelEntry, n_bytes: float) -> bool:
    needed = entry.memory(_WINDOW)
    return needed is not None and needed <= n_bytes


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
