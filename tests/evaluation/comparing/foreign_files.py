"""Files as lm-evaluation-harness and inspect write them, made by hand."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DATE = "2026-01-31T00-00-00.123456"


def harness_sample(number: int, score: object, **more: Any) -> dict[str, Any]:
    return {
        "doc_id": number, "doc": {"question": f"q{number}", "hint": None}, "target": "1",
        "arguments": {"gen_args_0": {"arg_0": f"How much is {number}?", "arg_1": {"until": []}}},
        "resps": [["one"]], "filtered_resps": ["one"], "filter": "none", "metrics": ["exact"], "exact": score,
        **more,
    }  # fmt: skip


def write_harness(folder: Path, samples: Sequence[Mapping[str, object]], *, task: str = "sums") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"samples_{task}_{DATE}.jsonl"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    results = {"higher_is_better": {task: {"exact": True, "loss": False}}, "model_name": "theirs",
               "lm_eval_version": "0.4.13", "config": {"mode": "fast"}}  # fmt: skip
    (folder / f"results_{DATE}.json").write_text(json.dumps(results))
    return path


def inspect_sample(number: int, value: object, *, epoch: int = 1, **more: Any) -> dict[str, Any]:
    question = {"role": "user", "content": f"How much is {number}?", "source": "input"}
    answer = {"role": "assistant", "content": "one", "source": "generate"}
    return {
        "id": number, "epoch": epoch, "input": f"How much is {number}?", "target": "1",
        "messages": [question, answer], "output": {"completion": "one"}, "metadata": {},
        "scores": {"exact": {"value": value}}, **more,
    }  # fmt: skip


HEADER = {"version": 2, "status": "success", "eval": {"task": "suite/sums", "model": "infer/theirs"}}


def write_log(
    path: Path,
    samples: Sequence[Mapping[str, object]],
    *,
    header: Mapping[str, object] = HEADER,
    method: int = zipfile.ZIP_DEFLATED,
) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps({**header, "samples": samples}))
        return path
    with zipfile.ZipFile(path, "w", method) as archive:
        for sample in samples:
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
        archive.writestr("header.json", json.dumps(header))
    return path
