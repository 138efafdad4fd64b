"""What of a row the engine is asked, and what has come of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic

from infer_cli.batch.kind import A, Asked, Origin
from infer_cli.types import EngineRequest, Finished, ScoreRequest


class OpenRow(Generic[A]):
    """Answers of which some are not there yet."""

    def __init__(self, origin: Origin, asked: Asked[A], samples: Iterable[int]) -> None:
        self._origin, self._asked = origin, asked
        self._requests = {sample: tuple(asked.requests(sample)) for sample in samples}
        self._ends: dict[str, Finished] = {}

    @property
    def is_done(self) -> bool:
        return not self._requests

    def requests(self, sample: int) -> Sequence[EngineRequest | ScoreRequest]:
        """What is asked for an answer that is not there yet."""
        return self._requests[sample]

    def finished(self, sample: int, end: Finished) -> A | None:
        """The answer, once all that was asked for it has ended."""
        self._ends[end.request_id] = end
        ids = [request.id for request in self._requests[sample]]
        if not all(request_id in self._ends for request_id in ids):
            return None
        del self._requests[sample]
        return self._asked.answer(self._origin, sample, [self._ends.pop(request_id) for request_id in ids])
