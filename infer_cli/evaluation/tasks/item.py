"""An item of an evaluation: one question, with what a correct answer is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Gold = int | None


@dataclass(frozen=True)
class Item:
    """`index` counts the items of a run from 0; `id` is the item's own, and no other's. `doc` is the row of
    the data as it was read, JSON values only.

    `rows` are what the model is asked, in the form of a line of `infer batch` (kind `generate`) or of
    `infer score` (all others): each is one object with a `custom_id` of its own. `choices` are the texts of
    which one is right (`choice`, and good before bad of `minimal_pairs`), `gold` the right one's place.
    `references` are correct answers. `fewshot` are the ids of the examples that were shown.
    `cluster`: items of one name are not independent.
    """

    index: int
    id: str
    doc: Mapping[str, object]
    rows: tuple[Mapping[str, object], ...]
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    gold: Gold = None
    group: str | None = None
    cluster: str | None = None
    fewshot: tuple[str, ...] = ()


Aggregation = Literal["mean", "ratio", "pass@k", "majority", "corpus"]


@dataclass(frozen=True)
class Metric:
    """A number that a run comes to. `score`: the key of the samples' scores that it is made of.

    - `mean`: of the items' scores (an item's score is the mean of its samples').
    - `ratio`: the scores' sum over that of the samples' `sizes[size]`; `is_exponential`: 2 to the power of
      it for bits, which `perplexity` is (`score` is in bits).
    - `pass@k`: of `k` samples of an item, at least one has a score of 1.
    - `majority`: the score of the answer that most samples of an item gave.
    - `corpus`: what a function makes of all items' values, which a sample has as JSON among its
      explanations, or as its score.

    `is_proportion`: each score is 0 or 1. `worst` is what an item without an answer counts as; None: it
    can't be counted, so the metric has no value where one failed.
    """

    name: str
    score: str
    aggregation: Aggregation = "mean"
    is_proportion: bool = False
    higher_is_better: bool = True
    worst: float | None = 0.0
    k: int = 1
    size: str = ""
    is_exponential: bool = False
