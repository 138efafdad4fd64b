"""How many requests an engine is given ahead, where it takes replies and likelihoods."""

from __future__ import annotations

from collections.abc import Iterator

from infer_cli.answering.feed import Feed
from infer_cli.models.installed import fake_model
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.session import Session
from infer_cli.types import EngineRequest, ScoreRequest
from tests.engine_helpers import request


def test_replies_wait_for_their_slots_beside_likelihoods() -> None:
    """A deadline counts from when a request is handed in: not hundreds at once, as likelihoods are."""
    session = Session(fake_model("fake"), EngineOptions(threads=1, mode="invariant"), 4, 2)
    running = session.start(256, score_window=64)
    live: dict[type, int] = {EngineRequest: 0, ScoreRequest: 0}
    most = dict(live)

    def work() -> Iterator[tuple[type, EngineRequest | ScoreRequest]]:
        for n in range(60):
            item = request(f"r{n}", max_tokens=3) if n % 2 else ScoreRequest(f"s{n}", tuple(b"abc"), 1)
            live[type(item)] += 1
            most[type(item)] = max(most[type(item)], live[type(item)])
            yield type(item), item

    ended = 0
    for kind, end in Feed(running.service, work()):
        live[kind] -= 1
        ended += end.reason in ("stop", "length")
    running.close()
    assert ended == 60
    # One more is read than is handed in.
    assert most[EngineRequest] <= running.service.n_ahead_of(request("x")) + 1 < 10
