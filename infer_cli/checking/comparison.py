"""Two lines of an output, field by field: the one that is there, and the one that should be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from infer_cli.batch.job import OutputFormat

# What no one can compute again, or what says nothing of the reply, and all below it. The rest is compared.
NOT_CHECKED: Mapping[OutputFormat, frozenset[str]] = {
    "infer": frozenset(
        {"id", "timings", "usage.cached_tokens", "probed", "model.name", "error.message"},
    ),
    "openai": frozenset(
        {
            "id",
            "error.message",
            "response.request_id",
            "response.body.id",
            "response.body.created",
            "response.body.model",
            "response.body.usage.prompt_tokens_details.cached_tokens",
        }
    ),
}
# Natural logarithms, where the engine does not promise the same bits: between batches of other shapes they
# differ by some hundredths.
LOGPROB_TOLERANCE = 0.1
# Of a likelihood, and a function of its token_logprobs: its line was looked at for that. A reply's digest is
# compared before.
_FOLLOWS = {("logprob",), ("logprob_per_token",), ("logprob_per_byte",), ("greedy",), ("digest",)}


class Field(NamedTuple):
    """A field that differs. `path` is as in `usage.prompt_tokens`, `choices[0].index`."""

    path: str
    was: object
    now: object


def differing_fields(
    was: Mapping[str, object], now: Mapping[str, object], form: OutputFormat, *, tolerance: float | None
) -> Iterator[Field]:
    """Fields of a line that are not those of another. A field that is missing is null.

    `tolerance` None: all bits are compared. Otherwise log-probabilities may differ by it. What follows from
    them is not compared: which tokens were the likeliest, sums of a likelihood and its digest, numbers of
    choices.
    """
    yield from _Comparison(NOT_CHECKED[form], tolerance).run(was, now, ())


def fields_that_differ(was: Mapping[str, object], now: Mapping[str, object]) -> Iterator[Field]:
    """All of two objects, compared to the last bit."""
    yield from _Comparison(frozenset(), None).run(was, now, ())


class _Comparison:
    def __init__(self, not_checked: frozenset[str], tolerance: float | None) -> None:
        self._not_checked = {tuple(path.split(".")) for path in not_checked}
        self._tolerance = tolerance

    def run(self, was: object, now: object, path: tuple[str, ...]) -> Iterator[Field]:
        if path in self._not_checked or self._is_near(was, now, path):
            return
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            for key in {**now, **was}:
                yield from self.run(was.get(key), now.get(key), (*path, key))
        elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
            for i, pair in enumerate(zip(was, now, strict=True)):
                yield from self.run(*pair, (*path, f"[{i}]"))
        elif not is_same(was, now):
            yield Field(".".join(path).replace(".[", "["), was, now)

    def _is_near(self, was: object, now: object, path: tuple[str, ...]) -> bool:
        if self._tolerance is None:
            return False
        if path[:1] in _FOLLOWS or (path[:1] == ("choices",) and isinstance(now, float)):
            return type(was) is type(now)
        if not any("logprobs" in key for key in path):
            return False
        if path[-1] == "top_logprobs":
            return type(was) is type(now)
        return isinstance(was, float) and isinstance(now, float) and abs(was - now) <= self._tolerance


def is_same(was: object, now: object) -> bool:
    """Whether two JSON values are the same: 1, 1.0 and true are three."""
    try:
        return json.dumps(was, sort_keys=True) == json.dumps(now, sort_keys=True)
    except RecursionError:
        return False


def unequal(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    """Names of values that are not the same in both."""
    return [name for name in {**a, **b} if not is_same(a.get(name), b.get(name))]
