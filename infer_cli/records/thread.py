"""What is kept of one conversation beside its answers. Knows no database and no command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from infer_cli.settings.origins import Setting


class Told(NamedTuple):
    """What holds in a conversation from its next answer on: what the user said after the last one too."""

    model: str | None  # as `-m` has it; None: the one that gave the last answer
    system: str | None
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Thread:
    """A conversation as it stands: by `parent` its records lead from each branch's last to its first."""

    id: str
    branch: str  # the one in use
    heads: Mapping[str, str | None] = field(default_factory=dict)  # each branch's last record; None: no turn
    name: str | None = None
    told: Told | None = None  # None: as the last record has it


class ThreadSummary(NamedTuple):
    """A line of a list: `begins` is the first message that is still kept."""

    thread: Thread
    last_at: float  # Unix seconds
    n_turns: int  # of the branch in use
    begins: str
