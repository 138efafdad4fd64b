"""Does the contract hold for every quantization? `infer probe`, and replies from the prefix cache, on each.

    python -m benchmarks.quantizations [--smollm2 MODEL] [--gemma MODEL] [--types Q4_1,F16] [--requests 32]
        [--max-tokens 8] [--only probe|cache]

The default model is quantized anew by llama.cpp to each type (from what it is: the weights need not be good,
the kernels are the type's own); Gemma 3 is taken as it is, with its sliding windows. In canonical and in
invariant every way that `infer probe` answers must be the first one's, to the logits, and a reply that begins
with a kept state the one without, log-probabilities too. A check is the share of replies that were the same.

The probe here leaves out what decides nothing: the mode that promises nothing, and what each mode costs. Each
step of a reply is compared, so many short replies find more than few long ones in the same time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import common
from benchmarks.prefix_cache import QUESTIONS, text
from infer_cli.types import Mode

FTYPES = {
    "Q4_1": 3, "Q4_0": 2, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q3_K_M": 12, "Q4_K_M": 15, "Q6_K": 18,
    "IQ4_NL": 25, "F16": 1,
}  # fmt: skip
GEMMA = "Gemma"  # among the types
TYPES = ("Q4_1", "Q4_0", "Q8_0", "Q5_0", "Q4_K_M", "Q6_K", "IQ4_NL", "F16", GEMMA)
MODES: dict[Mode, tuple[str, ...]] = {"canonical": (), "invariant": ("--invariant",)}
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
    types = given.types.split(",")
    if unknown := set(types) - {*FTYPES, GEMMA}:
        raise common.BenchmarkError(f"no type {min(unknown)}: {', '.join([*FTYPES, GEMMA])}")
    source = common.model_path(given.smollm2)
    gemma = common.model_path(given.gemma) if GEMMA in types else ""
    with tempfile.TemporaryDirectory() as folder:
        env = common.clean_environment(Path(folder) / "home")
        version = common.run([*common.INFER, "--version"], env).stdout.split()[-1]
        for name in types:
            if name == GEMMA:
                _measure(name, gemma, given, threads, report, env)
                continue
            model = Path(folder) / f"{name}.gguf"
            quantize(source, model, name, env)
            _measure(name, str(model), given, threads, report, env)
            model.unlink()
    settings = {"threads": threads, "requests": given.requests, "max_tokens": given.max_tokens}
    settings["types"] = given.types
    return report.line(common.machine_facts(infer=version), settings)


def quantize(source: str, target: Path, name: str, env: dict[str, str]) -> None:
    """Write a model as one of `FTYPES`."""
    common.run([sys.executable, "-c", _QUANTIZE, source, str(target), str(FTYPES[name])], env)


def _measure(
    name: str,
    model: str,
    given: argparse.Namespace,
    threads: int,
    report: common.Report,
    env: dict[str, str],
) -> None:
    def check(what: str, same: float) -> None:
        print(f"{name} {what}: {same:g} ({time.perf_counter() - began:.0f} s)", file=sys.stderr, flush=True)
        report.check(f"{name} {what}", same, ">=", 1.0)

    for mode, flags in MODES.items():
        began = time.perf_counter()
        if given.only != "cache":
            n_ways, same = _probed(mode, model, threads, given.requests, given.max_tokens)
            check(f"{mode}: replies that are the same, of {n_ways} ways the worst", same)
        if given.only != "probe":
            model_flags = ["-m", model, "--threads", str(threads), "--gpu-layers", "0"]
            check(f"{mode}: replies from cache", _from_cache([*model_flags, *flags], env))


def _probed(mode: Mode, model: str, threads: int, n_requests: int, n_tokens: int) -> tuple[int, float]:
    """How many ways `infer probe` has answered in, and the share of equal replies in the worst of them."""
    from infer_cli.checking.probe_process import ProbeOrder, probe_one
    from infer_cli.errors import InferError

    order = ProbeOrder(model, mode, threads, "0", (), n_requests, n_tokens, priced=False)
    try:
        ways = probe_one(order, lambda way: print(f"{mode}: {way}", file=sys.stderr))["ways"]
    except InferError as e:
        raise common.BenchmarkError(f"{mode} could not be probed: {e.message}") from None
    return len(ways), min(min(way["same_tokens"], way["same_logits"]) / way["n"] for way in ways)


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
    parser.add_argument("--types", default=",".join(TYPES), help="some of these, with commas between")
    parser.add_argument("--requests", type=int, default=32, help="of the probe (32)")
    parser.add_argument("--max-tokens", type=int, default=8, help="of each of its replies (8)")
    parser.add_argument("--only", choices=("probe", "cache"), help="one part")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
