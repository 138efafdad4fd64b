"""Does the contract hold for every quantization? `infer probe`, and replies from the prefix cache, on each.

    python -m benchmarks.quantizations [--smollm2 MODEL] [--gemma MODEL] [--types Q4_1,F16] [--requests 32]
        [--only probe|cache]

The default model is quantized anew by llama.cpp to each type (from what it is: the weights need not be good,
the kernels are the type's own); Gemma 3 is taken as it is, with its sliding windows. In canonical and in
invariant every way that `infer probe` answers must be the first one's, to the logits, and a reply that begins
with a kept state the one without, log-probabilities too. A check is the share of replies that were the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.prefix_cache import QUESTIONS, text

FTYPES = {"Q4_1": 3, "Q4_0": 2, "Q8_0": 7, "Q5_0": 8, "Q4_K_M": 15, "Q6_K": 18, "IQ4_NL": 25, "F16": 1}
MODES = {"canonical": (), "invariant": ("--invariant",)}
N_WORDS = 500  # of the file that is asked about: over 600 tokens

_QUANTIZE = """
import sys
import llama_cpp.llama_cpp as L
params = L.llama_model_quantize_default_params()
params.ftype, params.allow_requantize = int(sys.argv[3]), True
sys.exit(L.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params))
"""


def benchmark() -> str:
    given = _arguments().parse_args()
    report, threads = common.Report("quantizations", 1), common.threads_of(given)
    source, gemma = common.model_path(given.smollm2), common.model_path(given.gemma)
    version = ""
    with tempfile.TemporaryDirectory() as folder:
        env = common.clean_environment(Path(folder) / "home")
        version = common.run([*common.INFER, "--version"], env).stdout.split()[-1]
        for name in filter(None, given.types.split(",")):
            model = Path(folder) / f"{name}.gguf"
            common.run([sys.executable, "-c", _QUANTIZE, source, str(model), str(FTYPES[name])], env)
            _measure(name, str(model), given, threads, report, env)
            model.unlink()
        _measure("Gemma", gemma, given, threads, report, env)
    settings = {"threads": threads, "requests": given.requests, "types": given.types}
    return report.line(common.machine_facts(infer=version), settings)


def _measure(
    name: str,
    model: str,
    given: argparse.Namespace,
    threads: int,
    report: common.Report,
    env: dict[str, str],
) -> None:
    print(name, file=sys.stderr)
    common_flags = ["-m", model, "--threads", str(threads), "--gpu-layers", "0"]
    found = _probed(common_flags, given.requests, env) if given.only != "cache" else {}
    for mode, flags in MODES.items():
        if found:
            ways = found[mode]["ways"]
            same = min(min(way["same_tokens"], way["same_logits"]) / way["n"] for way in ways)
            report.check(
                f"{name} {mode}: replies that are the same, of {len(ways)} ways the worst", same, ">=", 1.0
            )
        if given.only != "probe":
            same = _from_cache([*common_flags, *flags], env)
            report.check(f"{name} {mode}: replies from cache", same, ">=", 1.0)


def _probed(flags: list[str], n_requests: int, env: dict[str, str]) -> dict[str, Any]:
    """What `infer probe` says of each mode."""
    # Exit code 9 where a promise is broken: the table says so too.
    probe = subprocess.run(
        [*common.INFER, "probe", *flags, "--requests", str(n_requests), "--json", "--quiet"],
        stdout=subprocess.PIPE,
        env=env,
        cwd=common.ROOT,
    )
    if probe.returncode not in (0, 9):
        raise common.BenchmarkError(f"exit code {probe.returncode} of infer probe")
    return {mode["mode"]: mode for mode in json.loads(probe.stdout)["modes"]}


def _from_cache(flags: list[str], env: dict[str, str]) -> float:
    """Share of the replies, greedy and sampled, that are the same from the cache as without."""
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder) / "book.txt"
        book.write_text(text(N_WORDS))
        run = [
            *common.INFER,
            "run",
            *flags,
            "--raw",
            "-f",
            str(book),
            "-n",
            "16",
            "--json",
            "--logprobs",
            "5",
        ]
        common.run([*run, QUESTIONS[0]], env)
        same = [_same(run, sampling, env) for sampling in ([], ["-t", "0.8", "--seed", "7"])]
    return sum(same) / len(same)


def _same(run: list[str], sampling: list[str], env: dict[str, str]) -> bool:
    hit, miss = (
        json.loads(common.run([*run, *sampling, QUESTIONS[1], *more], env).stdout)
        for more in ([], ["--no-cache"])
    )
    if not hit["usage"]["cached_tokens"] > miss["usage"]["cached_tokens"] == 0:
        raise common.BenchmarkError(f"the cache was not used: {hit['usage']}")
    return bool(hit["digest"] == miss["digest"] and hit["logprobs"] == miss["logprobs"])


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=1)
    common.add_model(parser)
    common.add_gemma(parser)
    parser.add_argument("--types", default=",".join(FTYPES), help="some of the types, with commas between")
    parser.add_argument("--requests", type=int, default=32, help="of the probe (32)")
    parser.add_argument("--only", choices=("probe", "cache"), help="one part")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
