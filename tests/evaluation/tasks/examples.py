"""Tasks and data that these tests share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infer_cli.evaluation.tasks.item import Item
from infer_cli.evaluation.tasks.items import read_items
from infer_cli.evaluation.tasks.loading import read_task
from infer_cli.evaluation.tasks.selection import Selection
from infer_cli.evaluation.tasks.task import Task

HEAD = 'name = "t"\nversion = "1"\nkind = "{kind}"\n'
GENERATE = (
    HEAD.format(kind="generate")
    + '[prompt]\ntext = "{{ q }}"\n[answer]\nreferences = ["{{ a }}"]\n[[scorer]]\nkind = "exact"\n'
)
CHOICE = HEAD.format(kind="choice") + '[prompt]\ntext = "{{ q }}"\n[answer]\n'
ROWS = [{"q": f"question {i}", "a": f"answer {i}"} for i in range(5)]


def write_rows(folder: Path, rows: Sequence[Mapping[str, object]], name: str = "data.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def task_of(text: str, folder: Path = Path("/tasks")) -> Task:
    return read_task(text, str(folder / "t.toml"))


def items_of(text: str, folder: Path, rows: Sequence[Mapping[str, object]] = ROWS, **said: Any) -> list[Item]:
    selection = Selection(data=write_rows(folder, rows), **said)
    return list(read_items(task_of(text, folder), selection).items())
