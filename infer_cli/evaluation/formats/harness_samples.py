"""Items as lm-evaluation-harness logs them: lines of `samples_TASK_DATE.jsonl`, the keys of its 0.4.13."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence

from infer_cli.answering.reply import json_line
from infer_cli.evaluation.formats.scored_items import ScoredItem
from infer_cli.evaluation.runs.item_amounts import PERPLEXITIES, RATIOS, measure_of
from infer_cli.evaluation.runs.sample import Sample
from infer_cli.system.hashing import sha256_hex

FILTER = "none"  # the harness's name of the answers as they are: a task of ours has one way to read them


class HarnessSamples:
    """Makes the lines of a run. `generation` are the arguments that replies were asked with."""

    def __init__(self, metrics: Sequence[str], generation: Mapping[str, object]) -> None:
        self._metrics, self._generation = metrics, generation
        self._measures = {name: measure for name in metrics if (measure := measure_of(name)) is not None}
        self._hashes = hashlib.sha256()

    @property
    def task_hash(self) -> str:
        """Of all items so far, as the harness takes it."""
        return self._hashes.hexdigest()

    def line(self, scored: ScoredItem) -> bytes:
        item, prompt = scored.item, scored.prompt_text
        target = _target(scored)
        hashes = {
            "doc_hash": sha256_hex(json.dumps(item.doc, indent=2, ensure_ascii=False).encode()),
            "prompt_hash": sha256_hex(prompt.encode()),
            "target_hash": sha256_hex(target.encode()),
        }
        self._hashes.update("".join(hashes.values()).encode())
        metrics = self._values(scored.samples)
        return json_line(
            {
                "doc_id": item.index,
                "doc": item.doc,
                "target": target,
                "arguments": {
                    f"gen_args_{i}": each for i, each in enumerate(self._arguments(scored, prompt))
                },
                "resps": _responses(scored),
                "filtered_resps": _filtered(scored),
                "filter": FILTER,
                "metrics": list(metrics),
                **hashes,
                **metrics,
                "infer": _own(scored),
            }
        )

    def _arguments(self, scored: ScoredItem, prompt: str) -> list[dict[str, object]]:
        if "bits" in scored.samples[0].scores or scored.samples[0].sizes:
            return [{"arg_0": prompt}]  # a text, as of `loglikelihood_rolling`
        if continuations := scored.continuations:
            return [{"arg_0": prompt, "arg_1": text} for text in continuations]
        return [{"arg_0": prompt, "arg_1": dict(self._generation)}]

    def _values(self, samples: Sequence[Sample]) -> dict[str, object]:
        """A metric's value of the item; of one that is taken over sizes, the log-likelihood and the size."""
        values: dict[str, object] = {}
        seeds: dict[int | None, list[Sample]] = {}
        for sample in samples:
            seeds.setdefault(sample.seed, []).append(sample)
        for name in self._metrics:
            size = RATIOS[name][1] if name in RATIOS else PERPLEXITIES.get(name)
            if size is not None:
                bits = samples[0].scores.get("bits")
                if bits is not None:
                    values[name] = [-bits * math.log(2), samples[0].sizes.get(size, 0.0)]
            elif name in self._measures:
                amounts = [self._measures[name](each) for each in seeds.values()]
                known = [amount.score for amount in amounts if amount is not None]
                if len(known) == len(amounts):
                    values[name] = statistics.fmean(known)
        return values


def _target(scored: ScoredItem) -> str:
    """The place of a right choice, else the correct answer; of several, the list of them."""
    if scored.item.gold is not None:
        return str(scored.item.gold)
    targets = scored.targets
    return targets[0] if len(targets) == 1 else str(targets) if targets else ""


def _responses(scored: ScoredItem) -> list[object]:
    """By row, what came of each time that it was asked. All are texts, as the harness writes them."""
    first = scored.samples[0]
    if "bits" in first.scores:
        return [[str(-first.scores["bits"] * math.log(2))]]
    if first.choices:
        return [[[str(choice.logprob), str(choice.greedy)]] for choice in first.choices]
    return [[sample.answer or "" for sample in scored.samples]]


def _filtered(scored: ScoredItem) -> list[object]:
    first = scored.samples[0]
    if "bits" in first.scores or first.choices:
        return [each[0] for each in _responses(scored) if isinstance(each, list)]
    found = [sample.extracted or "" for sample in scored.samples]
    return [found[0] if len(found) == 1 else found]


def _own(scored: ScoredItem) -> dict[str, object]:
    """What the harness has no key for."""
    samples = scored.samples
    return {
        "id": scored.item.id,
        "outcomes": [sample.outcome for sample in samples],
        "seeds": [sample.seed for sample in samples],
        "explanations": [sample.explanations for sample in samples],
        "finish_reasons": [sample.finish_reason for sample in samples],
        "errors": [sample.error for sample in samples],
        "prompt_tokens": [sample.n_prompt_tokens for sample in samples],
        "completion_tokens": [sample.n_tokens for sample in samples],
        "digests": [list(sample.digests) for sample in samples],
    }
