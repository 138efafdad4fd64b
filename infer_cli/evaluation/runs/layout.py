"""Which folder each run of a command line has: `DIR`, `DIR/TASK`, `DIR/MODEL` or `DIR/MODEL/TASK`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from infer_cli.errors import UsageError

_DEFAULT_MODEL = "default"
_OTHER = re.compile(r"[^\w.-]+")


class PlannedRun(NamedTuple):
    """One task with one model; None: the default one."""

    task: str
    model: str | None
    folder: Path


def plan_runs(tasks: Sequence[str], models: Sequence[str | None], output: Path) -> list[PlannedRun]:
    """Model by model. Raises UsageError for two tasks or models whose folders would be one."""
    runs: list[PlannedRun] = []
    for model in models:
        for task in tasks:
            folder = output
            if len(models) > 1:
                folder /= folder_name(model or _DEFAULT_MODEL)
            if len(tasks) > 1:
                folder /= folder_name(task)
            other = next((run for run in runs if run.folder == folder), None)
            if other is not None:
                what = (
                    (other.task, task) if len(models) == 1 or other.model == model else (other.model, model)
                )
                raise UsageError(
                    f"{what[0]} and {what[1]} would have one folder, {folder}", "run them one by one"
                )
            runs.append(PlannedRun(task, model, folder))
    return runs


def folder_name(name: str) -> str:
    """What a task or a model is called where a folder has its name: a file's without its ending."""
    is_file = name.endswith((".gguf", ".toml", ".py", ".json"))
    text = _OTHER.sub("_", Path(name).stem if is_file else name).strip("._")
    return text or "_"
