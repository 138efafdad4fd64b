"""The items of a run with their scored answers, one at a time: what other programs' files are made of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.reading import Run
from infer_cli.evaluation.runs.sample import Sample
from infer_cli.evaluation.tasks.item import Item
from infer_cli.evaluation.tasks.item_file import read_written_items
from infer_cli.system.hashing import sha256_hex

_N_ID = 22  # characters of an id, as other programs' random ones have


class ScoredItem(NamedTuple):
    """`samples`: all of the item's answers, at least one, in the order of seeds and samples."""

    item: Item
    samples: Sequence[Sample]

    @property
    def prompt(self) -> object:
        """What was asked: a text, or messages. Of a perplexity, the text itself."""
        if self._is_text:
            return "".join(str(row.get("continuation")) for row in self.item.rows)
        return self.samples[0].prompt

    @property
    def prompt_text(self) -> str:
        """Messages are their JSON, as lm-evaluation-harness has it for models that take messages."""
        prompt = self.prompt
        return prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)

    @property
    def targets(self) -> list[str]:
        """Correct answers: those of the task, the text of the right choice, or what a likelihood is of."""
        item = self.item
        if item.gold is not None and item.choices:
            return [item.choices[item.gold]]
        if item.references or self._is_text:
            return list(item.references)
        continuation = item.rows[0].get("continuation")
        return [str(continuation)] if continuation is not None else []

    @property
    def _is_text(self) -> bool:
        return "bytes" in self.samples[0].sizes

    @property
    def continuations(self) -> list[str]:
        """Of the rows: the texts whose likelihood was asked for; empty where replies were."""
        return (
            []
            if self._is_text
            else [str(row["continuation"]) for row in self.item.rows if "continuation" in row]
        )


def scored_items(run: Run) -> Iterator[ScoredItem]:
    """In the order of the run. Raises UsageError for files that do not belong together."""
    items = read_written_items(run.folder.items, run.folder.requests)
    for samples in run.items():
        item = next(items, None)
        if item is None or item.id != samples[0].item:
            raise UsageError(
                f"{run.folder.samples}: item {samples[0].item} is not the one of {run.folder.items.name}",
                "`infer rescore` writes the file again",
            )
        yield ScoredItem(item, samples)


def explanation_of(sample: Sample, name: str) -> str:
    """Why a score is what it is: the scorer's own words, or what it was taken from."""
    found = sample.explanations.get(name)
    if sample.outcome == "ok":
        return found or _likelihoods(sample) or f"found: {sample.extracted}"
    why = f"counts as failed: {sample.outcome.replace('_', ' ')}"
    if sample.error is not None:
        why += f" ({sample.error.get('message') or sample.error.get('code') or 'no answer'})"
    return why if found is None else f"{why}; {found}"


def _likelihoods(sample: Sample) -> str | None:
    if "bits" in sample.scores:
        return f"{sample.scores['bits']:.6g} bits over {sample.sizes.get('bytes', math.nan):.0f} bytes"
    if not sample.choices:
        return None
    told = ("none" if choice.logprob is None else f"{choice.logprob:.6f}" for choice in sample.choices)
    lines = (f"{logprob}  {choice.text}" for logprob, choice in zip(told, sample.choices, strict=True))
    return "log-likelihoods:\n" + "\n".join(lines)


def began_at(run: Run) -> datetime:
    """When the run began, in UTC. Raises UsageError."""
    text = run.facts.began_at
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(
            f"{run.folder.facts}: began_at is no time: {text:.40}", "put back the file that the run wrote"
        ) from None
    return found.replace(tzinfo=timezone.utc) if found.tzinfo is None else found.astimezone(timezone.utc)


def model_path(run: Run) -> str:
    """What other programs' files call the model. Readers of these take its maker or engine from what is
    before the first `/`, and know this one."""
    return f"llama-cpp-python/{run.results.model.name}"


def derived_id(*parts: object) -> str:
    """An id where other programs draw one: a function of what it is of."""
    return sha256_hex("\0".join(map(str, parts)).encode())[:_N_ID]


def parameters(config: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    """Of a run's configuration what another program has under the names given as values."""
    return {theirs: config[ours] for ours, theirs in names.items() if config.get(ours) is not None}
