"""A value that the user gave, and how. Apart from `settings` so that `infer --help` loads neither."""

from __future__ import annotations

from typing import NamedTuple


class Given(NamedTuple):
    """`origin` is `--top-k`, `INFER_TOP_K`, `config.toml` or `--set top_k`."""

    value: object
    origin: str

    @property
    def by_flag(self) -> bool:
        return self.origin.startswith("-")


class RunSeed(Given):
    """The seed that a run's replies have theirs of. `origin` is `drawn` too."""

    __slots__ = ()
    value: int

    def __new__(cls, value: int, origin: str) -> RunSeed:
        return super().__new__(cls, value, origin)


def flag_of(name: str) -> str:
    """`top_k` -> `--top-k`."""
    return "--" + name.replace("_", "-")


class Setting(NamedTuple):
    name: str
    value: object
    origin: str
