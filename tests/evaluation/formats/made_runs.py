"""Runs of each kind, made with the fake model, and what was written of them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from tests.evaluation.runs.run_helpers import SUMS, evaluate, write_lines, write_pairs, write_sums

CHOICE = """
name = "capitals"
version = "1"
kind = "choice"

[data]
path = "capitals.jsonl"

[prompt]
text = "The capital of {{ country }} is"

[answer]
choices = "{{ cities | tojson }}"
gold = "{{ right }}"
"""
CAPITALS: list[dict[str, Any]] = [
    {"country": "France", "cities": ["Lyon", "Paris", "Berlin"], "right": 1},
    {"country": "Italy", "cities": ["Rome", "Milan"], "right": 0},
    {"country": "Côte d'Ivoire", "cities": ["Abidjan", "Yamoussoukro"], "right": 1},
]


def write_capitals(folder: Path) -> Path:
    path = folder / "capitals.toml"
    path.write_text(CHOICE)
    write_lines(folder / "capitals.jsonl", CAPITALS)
    return path


def make_run(folder: Path, kind: str) -> Path:
    """`generate`, `sampled`, `cut`, `choice`, `pairs` or `perplexity`."""
    run, more = folder / "run", list[object]()
    if kind in ("generate", "sampled", "cut"):
        task, data = write_sums(folder, 4, task=SUMS)
        more = ["--data", data]
        more += ["--samples", 2, "-t", 1, "--seeds", 2] if kind == "sampled" else []
        more += ["-n", 3] if kind == "cut" else []
        task_name: object = task
    elif kind == "choice":
        task_name = write_capitals(folder)
    elif kind == "pairs":
        task_name, data = write_pairs(folder, 3)
        more = ["--data", data]
    else:
        (folder / "text.txt").write_text("One line.\nAnd another one.\n" * 200)
        task_name, more = "perplexity", ["--data", folder / "text.txt"]
    done = evaluate(task_name, *more, "-o", run, "--quiet")
    assert done.code == 0, done.err
    return run


KINDS = ("generate", "sampled", "cut", "choice", "pairs", "perplexity")


def harness_results(run: Path) -> dict[str, Any]:
    (path,) = run.glob("results_*.json")
    value: dict[str, Any] = json.loads(path.read_bytes())
    return value


def harness_samples(run: Path) -> list[dict[str, Any]]:
    (path,) = run.glob("samples_*_*.jsonl")
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def log_path(run: Path) -> Path:
    (path,) = run.glob("*.eval")
    return path


def log_members(run: Path) -> dict[str, Any]:
    with zipfile.ZipFile(log_path(run)) as log:
        assert log.testzip() is None
        return {name: json.loads(log.read(name)) for name in log.namelist()}
