"""What a name on the command line of a comparison is: runs of ours, or files of another program."""

from __future__ import annotations

from pathlib import Path

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.comparable import ComparableRun
from infer_cli.evaluation.comparing.harness_samples import harness_files, read_harness_samples
from infer_cli.evaluation.comparing.inspect_log import read_inspect_log
from infer_cli.evaluation.comparing.run_folder import read_comparable_run
from infer_cli.evaluation.runs.reading import run_folders

_HINT = "name a folder of `infer eval` or lm-evaluation-harness, samples_TASK_DATE.jsonl, or a log of inspect"


def read_runs(path: Path) -> list[ComparableRun]:
    """A folder with runs of ours is read as these, whatever else it holds. Raises UsageError."""
    if path.is_dir():
        if folders := run_folders(path):
            return [read_comparable_run(folder) for folder in folders]
        if files := harness_files(path):
            return [read_harness_samples(file) for file in files]
        if logs := sorted(path.glob("*.eval")):
            return [read_inspect_log(log) for log in logs]
        raise UsageError(f"{path} has no run", _HINT)
    if not path.exists():
        raise UsageError(f"no file or folder {path}", _HINT)
    if path.suffix == ".jsonl":
        return [read_harness_samples(path)]
    if path.suffix in (".eval", ".json"):
        return [read_inspect_log(path)]
    raise UsageError(f"{path} is no run", _HINT)
