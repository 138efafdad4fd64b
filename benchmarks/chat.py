"""Does a conversation stay quick? Time to the first token of turn 20 against turn 2, in one `infer chat`.

    python -m benchmarks.chat [--rounds 7] [--threads N] [--smollm2 MODEL]

Twenty messages of equally many tokens come through a pipe, each reply is greedy and at most 24 tokens long.
The record of each turn says how many tokens it evaluated, which must be those that were new, and its ttft_s.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import common

N_TURNS = 20
N_TOKENS = 24
LIMIT = 1.3
MESSAGE = "Tell me one thing about the number {}."


def benchmark() -> str:
    parser = common.arguments(__doc__, rounds=common.MIN_ROUNDS)
    common.add_model(parser)
    given = parser.parse_args()
    report = common.Report("chat", given.rounds)
    path, threads = common.model_path(given.smollm2), common.threads_of(given)
    early, late = [], []
    records: list[dict[str, Any]] = []
    for n in range(given.rounds):
        print(f"round {n + 1}/{given.rounds}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as home:
            records = _talk(path, threads, common.clean_environment(Path(home)))
        ttft = [record["timings"]["ttft_s"] for record in records]
        early.append(ttft[1])
        late.append(ttft[-1])
        _check_counts(records)
    report.series("turn 2 ttft s", early)
    report.series("turn 20 ttft s", late)
    report.check("turn 20 / turn 2", report.ratio("turn 20 / turn 2", late, early), "<=", LIMIT)
    settings = {"threads": threads, "n_turns": N_TURNS, "n_tokens": N_TOKENS, "message": MESSAGE}
    return report.line(common.machine_facts(infer=records[0]["engine"]["infer"]), settings)


def _talk(path: str, threads: int, env: dict[str, str]) -> list[dict[str, Any]]:
    """The records of one conversation, in order."""
    command = [
        *common.INFER, "chat", "-m", path, "--threads", str(threads), "--gpu-layers", "0", "-t", "0",
        "-n", str(N_TOKENS),
    ]  # fmt: skip
    lines = "".join(MESSAGE.format(n) + "\n" for n in range(10, 10 + N_TURNS))
    done = subprocess.run(command, input=lines, capture_output=True, text=True, env=env, cwd=common.ROOT)
    if done.returncode != 0:
        raise common.BenchmarkError(f"exit code {done.returncode} of infer chat\n{done.stderr[-600:]}")
    listed = common.run([*common.INFER, "records", "list", "--jsonl", "--limit", str(N_TURNS)], env).stdout
    records = [json.loads(line) for line in listed.splitlines()]
    records = sorted(records, key=lambda record: str(record["created_at"]))
    if len(records) != N_TURNS:
        raise common.BenchmarkError(f"{len(records)} turns are recorded, not {N_TURNS}")
    return records


def _check_counts(records: list[dict[str, Any]]) -> None:
    """Each turn evaluates what the one before had not: the rest of its prompt."""
    before = 0
    for record in records:
        usage = record["usage"]
        if usage["cached_tokens"] != before:
            raise common.BenchmarkError(f"{usage['cached_tokens']} tokens were reused, not {before}")
        before = usage["prompt_tokens"] + usage["completion_tokens"] - 1


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
