"""Runs lm-evaluation-harness as a library, over tasks of a folder, and writes what came of each item.

python -m tests.integrations.evaluate '{"folder": …, "tasks": […], "model": {…}, "out": …, "more": {…}}'
"""

from __future__ import annotations

import json
import sys

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from infer_cli.integrations.lm_eval.model import InferLM


def main() -> None:
    asked = json.loads(sys.argv[1])
    found = simple_evaluate(
        InferLM(**asked["model"]),
        tasks=asked["tasks"],
        task_manager=TaskManager(include_path=asked["folder"], include_defaults=False),
        bootstrap_iters=0,
        **asked["more"],
    )
    assert found is not None
    samples = {
        task: [[sample["doc"], sample["resps"]] for sample in found["samples"][task]]
        for task in asked["tasks"]
    }
    with open(asked["out"], "w") as file:
        json.dump({"samples": samples, "results": found["results"], "config": found["config"]}, file)


if __name__ == "__main__":
    main()
