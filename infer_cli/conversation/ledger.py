"""The records of a talk: each reply as it comes, and where the talk stands. A failure is one warning."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from infer_cli.errors import InferError, UsageError
from infer_cli.records.store import Store, keep_turn, store_path
from infer_cli.records.thread import Thread, ThreadSummary, Told
from infer_cli.system.ids import new_id

if TYPE_CHECKING:
    from infer_cli.conversation.turns import Conversation
    from infer_cli.records.record import Record


class Ledger:
    """Writes one conversation to the user's store; `begin` and `go_on` choose which."""

    def __init__(self, warn: Callable[[str], None], *, off: bool) -> None:
        self._warn, self._off = warn, off
        self.begin()

    def begin(self) -> None:
        """From here on it is a new conversation."""
        self.thread_id = new_id()
        self.name: str | None = None
        self._is_kept = False

    def go_on(self, thread: Thread) -> None:
        self.thread_id, self.name = thread.id, thread.name
        self._is_kept = True

    def keep(self, make: Callable[[], Record], talk: Conversation) -> None:
        """Record a reply that the talk has just taken in."""
        if not self._off:
            keep_turn(make, self._state(talk), self._warn)
            self._is_kept = True

    def move(self, talk: Conversation, told: Told) -> None:
        """Note where the talk stands, and what it was told, after something changed without a new reply."""
        if self._off or not self._is_kept:
            return
        try:
            with Store.open(store_path(), self._warn) as store:
                store.move(self._state(talk, told))
        except InferError as e:
            self._warn(f"where the conversation stands was not recorded: {e}")

    def _state(self, talk: Conversation, told: Told | None = None) -> Thread:
        return Thread(self.thread_id, talk.branch, talk.heads, told=told)

    def rename(self, name: str) -> None:
        """Raises UsageError, UnexpectedFailure."""
        if self._off:
            raise UsageError("nothing is recorded here, so no name can be kept")
        with Store.open(store_path(), self._warn) as store:
            store.rename(self.thread_id, name)
        self.name = name

    def recent(self, limit: int) -> list[ThreadSummary]:
        """Conversations, the one that was used last first. Raises UnexpectedFailure."""
        with Store.open(store_path(), self._warn) as store:
            return store.threads(limit)
