"""Whether `infer eval lm:TASK` has the harness's own numbers: four sets of BLiMP, 100 questions of GSM8K.

    python -m benchmarks.harness [--data DIR] [--threads N] [--model MODEL] [--items 100] [--pairs 1000]

Each is a task of lm-evaluation-harness over the files in --data or INFER_TEST_DATA, with the values of the
harness's own task: blimp/*.jsonl, gsm8k/train_200.jsonl (its other 100 rows are the examples, 5 before each
question).
The other side is the harness itself with a model of few lines over llama-cpp-python's low-level functions
(tests/integrations/reference_lm.py). Checked: how many values of an item and a filter are not the same, and
how far the sums are apart. It needs the extra `lm-eval`. Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import common

BLIMP = (
    "anaphor_gender_agreement",
    "regular_plural_subject_verb_agreement_1",
    "sentential_negation_npi_scope",
    "wh_island",
)
_HEAD = "task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n{files}"
_BLIMP = """test_split: test
output_type: multiple_choice
doc_to_text: ""
doc_to_target: 0
doc_to_choice: "{{[sentence_good, sentence_bad]}}"
num_fewshot: 0
metric_list:
  - metric: acc
"""
_GSM8K = """test_split: test
fewshot_split: train
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
num_fewshot: 5
generation_kwargs:
  until: ["Question:", "</s>", "<|im_end|>"]
  do_sample: false
  temperature: 0.0
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: false
    regexes_to_ignore: [",", "\\\\$", "(?s).*#### ", "\\\\.$"]
filter_list:
  - name: strict-match
    filter:
      - function: regex
        regex_pattern: "#### (\\\\-?[0-9\\\\.\\\\,]+)"
      - function: take_first
  - name: flexible-extract
    filter:
      - function: regex
        group_select: -1
        regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"
      - function: take_first
"""
_GROUP = (
    "group: local_blimp\ntask: {tasks}\naggregate_metric_list:\n  - metric: acc\n    weight_by_size: false\n"
)


def benchmark() -> str:
    given = _arguments().parse_args()
    report, model = common.Report("harness", 1), common.model_path(given.model)
    threads = common.threads_of(given)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        env = {
            **common.clean_environment(folder / "home"),
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "1",
        }
        version = common.run([*common.INFER, "--version"], env).stdout.split()[-1]
        tasks, names = folder / "tasks", write_tasks(folder / "tasks", given)
        reference = folder / "reference.json"
        program = [sys.executable, "-m", "tests.integrations.reference_lm"]
        common.run([*program, model, str(tasks), "4096", str(reference), "local_blimp", "local_gsm8k"], env)
        theirs = json.loads(reference.read_text())
        common.run(
            [
                *common.INFER, "eval", "lm:local_blimp", "lm:local_gsm8k", "--lm-include", str(tasks),
                "-m", model, "-o", str(folder / "run"), "--offline", "--threads", str(threads),
                "--no-record", "--quiet",
            ],
            env,
        )  # fmt: skip
        n_values = n_other = 0
        furthest = 0.0
        for name in names:
            own = folder / "run" / f"lm_{name}"
            n, other = compared(own / "samples.jsonl", theirs["scores"][name])
            n_values, n_other = n_values + n, n_other + other
            for score in json.loads((own / "results.json").read_text())["scores"]:
                furthest = max(furthest, abs(score["value"] - theirs["results"][name][score["metric"]]))
                report.series(f"{name} {score['metric']}", [score["value"]])
        for each in json.loads((folder / "run" / "groups.json").read_text())["scores"]:
            value = theirs["results"][each["group"]][each["metric"]]
            furthest = max(furthest, abs(each["score"]["value"] - value))
    report.series("values of items", [float(n_values)])
    report.check("values that are not the harness's", float(n_other), "<=", 0.0)
    report.check("furthest sum from the harness's", furthest, "<=", 1e-12)
    settings = {"threads": threads, "model": Path(model).name, "items": given.items, "pairs": given.pairs}
    return report.line(common.machine_facts(infer=version), settings)


def write_tasks(folder: Path, given: argparse.Namespace) -> list[str]:
    """Files of the tasks and of the group; returns the tasks' names."""
    folder.mkdir()
    names = [f"local_{name}" for name in BLIMP]
    for set_name, name in zip(BLIMP, names, strict=True):
        rows = common.data_file(given, f"blimp/{set_name}.jsonl").read_text().splitlines(keepends=True)
        write_task(folder, name, {"test": rows[: given.pairs]}, _BLIMP)
    rows = common.data_file(given, "gsm8k/train_200.jsonl").read_text().splitlines(keepends=True)
    write_task(folder, "local_gsm8k", {"test": rows[: given.items], "train": rows[100:]}, _GSM8K)
    (folder / "group.yaml").write_text(_GROUP.format(tasks=json.dumps(names)))
    return [*names, "local_gsm8k"]


def write_task(folder: Path, name: str, splits: dict[str, list[str]], yaml: str) -> None:
    files = ""
    for split, rows in splits.items():
        path = folder / f"{name}_{split}.jsonl"
        path.write_text("".join(rows))
        files += f"    {split}: {path}\n"
    (folder / f"{name}.yaml").write_text(_HEAD.format(name=name, files=files) + yaml)


def compared(samples: Path, theirs: list[Any]) -> tuple[int, int]:
    """How many values there are, and how many of them are not the harness's."""
    own = [json.loads(line) for line in samples.read_text().splitlines()]
    n = other = 0
    for number, (of_filter, values) in enumerate(theirs):
        scores = own[number % len(own)]["scores"]
        for name, value in values.items():
            n += 1
            other += scores.get(f"{name},{of_filter}") != value
    return n, other


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=1)
    common.add_threads(parser)
    common.add_data(parser)
    common.add_one_model(parser, common.SMOLLM2)
    parser.add_argument("--items", type=int, default=100, help="questions of GSM8K, at most 100 (100)")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of each BLiMP set (1000)")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
