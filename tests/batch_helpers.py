"""Shared by tests of batches: inputs, and outputs as objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli_helpers import Outcome, infer


def write_rows(path: Path, *rows: dict[str, object] | str) -> Path:
    """A JSONL file; a string is a prompt."""
    values = [{"prompt": row} if isinstance(row, str) else row for row in rows]
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def prompts(n: int) -> list[str]:
    return [f"question number {i}" for i in range(n)]


def batch(*arguments: object, model: str = "fake", **more: Any) -> Outcome:
    return infer("batch", "-m", model, *arguments, **more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def by_unit(path: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """Replies by row and sample, each there once."""
    found = lines(path)
    units = {(line["row"], line["sample"]): line for line in found}
    assert len(units) == len(found), "a reply is there twice"
    return units


def digests(path: Path) -> dict[tuple[int, int], str]:
    return {unit: line["digest"] for unit, line in by_unit(path).items()}
