"""Shared by tests of runs: tasks, items and lines of answers that are made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.sample import Outcome, Sample
from infer_cli.evaluation.tasks.item import Item
from tests.cli_helpers import Outcome as CommandOutcome
from tests.cli_helpers import infer

SUMS = """
name = "sums"
version = "1"
kind = "generate"

[data]
id = "id"
group = "kind"

[prompt]
text = "{{ question }}"

[answer]
references = ["{{ answer }}"]

[generation]
max_tokens = 40

[[scorer]]
kind = "contains"
name = "has"
"""

PAIRS = """
name = "pairs"
version = "1"
kind = "minimal_pairs"

[answer]
good = "{{ good }}"
bad = "{{ bad }}"
"""


def write_sums(folder: Path, n: int = 6, *, task: str = SUMS) -> tuple[Path, Path]:
    """A task and its data. The fake model repeats a question: those with an odd number have their answer in
    it."""
    rows = [
        {
            "id": f"q{i}",
            "question": f"question {i} of {n}" + (f" is {i}!" if i % 2 else ""),
            "answer": f"is {i}!",
            "kind": "odd" if i % 2 else "even",
        }
        for i in range(n)
    ]
    path, data = folder / "sums.toml", folder / "sums.jsonl"
    path.write_text(task)
    write_lines(data, rows)
    return path, data


def write_pairs(folder: Path, n: int = 6) -> tuple[Path, Path]:
    path, data = folder / "pairs.toml", folder / "pairs.jsonl"
    path.write_text(PAIRS)
    write_lines(data, [{"good": f"{i}", "bad": f"{i} and more"} for i in range(n)])
    return path, data


def write_lines(path: Path, values: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def evaluate(*arguments: object, model: str = "fake", **more: Any) -> CommandOutcome:
    return infer("eval", "-m", model, *arguments, **more)


def results_of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(RunFolder(folder).results.read_bytes())
    return value


def samples_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in RunFolder(folder).samples.read_bytes().splitlines()]


def scores_of(folder: Path) -> dict[tuple[str, object, int], object]:
    """Scores and digests by item, seed and sample: what must not depend on how a run went."""
    return {
        (sample["item"], sample["seed"], sample["sample"]): (
            sample["scores"],
            sample["outcome"],
            tuple(sample["digests"]),
        )
        for sample in samples_of(folder)
    }


def item(n: int = 0, *, rows: int = 1, **more: Any) -> Item:
    values: dict[str, Any] = {"doc": {}, "rows": tuple({"prompt": f"p{i}"} for i in range(rows)), **more}
    return Item(index=n, id=f"i{n}", **values)


def reply(text: str | None = "4", *, sample: int = 0, reason: str = "stop", **more: Any) -> dict[str, object]:
    """A line of `infer batch`, as far as a grader reads it."""
    usage = {"prompt_tokens": 3, "cached_tokens": 0, "completion_tokens": 2}
    return {
        "text": text, "sample": sample, "finish_reason": reason, "digest": "sha256:a", "usage": usage,
        "tokens": [1, 2], "error": None, **more,
    }  # fmt: skip


def likelihood(logprob: float | None, n_tokens: int = 1, **more: Any) -> dict[str, object]:
    """A line of `infer score`, as far as a grader reads it."""
    usage = {"prompt_tokens": n_tokens, "cached_tokens": 0, "completion_tokens": n_tokens}
    return {
        "logprob": logprob, "n_tokens": n_tokens, "n_bytes": n_tokens, "greedy": False, "sample": 0,
        "digest": "sha256:b", "usage": usage, "error": None, **more,
    }  # fmt: skip


def sample(n: int = 0, score: float = 1.0, *, outcome: Outcome = "ok", **more: Any) -> Sample:
    values: dict[str, Any] = {
        "item": f"i{n}", "index": n, "sample": 0, "seed": None, "group": None, "cluster": None, "prompt": "p",
        "answer": "4", "extracted": "4", "references": ("4",), "scores": {"exact": score}, **more,
    }  # fmt: skip
    return Sample(outcome=outcome, **values)
