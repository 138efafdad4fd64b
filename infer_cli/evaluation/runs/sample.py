"""A sample: one answer of the model to an item, and its scores. A line of `samples.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

# ok: it was scored as it is. The others count as wrong: an error row, a reply that the limit or window cut,
# an answer in which nothing was found of what the task looks for, a scorer that failed.
Outcome = Literal["ok", "error", "cut", "not_extracted", "scorer_failed"]


class ScoredChoice(NamedTuple):
    """A choice and its likelihood: the natural logarithm, summed over its tokens. None: it failed."""

    text: str
    logprob: float | None
    n_tokens: int
    n_bytes: int
    greedy: bool | None


@dataclass(frozen=True)
class Sample:
    """`prompt` is what the model was asked: a text, or messages. `answer` is its text; for kinds of
    likelihoods the text of the likeliest choice. `extracted` is what was found in it.

    `scores` are by name, and finite. `explanations` say of a score why, where a scorer does. `sizes` are what
    a ratio is taken over (`bytes`, `words`, `tokens`). `digests` are those of the lines that it was made of,
    in the order of the item's rows.
    """

    item: str
    index: int
    sample: int
    seed: int | None
    group: str | None
    cluster: str | None
    prompt: object
    answer: str | None
    extracted: str | None
    references: tuple[str, ...]
    outcome: Outcome
    scores: Mapping[str, float]
    explanations: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)
    choices: tuple[ScoredChoice, ...] = ()
    gold: int | None = None
    finish_reason: str | None = None
    error: Mapping[str, object] | None = None
    n_prompt_tokens: int = 0
    n_tokens: int = 0
    digests: Sequence[str] = ()

    def as_json(self) -> dict[str, object]:
        """The object of its line, in its fixed order of keys."""
        value = dict(vars(self))
        value["choices"] = [choice._asdict() for choice in self.choices]
        return value
