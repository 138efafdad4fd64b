"""infer: answers from local language models that can be trusted and repeated."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` is not imported: an interrupt is not met yet while this file runs
if TYPE_CHECKING:
    from infer_cli.api import (
        Continuation,
        Delta,
        InferError,
        Measurement,
        Message,
        Model,
        Reply,
        ReplyStream,
        Request,
        SamplingParams,
        ScoredPair,
        as_json,
    )

__version__ = "0.1.0"
__all__ = [
    "Continuation",
    "Delta",
    "InferError",
    "Measurement",
    "Message",
    "Model",
    "Reply",
    "ReplyStream",
    "Request",
    "SamplingParams",
    "ScoredPair",
    "as_json",
]


def __getattr__(name: str) -> object:
    """The names of `infer_cli.api`, when they are first asked for: importing the package loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from infer_cli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
