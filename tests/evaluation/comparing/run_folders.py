"""Writes folders of runs as `infer eval` leaves them: the files that a comparison reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from infer_cli.answering.reply import json_line
from infer_cli.evaluation.runs.facts import (
    DataFacts,
    GenerationFacts,
    RunFacts,
    Scoring,
    SelectionFacts,
    TaskFacts,
)
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.results import Estimated, Identity, MetricResult, Results
from infer_cli.evaluation.runs.sample import Outcome, Sample
from infer_cli.system.hashing import sha256_hex

NOTHING_KNOWN = Estimated(0.5, None, None, None, 1, None, None)


@dataclass(frozen=True)
class Answered:
    """An item of a run, with its samples' scores by metric. One answer, one seed, unless they are given."""

    id: str
    scores: Sequence[Mapping[str, float]]
    prompt: object = "What is it?"
    answer: str | None = "it"
    document: str = "row"
    cluster: str | None = None
    outcomes: Sequence[Outcome] = ("ok",)
    seeds: Sequence[int | None] = (None,)
    extracted: Sequence[str | None] = ("it",)
    sizes: Mapping[str, float] = field(default_factory=dict)

    def samples(self, index: int) -> list[Sample]:
        return [
            Sample(
                item=self.id,
                index=index,
                sample=number,
                seed=self.seeds[number % len(self.seeds)],
                group=None,
                cluster=self.cluster,
                prompt=self.prompt,
                answer=self.answer,
                extracted=self.extracted[number % len(self.extracted)],
                references=(),
                outcome=self.outcomes[number % len(self.outcomes)],
                scores=scores,
                sizes=self.sizes,
            )
            for number, scores in enumerate(self.scores)
        ]


RESULTS = Results(
    task={"name": "sums", "version": "1", "kind": "generate", "description": ""},
    model=Identity("small", "ab" * 32),
    engine={"infer": "0.1.0", "llama_cpp": "0.3.36", "fingerprint": "sha256:0123456789abcdef", "facts": {}},
    mode="invariant",
    promise="invariant",
    config={},
    hashes={"task": "0" * 64, "data": "1" * 64, "template": None, "model": "ab" * 32, "items": "2" * 64},
    n=0,
    n_asked=0,
    limit=None,
    rates={"error": 0.0, "cut": 0.0, "not_extracted": 0.0, "scorer_failed": 0.0},
    scores=(),
    tokens={"prompt": 0, "completion": 0},
    command=("infer", "eval", "sums"),
    infer="0.1.0",
    libraries={},
    hardware={},
    began_at="2026-01-31T00:00:00Z",
)


def right(*scores: float, prefix: str = "") -> list[Answered]:
    """Items 0, 1, … with one answer each."""
    return [
        Answered(
            f"{prefix}{i}", [{"exact": score}], f"How much is {i} and {i}?", f"It is {2 * i + (score < 1)}."
        )
        for i, score in enumerate(scores)
    ]


def write_run(
    path: Path,
    items: Sequence[Answered],
    *,
    task: str = "sums",
    metrics: Sequence[str] = ("exact",),
    lower_is_better: Sequence[str] = ("bits_per_byte", "byte_perplexity"),
    exclude_errors: bool = False,
    version: str = "1",
    results: Results = RESULTS,
) -> Path:
    """`metrics`: names in `results.json`, the main one first."""
    path.mkdir(parents=True)
    folder = RunFolder(path)
    facts = RunFacts(
        task=TaskFacts(task, version, "generate", "0" * 64, "3" * 64, task),
        data=DataFacts("sums.jsonl", "1" * 64, len(items)),
        selection=SelectionFacts(),
        generation=GenerationFacts(),
        scoring=Scoring(exclude_errors=exclude_errors),
        files={},
        n_items=len(items),
        command=results.command,
        infer=results.infer,
        began_at=results.began_at,
    )
    facts.write(folder.facts)
    folder.items.write_bytes(b"".join(_item_line(index, item) for index, item in enumerate(items)))
    samples = [sample for index, item in enumerate(items) for sample in item.samples(index)]
    folder.samples.write_bytes(b"".join(json_line(sample.as_json()) for sample in samples))
    timings = {"timings": {"ttft_s": 0.25, "total_s": 1.5}}
    folder.replies.write_bytes(json_line(timings) * len(samples))
    found = replace(
        results,
        task={**results.task, "name": task},
        n=len(items),
        n_asked=len(items),
        scores=tuple(MetricResult(name, NOTHING_KNOWN, name not in lower_is_better) for name in metrics),
    )
    folder.results.write_bytes(found.as_bytes())
    return path


def _item_line(index: int, item: Answered) -> bytes:
    document = sha256_hex(json.dumps(item.document).encode())[:16]
    return json_line({"index": index, "id": item.id, "sha256": document, "cluster": item.cluster})
