"""A run in three parts, and one of shuffled data: the same digests and scores, item by item."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.cli_helpers import infer
from tests.evaluation.runs.long_runs import TASKS, TIMEOUT_S, long_run
from tests.evaluation.runs.run_helpers import results_of, samples_of


def by_content(run: Path) -> dict[str, object]:
    """Scores and digests of each item, by the hash of its row of the data: ids may be numbers of rows."""
    items = [json.loads(line) for line in (run / "items.jsonl").read_text().splitlines()]
    return {
        item["sha256"]: (sample["scores"], sample["outcome"], sample["digests"])
        for item, sample in zip(items, samples_of(run), strict=True)
    }


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("name", TASKS)
def test_parts_and_shuffled_rows_have_the_same_scores(name: str, tmp_path: Path) -> None:
    task, data, arguments, _ = long_run(name, tmp_path)
    # A limit takes the first rows: those that are shuffled must be the same ones.
    rows = data.read_text().splitlines(keepends=True)
    if "--limit" in arguments:
        rows = rows[: int(arguments[arguments.index("--limit") + 1])]
    shuffled = tmp_path / "shuffled.jsonl"
    shuffled.write_text("".join(random.Random(1).sample(rows, len(rows))))
    whole, parts = tmp_path / "whole", [tmp_path / f"part{i}" for i in (1, 2, 3)]
    asked = [task, "--data", str(data), *arguments, "--quiet", "-o"]
    assert infer("eval", *asked, whole, timeout=TIMEOUT_S).code == 0
    for i, part in enumerate(parts, 1):
        done = infer("eval", *asked, part, "--shard", f"{i}/3", timeout=TIMEOUT_S)
        assert done.code == 0, done.err
    assert infer("merge", *parts, "-o", tmp_path / "all", timeout=TIMEOUT_S).code == 0
    assert by_content(tmp_path / "all") == by_content(whole)
    assert results_of(tmp_path / "all")["scores"] == results_of(whole)["scores"]
    done = infer(
        "eval", task, "--data", shuffled, *arguments, "--parallel", "3", "--quiet", "-o", tmp_path / "other",
        timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert by_content(tmp_path / "other") == by_content(whole)
