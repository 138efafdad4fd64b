"""`infer perplexity` against llama-perplexity: the same windows, the same figures, how long both take.

    python -m benchmarks.perplexity --peers DIR [--data DIR] [--rounds 1] [--threads N] [--model MODEL]
        [--gemma MODEL] [--limit 50] [--types Q4_1,Q8_0,Gemma] [--only perplexity|divergence]

The first windows of WikiText-2's validation text, 512 tokens each.
perplexity: the default model quantized anew to each type, and Gemma 3 as it is, with `--fast`.
divergence: F16 made of the default model, Q4_0 and Q3_K_M made of that. How far each is from F16 in nats a
token, as `infer perplexity --against` and `llama-perplexity --kl-divergence` have it, and how far a file is
from itself with `--invariant`: exactly 0. llama-perplexity first writes what F16 says to a file, 25 MB a
window with the default model; its time has both of its runs.

Seconds are those of whole processes. The data is found in --data or INFER_TEST_DATA: wikitext2/valid.txt.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import common
from benchmarks.quantizations import FTYPES, GEMMA, quantize

WINDOW = 512
N_SCORED = WINDOW // 2 - 1  # tokens behind the middle of a window
TYPES = ("Q4_1", "Q8_0", GEMMA)
BASE, DIVERGED = "F16", ("Q4_0", "Q3_K_M")
MOST_APART = 1e-3
MOST_KL_SHARE, MOST_KL_NATS = 0.01, 1e-4
PARTS = ("perplexity", "divergence")


class Found(NamedTuple):
    """A figure, and the seconds that it took."""

    value: float
    seconds: float


def benchmark() -> str:
    given = _arguments().parse_args()
    types = given.types.split(",")
    if unknown := set(types) - {*FTYPES, GEMMA}:
        raise common.BenchmarkError(f"no type {min(unknown)}: {', '.join([*FTYPES, GEMMA])}")
    report = common.Report("perplexity", given.rounds)
    with tempfile.TemporaryDirectory() as work:
        bench = _Bench(given, report, Path(work))
        if given.only != "divergence":
            for name in types:
                bench.perplexity(name)
        if given.only != "perplexity":
            bench.divergence()
        version = bench.version()
    settings = {"threads": bench.threads, "windows": given.limit, "window": WINDOW, "types": types}
    return report.line(common.machine_facts(infer=version, peers_commit=bench.peers.commit()), settings)


class _Bench:
    def __init__(self, given: argparse.Namespace, report: common.Report, folder: Path) -> None:
        self._report, self._rounds, self._limit = report, given.rounds, given.limit
        self.peers, self.threads = common.peers_of(given), common.threads_of(given)
        self._text = str(common.data_file(given, "wikitext2/valid.txt"))
        self._source, self._gemma = common.model_path(given.model), given.gemma
        self._folder, self._env = folder, common.clean_environment(folder / "home")

    def version(self) -> str:
        return common.run([*common.INFER, "--version"], self._env).stdout.split()[-1]

    def perplexity(self, name: str) -> None:
        """Of one type."""
        model = common.model_path(self._gemma) if name == GEMMA else self._quantized(self._source, name)
        results = common.interleave(
            {
                f"{name} llama-perplexity": lambda: self._peer_perplexity(model),
                f"{name} infer --fast": lambda: self._our_perplexity(model),
            },
            self._rounds,
        )
        peer, ours = self._show(results)
        self._report.ratio(f"{name} infer / llama-perplexity s", *(_seconds(side) for side in (ours, peer)))
        apart = max(abs(a.value / b.value - 1) for a, b in zip(ours, peer, strict=True))
        self._report.check(f"{name}: relative difference of the perplexity", apart, "<=", MOST_APART)
        if name != GEMMA:
            Path(model).unlink()

    def divergence(self) -> None:
        base = self._quantized(self._source, BASE)
        for name in DIVERGED:
            model = self._quantized(base, name)
            results = common.interleave(
                {
                    f"{name} KL llama-perplexity": self._peer_divergence(model, base),
                    f"{name} KL infer --fast": self._our_divergence("kl_mean", "--fast", model, base),
                },
                self._rounds,
            )
            peer, ours = self._show(results)
            self._report.ratio(
                f"{name} KL infer / llama-perplexity s", *(_seconds(side) for side in (ours, peer))
            )
            apart = max(abs(a.value - b.value) for a, b in zip(ours, peer, strict=True))
            limit = MOST_KL_SHARE * min(one.value for one in peer) + MOST_KL_NATS
            self._report.check(f"{name}: difference of the KL divergence, nats", apart, "<=", limit)
        own = self._our_divergence("kl_max", "--invariant", base, base)()
        self._report.check(f"{BASE} against itself, --invariant: largest KL, nats", own.value, "<=", 0.0)

    def _quantized(self, source: str, name: str) -> str:
        target = self._folder / f"{name}.gguf"
        quantize(source, target, name, self._env)
        return str(target)

    def _show(self, results: dict[str, list[Found]]) -> list[list[Found]]:
        for name, found in results.items():
            self._report.series(f"{name} s", _seconds(found))
            self._report.series(f"{name} value", [one.value for one in found])
        return list(results.values())

    # --- the sides -----------------------------------------------------------------------------

    def _ours(self, *flags: str) -> tuple[dict[str, Any], float]:
        """What infer found, and its seconds."""
        command = [
            *common.INFER, "perplexity", self._text, *flags, "--limit", str(self._limit),
            "--threads", str(self.threads), "--gpu-layers", "0", "--json", "--quiet",
        ]  # fmt: skip
        done = common.run(command, self._env)
        found: dict[str, Any] = json.loads(done.stdout)
        if (found["n_windows"], found["n_tokens"]) != (self._limit, self._limit * N_SCORED):
            raise common.BenchmarkError(
                f"infer scored {found['n_tokens']} tokens of {found['n_windows']} windows,"
                f" not {N_SCORED} of each of {self._limit}"
            )
        return found, done.seconds

    def _our_perplexity(self, model: str) -> Found:
        found, seconds = self._ours("-m", model, "--fast")
        return Found(found["ppl"], seconds)

    def _our_divergence(self, key: str, mode: str, model: str, base: str) -> Callable[[], Found]:
        def measure() -> Found:
            found, seconds = self._ours("-m", model, "--against", base, mode)
            return Found(found["against"][key], seconds)

        return measure

    def _peer_perplexity(self, model: str) -> Found:
        done = self._peer(model, "-f", self._text, "--chunks", str(self._limit))
        return Found(last_estimate(done.stdout, self._limit), done.seconds)

    def _peer_divergence(self, model: str, base: str) -> Callable[[], Found]:
        file = str(self._folder / "base.kld")

        def measure() -> Found:
            written = self._peer(
                base, "-f", self._text, "--chunks", str(self._limit), "--kl-divergence-base", file
            )
            read = self._peer(model, "--kl-divergence", "--kl-divergence-base", file)
            Path(file).unlink()
            return Found(mean_divergence(read.stdout), written.seconds + read.seconds)

        return measure

    def _peer(self, model: str, *flags: str) -> common.Run:
        command = [
            self.peers.tool("llama-perplexity"), "-m", model, "-c", str(WINDOW), "-t", str(self.threads),
            "-tb", str(self.threads), "-ngl", "0", *flags,
        ]  # fmt: skip
        return common.run(command, self._env)


def last_estimate(shown: str, n_windows: int) -> float:
    """Of all windows, in llama-perplexity's running list: `[1]5.1234,[2]6.1234,`."""
    found = {int(n): float(value) for n, value in re.findall(r"\[(\d+)\]([\d.]+),", shown)}
    if max(found, default=0) != n_windows:
        raise common.BenchmarkError(f"llama-perplexity had {max(found, default=0)} windows, not {n_windows}")
    return found[n_windows]


def mean_divergence(shown: str) -> float:
    """Nats a token, in llama-perplexity's statistics: `Mean    KLD:   0.123456 ±   0.001234`."""
    found = re.search(r"^Mean +KLD: +([-\d.]+)", shown, re.MULTILINE)
    if found is None:
        raise common.BenchmarkError("llama-perplexity tells no mean divergence")
    return float(found[1])


def _seconds(found: list[Found]) -> list[float]:
    return [one.seconds for one in found]


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=1)
    common.add_tools(parser)
    common.add_threads(parser)
    common.add_data(parser)
    common.add_one_model(parser, common.SMOLLM2)
    common.add_gemma(parser)
    parser.add_argument("--limit", type=int, default=50, help="windows (50)")
    parser.add_argument("--types", default=",".join(TYPES), help="some of these, with commas between")
    parser.add_argument("--only", choices=PARTS, help="one part")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
