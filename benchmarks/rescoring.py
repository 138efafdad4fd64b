"""Scoring 100,000 answers again: seconds until `infer rescore` has the scores, and whether its memory grows.

    python -m benchmarks.rescoring [--rounds 3] [--samples 100000]

A run of few items is made with the fake model, and its lines are repeated, each as an item of its own. The
task looks for the last number, and scores by number (a proportion) and by F1 (a mean, whose interval is that
of a bootstrap). Nothing of an earlier scoring is there. Checked: seconds until samples and results are
written and shown, and by how much more memory the command has at its peak than with a tenth of the samples.
Reported: seconds of the whole command, which then writes the files of other programs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from benchmarks import common

N_ITEMS = 20
_LINES = ("items.jsonl", "requests.jsonl", "replies.jsonl")
_GIVEN = ("run.json", "task.toml", "fewshot.jsonl", *_LINES)
MOST_SECONDS, MOST_GROWTH_MB = 10.0, 64.0
TASK = """
name = "sums"
version = "1"
kind = "generate"

[data]
id = "id"

[prompt]
text = "{{ question }}"

[answer]
references = ["{{ answer }}"]

[[extraction]]
kind = "last_number"

[[scorer]]
kind = "number"
name = "right"

[[scorer]]
kind = "f1"
name = "f1"
"""


def benchmark() -> str:
    given = _arguments().parse_args()
    report = common.Report("rescoring", given.rounds)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        env = common.clean_environment(folder / "home")
        version = common.run([*common.INFER, "--version"], env).stdout.split()[-1]
        few = _few(folder, env)
        sizes = (given.samples // 10, given.samples)
        runs = {n: _many(few, folder / f"run{n}", n) for n in sizes}

        def measure(n: int) -> Callable[[], common.Run]:
            def measured() -> common.Run:
                for path in runs[n].iterdir():
                    if path.is_file() and path.name not in _GIVEN:
                        path.unlink()
                return common.run([*common.INFER, "rescore", str(runs[n]), "--quiet"], env)

            return measured

        done = common.interleave({str(n): measure(n) for n in sizes}, given.rounds)
    for name, each in done.items():
        report.series(f"{name} samples, s until the scores", [one.first_byte_s for one in each])
        report.series(f"{name} samples, s of the whole command", [one.seconds for one in each])
        report.series(f"{name} samples, peak RSS MB", [one.peak_rss / common.MB for one in each])
    small, large = (done[str(n)] for n in sizes)
    report.check(
        f"{given.samples} samples, s until the scores",
        median(one.first_byte_s for one in large),
        "<=",
        MOST_SECONDS,
    )
    growth = (median(one.peak_rss for one in large) - median(one.peak_rss for one in small)) / common.MB
    report.check("ten times the samples, peak RSS MB more", growth, "<=", MOST_GROWTH_MB)
    return report.line(common.machine_facts(infer=version), {"samples": given.samples})


def _few(folder: Path, env: dict[str, str]) -> Path:
    """A run of a few items."""
    task, data, run = folder / "sums.toml", folder / "sums.jsonl", folder / "few"
    task.write_text(TASK)
    rows = [{"id": i, "question": f"What is {i} and {i % 4}?", "answer": str(i % 3)} for i in range(N_ITEMS)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [*common.INFER, "eval", "-m", "fake", str(task), "--data", str(data), "-o", str(run), "--quiet"]
    common.run(command, env)
    return run


def _many(few: Path, run: Path, n: int) -> Path:
    """The same with `n` items: copies of the few, each with a number of its own."""
    (run / "replies.jsonl.job").mkdir(parents=True)
    for name in ("run.json", "task.toml", "fewshot.jsonl", "replies.jsonl.job/job.json"):
        (run / name).write_bytes((few / name).read_bytes())
    lines = {name: [json.loads(line) for line in (few / name).read_text().splitlines()] for name in _LINES}
    lines["replies.jsonl"].sort(key=lambda line: line["row"])

    def numbered(name: str) -> Iterator[str]:
        for i in range(n):
            value = dict(lines[name][i % N_ITEMS])
            for key, number in (("index", i), ("row", i), ("id", str(i)), ("custom_id", str(i))):
                if key in value:
                    value[key] = number
            yield json.dumps(value) + "\n"

    for name in lines:
        with (run / name).open("w") as file:
            file.writelines(numbered(name))
    return run


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=3)
    parser.add_argument("--samples", type=int, default=100_000, help="samples of the run (100000)")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
