"""Runs lm-evaluation-harness as a library, over tasks of a folder, and writes what came of each item.

python -m tests.integrations.evaluate '{"folder": …, "tasks": […], "model": {…}, "out": …, "more": {…}}'
"""

from __future__ import annotations

import json
import sys
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from infer_cli.integrations.lm_eval.model import InferLM


class Counting(InferLM):
    """Counts what the harness asks of the model and does not find in its cache."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.n_asked = 0

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        self.n_asked += len(requests)
        return super().loglikelihood(requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        self.n_asked += len(requests)
        return super().loglikelihood_rolling(requests, disable_tqdm)

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        self.n_asked += len(requests)
        return super().generate_until(requests, disable_tqdm)


def main() -> None:
    asked = json.loads(sys.argv[1])
    model = Counting(**asked["model"])
    found = simple_evaluate(
        model,
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
        kept = {"results": found["results"], "config": found["config"], "asked": model.n_asked}
        json.dump({"samples": samples, **kept}, file)


if __name__ == "__main__":
    main()
