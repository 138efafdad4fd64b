"""The turns of a conversation and its branches: undo, another reply and branches are operations on lists.

Each turn knows the evaluation that it ended with. Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from infer_cli.conversation.shortening import VisibleTurns
from infer_cli.errors import UsageError
from infer_cli.text.reasoning import TagPair
from infer_cli.types import Reply, Segment

MAIN_BRANCH = "main"


@dataclass(frozen=True)
class Turn:
    """A message and its reply. `ids` are the reply's sampled ones, None where another model sampled them."""

    user: str
    text: str
    reasoning: str
    ids: tuple[int, ...] | None
    evaluated: tuple[Segment, ...]  # all that the sequence held when the reply ended
    visible: VisibleTurns  # what of the turns before was in the prompt
    opened: TagPair | None  # the tag pair that the prompt had left open
    replies: tuple[Reply, ...]  # one, and one more for each time it was continued

    @property
    def reply(self) -> Reply:
        return self.replies[-1]

    def as_text(self) -> Turn:
        """As another model reads it: ids mean nothing to it."""
        return replace(self, ids=None, evaluated=(), visible=VisibleTurns())


class Branches:
    """The turns of each branch, by its name. `current` is the one in use."""

    def __init__(self) -> None:
        self._turns: dict[str, list[Turn]] = {MAIN_BRANCH: []}
        self.current = MAIN_BRANCH

    @property
    def turns(self) -> list[Turn]:
        """Of the branch in use."""
        return self._turns[self.current]

    @property
    def sizes(self) -> dict[str, int]:
        """Turns of each branch, by name."""
        return {name: len(turns) for name, turns in self._turns.items()}

    @property
    def heads(self) -> dict[str, str | None]:
        """Id of each branch's last reply, by name; None where it has no turn."""
        return {name: turns[-1].reply.id if turns else None for name, turns in self._turns.items()}

    def switch(self, name: str) -> bool:
        """Go to a branch; a new name begins as a copy of this one. Whether it is new."""
        is_new = name not in self._turns
        if is_new:
            self._turns[name] = list(self.turns)
        self.current = name
        return is_new

    def restore(self, branches: Mapping[str, Sequence[Turn]], current: str) -> None:
        """Have these branches in place of its own, and go to one of them."""
        self._turns = {name: list(turns) for name, turns in branches.items()}
        self.current = current

    def clear(self) -> None:
        """Begin anew."""
        self.restore({MAIN_BRANCH: []}, MAIN_BRANCH)

    def undo(self) -> Turn:
        """Take the last turn back. Raises UsageError where there is none."""
        if not self.turns:
            raise UsageError("there is no turn yet")
        return self.turns.pop()

    def leave_ids_behind(self) -> None:
        """For another model: all turns are text from here on."""
        self.restore(
            {name: [turn.as_text() for turn in turns] for name, turns in self._turns.items()}, self.current
        )
