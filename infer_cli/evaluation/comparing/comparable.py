"""What can be compared: a run as the scores of its items, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.evaluation.comparing.likeness import Likeness
from infer_cli.system.hashing import sha256

if TYPE_CHECKING:
    from infer_cli.evaluation.statistics.units import Doubles

_N_BYTES = 16  # of a hash: none are forged to be alike, by accident none ever are


class Content(NamedTuple):
    """Hashes of an item's row of data and of what the model was asked. Items are the same where both are."""

    document: bytes
    prompt: bytes


def content_of(document_sha256: str, prompt: object) -> Content:
    """`document_sha256` as a line of `items.jsonl` has it. `prompt`: a text, or messages."""
    asked = json.dumps(prompt, sort_keys=True, separators=(",", ":"))
    return Content(document_sha256.encode()[:_N_BYTES], sha256(asked.encode())[:_N_BYTES])


class MetricScores(NamedTuple):
    """A metric, item by item: `scores` of shape (n,), NaN for an item that the run leaves out.

    `sizes`, of the same shape: the metric is the sum of the scores over theirs; None: it is the mean of the
    scores. `missing` says why the metric has no value.
    """

    name: str
    higher_is_better: bool
    scores: Doubles
    sizes: Doubles | None = None
    missing: str | None = None

    def of(self, place: int) -> float:
        """An item's own score; of a ratio, its own ratio."""
        size = 1.0 if self.sizes is None else float(self.sizes[place])
        return float(self.scores[place]) / size


class Asked(NamedTuple):
    """What the model was asked of an item, and its (first) answer."""

    prompt: str
    answer: str | None


@dataclass(frozen=True)
class ComparableRun:
    """A run of one task with one model. `name` is what the user calls it. All sequences are in one order.

    `clusters`: a name for each item; None where the task names none. `metrics`: the main one first.
    `made_by`: what should be alike in runs that are compared (promise, mode, versions), by name.
    `asked` reads the texts of the item at a place. `is_foreign`: another program made it. `likenesses`: of
    each item, what tells it where one of two runs is foreign; read only then.
    """

    name: str
    task: str
    model: str
    ids: Sequence[str]
    contents: Sequence[Content]
    clusters: Sequence[str] | None
    metrics: tuple[MetricScores, ...]
    made_by: Mapping[str, str]
    asked: Callable[[int], Asked]
    likenesses: Callable[[], Sequence[Likeness]]
    is_foreign: bool = False

    def metric(self, name: str) -> MetricScores | None:
        """None: the run has it not."""
        return next((metric for metric in self.metrics if metric.name == name), None)
