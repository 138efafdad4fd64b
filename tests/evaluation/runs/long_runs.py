"""What tests of whole runs evaluate: a small task, or the data sets that `INFER_TEST_DATA` has.

`EVAL_KILLS=100` makes them long: 100 items of GSM8K and 80 of MT-Bench, killed as often. `EVAL_MODEL=…` is a
real model instead of the fake one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli_helpers import script
from tests.evaluation.runs.run_helpers import write_sums

TASKS = ("sums", "gsm8k", "mt_bench")
N_KILLS = int(os.environ.get("EVAL_KILLS", "6"))
TIMEOUT_S = 3600
_FILES = {"gsm8k": ("gsm8k/train_200.jsonl", 100), "mt_bench": ("mt_bench/question.jsonl", 80)}


class LongRun(NamedTuple):
    """A task, its data and the other arguments of `infer eval`; `kill_s` is the range of seconds until it is
    killed."""

    task: str
    data: Path
    arguments: list[str]
    kill_s: tuple[float, float]


def long_run(name: str, tmp_path: Path) -> LongRun:
    """Skips the test where it is not asked for, or can't be had."""
    model = os.environ.get("EVAL_MODEL")
    given = model or script(tmp_path, step_s=0.004)
    if name == "sums":
        task, data = write_sums(tmp_path, 40)
        return LongRun(str(task), data, ["-m", given, "--parallel", "4"], (0.1, 2.0))
    folder = os.environ.get("INFER_TEST_DATA")
    if "EVAL_KILLS" not in os.environ or folder is None:
        pytest.skip("EVAL_KILLS and INFER_TEST_DATA ask for it")
    file, limit = _FILES[name]
    seconds = (2.0, 60.0) if model else (0.1, 5.0)
    return LongRun(name, Path(folder) / file, ["-m", given, "--limit", str(limit), "-n", "32"], seconds)
