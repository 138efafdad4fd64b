"""Seconds of a whole process to its first token, asked about a file for the first and for the second time.

    python -m benchmarks.prefix_cache [--rounds 5] [--threads N] [--smollm2 MODEL] [--gemma MODEL]

A file of about 3,000 tokens and a question on it: read with --no-cache, and with what another question left.
SmolLM2 answers as a chat, Gemma (a base model with sliding windows) completes --raw. The reply is one token,
so the process ends with it; what keeping takes besides is a figure of its own. The second reply must begin at
the question and have the first one's digest.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import common

N_WORDS = 2_300  # about 3,000 tokens
LIMIT = 0.2
QUESTIONS = ("Who sat on the mat?", "What did the second one see?")


def benchmark() -> str:
    given = _arguments().parse_args()
    threads = common.threads_of(given)
    report = common.Report("prefix_cache", given.rounds)
    facts: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as home:
        env = common.clean_environment(Path(home))
        book = Path(home) / "book.txt"
        book.write_text(text(N_WORDS))
        for name, model, more in (
            ("SmolLM2", given.smollm2, []),
            ("Gemma", given.gemma, ["--raw"]),
        ):
            command = [
                *common.INFER, "run", "-m", common.model_path(model), "-f", str(book), "-n", "1", "--json",
                "--threads", str(threads), "--gpu-layers", "0", *more,
            ]  # fmt: skip
            facts |= _measure(name, command, report, given.rounds, env)
    return report.line(common.machine_facts(**facts), {"threads": threads, "questions": QUESTIONS})


def _measure(
    name: str, command: list[str], report: common.Report, rounds: int, env: dict[str, str]
) -> dict[str, object]:
    first, second = QUESTIONS
    without = _reply([*command, second, "--no-cache"], env)  # page cache, compiled Python, the model's hash
    common.run([*common.INFER, "cache", "clear"], env)
    common.run([*command, first], env)
    with_cache = _reply([*command, second], env)
    usage, other = with_cache["usage"], without["usage"]
    assert isinstance(usage, dict) and isinstance(other, dict)
    if with_cache["digest"] != without["digest"]:
        raise common.BenchmarkError(f"{name}: a reply from the cache is another one")
    if usage["prompt_tokens"] - usage["cached_tokens"] > 128 or other["cached_tokens"]:
        raise common.BenchmarkError(f"{name}: {usage} does not begin at the question")
    results = common.interleave(
        {
            f"{name} first": timed([*command, second, "--no-cache"], env),
            f"{name} second": timed([*command, second], env),
            f"{name} first, and kept": _kept([*command, first], env),
        },
        rounds,
    )
    for series, values in results.items():
        report.series(f"{series} s", values)
    ratio = report.ratio(f"{name} second / first", results[f"{name} second"], results[f"{name} first"])
    report.check(f"{name} second / first", ratio, "<=", LIMIT)
    entries = json.loads(common.run([*common.INFER, "cache", "list", "--json"], env).stdout)
    return {
        f"{name} prompt_tokens": usage["prompt_tokens"],
        f"{name} cached_tokens": usage["cached_tokens"],
        f"{name} bytes_per_token": entries[0]["bytes_per_token"],
    }


def _reply(command: list[str], env: dict[str, str]) -> dict[str, object]:
    reply: dict[str, object] = json.loads(common.run(command, env).stdout)
    return reply


def timed(command: list[str], env: dict[str, str]) -> Callable[[], float]:
    return lambda: common.run(command, env).seconds


def _kept(command: list[str], env: dict[str, str]) -> Callable[[], float]:
    """A first question that has to be read and kept."""

    def measure() -> float:
        common.run([*common.INFER, "cache", "clear"], env)
        return common.run(command, env).seconds

    return measure


def text(n_words: int) -> str:
    """Plain sentences, the same each time, no two alike."""
    lines: list[str] = []
    n = 0
    while n < n_words:
        line = f"Cat number {len(lines)} sat on a mat and saw {len(lines) * 7 % 97} rats come in."
        lines.append(line)
        n += len(line.split())
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=5)
    parser.add_argument("--threads", type=int, help="(infer's own default)")
    parser.add_argument(
        "--smollm2", default=common.SMOLLM2, metavar="MODEL", help=f"a model or a file ({common.SMOLLM2})"
    )
    common.add_gemma(parser)
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
