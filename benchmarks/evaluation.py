"""What `infer eval` costs beside `infer batch` on the same prompts, in the same mode and width.

    python -m benchmarks.evaluation [--data DIR] [--rounds 7] [--threads N] [--model MODEL] [--items 100]
        [--tokens 128]

GSM8K's questions, greedy. `infer batch` reads the requests that a first run of `infer eval` has written; it
has the same flags. Each side is the whole process, with start and load, and writes to an empty folder;
`infer eval` makes the prompts and the scores too. Checked: its seconds over those of `infer batch`, and that
the digests are the same.

The data is found in --data or INFER_TEST_DATA: gsm8k/train_200.jsonl.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import common

WIDTH = 16
MOST_RATIO = 1.05


def benchmark() -> str:
    given = _arguments().parse_args()
    report, model = common.Report("evaluation", given.rounds), common.model_path(given.model)
    data, threads = common.data_file(given, "gsm8k/train_200.jsonl"), common.threads_of(given)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        env = common.clean_environment(folder / "home")
        version = common.run([*common.INFER, "--version"], env).stdout.split()[-1]
        how = [
            "-m", model, "--invariant", "--parallel", str(WIDTH), "--threads", str(threads), "-n",
            str(given.tokens), "--no-record", "--quiet",
        ]  # fmt: skip
        run, out = folder / "run", folder / "out.jsonl"
        evaluation = [
            *common.INFER, "eval", "gsm8k", "--data", str(data), "--limit", str(given.items),
            "-o", str(run), *how,
        ]  # fmt: skip
        common.run(evaluation, env)
        requests = folder / "requests.jsonl"
        requests.write_bytes((run / "requests.jsonl").read_bytes())
        batch = [*common.INFER, "batch", str(requests), "-o", str(out), *how]
        same: list[bool] = []

        def by_eval() -> float:
            shutil.rmtree(run)
            return common.run(evaluation, env).seconds

        def by_batch() -> float:
            out.unlink(missing_ok=True)
            shutil.rmtree(f"{out}.job", ignore_errors=True)
            seconds = common.run(batch, env).seconds
            same.append(digests(out) == digests(run / "replies.jsonl"))
            return seconds

        sides: dict[str, Callable[[], float]] = {"infer eval": by_eval, "infer batch": by_batch}
        seconds = common.interleave(sides, given.rounds)
    for name, values in seconds.items():
        report.series(f"{name} s", values)
    ratio = report.ratio("infer eval / infer batch s", seconds["infer eval"], seconds["infer batch"])
    report.check("infer eval / infer batch s", ratio, "<=", MOST_RATIO)
    report.check("rounds with the same digests", float(sum(same)), ">=", given.rounds)
    settings = {"threads": threads, "model": Path(model).name, "items": given.items, "tokens": given.tokens}
    return report.line(common.machine_facts(infer=version), settings)


def digests(path: Path) -> dict[str, str]:
    """Of the replies, by item."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["custom_id"]: line["digest"] for line in lines}


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=common.MIN_ROUNDS)
    common.add_threads(parser)
    common.add_data(parser)
    common.add_one_model(parser, common.SMOLLM2)
    parser.add_argument("--items", type=int, default=100, help="questions (100)")
    parser.add_argument("--tokens", type=int, default=128, help="most tokens of a reply (128)")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
