"""The shape of a conversation on a loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_cli.runtime.fake_loading import FakeLoading
from infer_cli.runtime.loading import Loading

if TYPE_CHECKING:
    pass


TALK_WINDOW = 8192  # of `--ctx auto` in a conversation, where the model was trained for as much


def talk_shape(loading: Loading | FakeLoading, ctx: int | None) -> tuple[int, int]:
    """A conversation's window in tokens, and its chunk: prompt tokens a call, 1 where shapes mean nothing."""
    policy = loading.policy
    return ctx or min(loading.n_ctx_train, TALK_WINDOW), policy.chunk if policy.fixed_width else 1
