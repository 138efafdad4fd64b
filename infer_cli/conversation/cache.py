"""What a conversation keeps in the prefix cache for its next turn in another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from infer_cli.engine.history import length
from infer_cli.settings.defaults import MIN_PREFIX
from infer_cli.types import Segment

if TYPE_CHECKING:
    from infer_cli.conversation.model import ConversationModel
    from infer_cli.prefix_cache.cache import PrefixCache


class ConversationCache:
    """The user's prefix cache for one model's engine, opened once it is needed: the model's file has to be
    hashed for it. `most_bytes` is what the cache may hold, `note` takes what is of interest to `--stats`."""

    def __init__(self, model: ConversationModel, most_bytes: int | None, note: Callable[[str], None]) -> None:
        self._model, self._most_bytes, self._note = model, most_bytes, note
        self._opened: PrefixCache | None = None

    def _prefixes(self) -> PrefixCache:
        if self._opened is None:
            from infer_cli.prefix_cache.warming import open_cache

            session, running = self._model.session, self._model.running
            self._opened = open_cache(session, running, session.sha256(), self._most_bytes, self._note)
        return self._opened

    def restore(self, evaluated: tuple[Segment, ...]) -> None:
        """Give the engine what a conversation has evaluated in another process, where that was kept."""
        if length(evaluated) >= MIN_PREFIX:
            self._prefixes().restore_conversation(evaluated)

    def restore_beginning(self, ids: tuple[int, ...]) -> None:
        """Begin with what another command has kept of the first message's files."""
        model = self._model.session.model
        # Else the model's file would have to be read whole first.
        if len(ids) >= MIN_PREFIX and (model.is_fake or model.sha256 is not None):
            self._prefixes().restore(ids)

    def keep(self, evaluated: tuple[Segment, ...]) -> None:
        """Keep what a conversation has evaluated. Never fails."""
        if length(evaluated) >= MIN_PREFIX:
            self._prefixes().keep_conversation(evaluated)
