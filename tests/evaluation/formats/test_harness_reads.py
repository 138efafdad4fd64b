"""lm-evaluation-harness reads the files of our runs, and writes the same of its own run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.evaluation.formats.made_runs import (
    CAPITALS,
    KINDS,
    harness_results,
    harness_samples,
    make_run,
)
from tests.evaluation.runs.run_helpers import results_of, write_lines
from tests.integrations.extras import needs, run

pytestmark = needs("lm_eval")


@pytest.mark.parametrize("kind", KINDS)
def test_the_harness_reads_its_files(kind: str, tmp_path: Path) -> None:
    """In a process of its own: it loads the libraries that it loads data with."""
    made = make_run(tmp_path, kind)
    code = """
import json, sys
from pathlib import Path
from datasets import load_dataset
from lm_eval.utils import (get_file_datetime, get_file_task_name, get_latest_filename, get_results_filenames,
                           get_sample_results_filenames, make_table)
names = [str(path) for path in Path(sys.argv[1]).iterdir()]
results, samples = get_results_filenames(names), get_sample_results_filenames(names)
assert len(results) == len(samples) == 1, names
name = Path(samples[0]).name
value = json.loads(Path(results[0]).read_text())
(task,) = value["results"]
assert get_file_task_name(name) == task, name
assert f"results_{get_file_datetime(name)}.json" == Path(get_latest_filename(results)).name
rows = load_dataset("json", data_files=samples[0], split="train", cache_dir=sys.argv[2])
print(make_table(value))
print(len(rows), *rows.column_names)
"""
    shown = run(tmp_path, sys.executable, "-c", code, made, tmp_path / "cache").stdout
    results = results_of(made)
    assert f"|{results['task']['name']}" in shown
    value = f"{round(results['scores'][0]['value'], 4):g}"
    assert re.search(rf"\|\s*{re.escape(value)}0*\|", shown), shown
    assert f"\n{results['n']} doc_id doc target arguments" in shown


_YAML = """
task: capitals
dataset_path: json
dataset_kwargs:
  data_files:
    test: capitals.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "The capital of {{country}} is"
doc_to_choice: "{{cities}}"
doc_to_target: "{{right}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""


def test_the_harness_writes_the_same_of_its_own_run(tmp_path: Path) -> None:
    made = make_run(tmp_path, "choice")
    (tmp_path / "capitals.yaml").write_text(_YAML)
    write_lines(tmp_path / "capitals.jsonl", CAPITALS)
    command = [sys.executable, "-m", "infer_cli.integrations.lm_eval", "run", "--model", "infer"]
    run(
        tmp_path, *command, "--model_args", "model=fake", "--include_path", ".", "--tasks", "capitals",
        "--output_path", "theirs", "--log_samples",
    )  # fmt: skip
    (model,) = (tmp_path / "theirs").iterdir()
    theirs, ours = harness_samples(model), harness_samples(made)
    for mine, their in zip(ours, theirs, strict=True):
        assert {**mine, **their, "metrics": mine["metrics"]} == mine
        assert set(their["metrics"]) < set(mine["metrics"])
    their_results, our_results = harness_results(model), harness_results(made)
    assert set(their_results) <= set(our_results)
    assert set(their_results["config"]) - set(our_results["config"]) <= {"width", "max_length", "seed"}
    for key in ("task_hashes", "n-shot", "n-samples", "group_subtasks"):
        assert our_results[key] == their_results[key]
    found = our_results["results"]["capitals"]
    assert found["acc,none"] == their_results["results"]["capitals"]["acc,none"]
    assert json.dumps(found["acc_norm,none"]) == json.dumps(
        their_results["results"]["capitals"]["acc_norm,none"]
    )
