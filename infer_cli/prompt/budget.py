"""What fills the window: each part of a prompt, the room for the reply, what is left. Knows no output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Part(NamedTuple):
    what: str
    tokens: int


class Budget(NamedTuple):
    """Tokens. `parts` are the prompt's, in its order; their sum is the prompt."""

    window: int
    reserve: int  # for the reply
    parts: tuple[Part, ...]

    @property
    def prompt_tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def free(self) -> int:
        """What neither prompt nor reply needs; below zero where they do not fit."""
        return self.window - self.prompt_tokens - self.reserve

    def as_json(self, truncation: Mapping[str, object] | None = None) -> dict[str, object]:
        return {
            "window": self.window,
            "prompt_tokens": self.prompt_tokens,
            "reserve": self.reserve,
            "free": self.free,
            "fits": self.free >= 0,
            "parts": [part._asdict() for part in self.parts],
            "truncation": truncation,
        }


def budget_of(n_prompt: int, texts: Sequence[Part], *, window: int, reserve: int, rest: str) -> Budget:
    """`texts`: what the parts are by themselves. `rest` names what else the `n_prompt` tokens are."""
    between = n_prompt - sum(part.tokens for part in texts)
    parts = (*(part for part in texts if part.tokens), Part(rest, between))
    return Budget(window, reserve, parts)
