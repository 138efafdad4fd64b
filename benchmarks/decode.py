"""Tokens a second while decoding: `infer run` against `llama-bench` tg.

    python -m benchmarks.decode --peers DIR [--rounds 9] [--threads N] [--smollm2 MODEL] [--gemma MODEL]

A round: llama-bench (-p 0 -n 128 -r 1), `infer run --fast` greedy, `infer run --fast -t 0.8` (the default
sampler chain), and `infer run` (canonical), each a process of its own. infer's figure is `decode_tps` of its
JSON: 128 steps after the first token, detokenizing included. llama-bench samples nothing and guesses nothing,
so these run with `--no-speculation`; a figure is `--fast` as it comes, guessing from what stood before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import common

N_DECODE = 128
PROMPT = "Once upon a time"
TEMPERATURE = "0.8"
SEEDS = range(1, 33)


def benchmark() -> str:
    given = _arguments().parse_args()
    peers, threads = common.peers_of(given), common.threads_of(given)
    report = common.Report("decode", given.rounds)
    models = {"smollm2": common.model_path(given.smollm2), "gemma": common.model_path(given.gemma)}
    with tempfile.TemporaryDirectory() as home:
        env = common.clean_environment(Path(home))
        facts: dict[str, object] = {}
        for name, path in models.items():
            facts = _measure(name, path, report, peers, threads, given.rounds, env)
    settings = {"threads": threads, "n_decode": N_DECODE, "prompt": PROMPT, "temperature": TEMPERATURE}
    return report.line(common.machine_facts(**facts), settings)


def _measure(
    name: str,
    path: str,
    report: common.Report,
    peers: common.Peers,
    threads: int,
    rounds: int,
    env: dict[str, str],
) -> dict[str, object]:
    """Adds one model's figures to the report; returns the versions."""
    n_tokens = N_DECODE + 1  # the first one comes from the prefill
    ours = ["-m", path, "--threads", str(threads), "--gpu-layers", "0", "--raw", "-n", str(n_tokens), PROMPT]
    bench = [
        peers.tool("llama-bench"), "-m", path, "-p", "0", "-n", str(N_DECODE), "-r", "1",
        "-t", str(threads), "-ngl", "0", "-o", "json",
    ]  # fmt: skip

    def infer(*flags: str) -> Callable[[], float]:
        return lambda: _decode_tps(common.infer_reply([*flags, *ours], env, n_tokens))

    reply = common.infer_reply(["--fast", *ours], env, n_tokens)  # also fills the page cache
    sampled = [
        "--fast",
        "--no-speculation",
        "-t",
        TEMPERATURE,
        "--seed",
        _long_enough(["--fast", *ours], env, n_tokens),
    ]
    results = common.interleave(
        {
            f"{name} llama-bench": lambda: float(json.loads(common.run(bench, env).stdout)[0]["avg_ts"]),
            f"{name} fast greedy": infer("--fast", "--no-speculation"),
            f"{name} fast sampled": infer(*sampled),
            f"{name} canonical": infer(),
            f"{name} fast guessing": infer("--fast"),
        },
        rounds,
    )
    bench_tps, greedy, chain, canonical, guessing = results.values()
    for series, values in results.items():
        report.series(f"{series} tokens/s", values)
    report.check(
        f"{name}: fast greedy / llama-bench", report.ratio(f"{name} greedy", greedy, bench_tps), ">=", 0.95
    )
    report.check(
        f"{name}: fast sampled / llama-bench", report.ratio(f"{name} sampled", chain, bench_tps), ">=", 0.93
    )
    report.ratio(f"{name} guessing", guessing, bench_tps)
    report.check(
        f"{name}: canonical / fast", report.ratio(f"{name} canonical", canonical, greedy), ">=", 0.97
    )
    return common.engine_facts(reply, peers)


def _decode_tps(reply: dict[str, object]) -> float:
    timings = reply["timings"]
    assert isinstance(timings, dict)
    return float(timings["decode_tps"])


def _long_enough(ours: list[str], env: dict[str, str], n_tokens: int) -> str:
    """A seed whose reply does not end early on this machine."""
    for seed in SEEDS:
        try:
            common.infer_reply(["-t", TEMPERATURE, "--seed", str(seed), *ours], env, n_tokens)
        except common.BenchmarkError as e:
            print(f"seed {seed}: {e}", file=sys.stderr)
        else:
            return str(seed)
    raise common.BenchmarkError(f"no seed of {SEEDS} gives {n_tokens} tokens")


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__)
    common.add_peers(parser)
    common.add_gemma(parser)
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
