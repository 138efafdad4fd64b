"""Whether F16 weights are tried without leaving a model behind."""

from __future__ import annotations

from typing import cast

import pytest

from infer_cli.batch import measuring
from infer_cli.errors import OutOfMemory
from infer_cli.runtime.session import Session


class CountedSession:
    """A session that only knows whether it was closed."""

    def __init__(self, tps: float | None) -> None:
        self.loaded = tps  # tokens a second; None: the memory does not reach for it
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def _reading_tps(loaded: float | None) -> float:
    if loaded is None:
        raise OutOfMemory("no room")
    return loaded


@pytest.mark.parametrize(
    ("tps", "taken", "failed"), [(200.0, True, False), (101.0, False, False), (None, False, True)]
)
def test_a_model_that_is_not_taken_is_closed(
    monkeypatch: pytest.MonkeyPatch, tps: float | None, taken: bool, failed: bool
) -> None:
    monkeypatch.setattr(measuring, "reading_tps", _reading_tps)
    stored, f16 = CountedSession(100.0), CountedSession(tps)
    trial = measuring.try_f16(cast(Session, stored), lambda: cast(Session, f16))
    assert trial.session is cast(Session, f16 if taken else stored)
    assert trial.failed is failed
    assert f16.is_closed is not taken
    assert not stored.is_closed
