"""Peak memory of a whole process: `infer run` against llama-completion with the same window.

    python -m benchmarks.memory --peers DIR [--ctx 256 2048] [--rounds 7] [--threads N]
        [--smollm2 MODEL] [--gemma MODEL]

Two figures of each side, in MB (10^6 bytes). "peak RSS" is that of the largest process, as GNU time and
`wait4` have it. "tree" adds up the proportional set sizes of a process and its children at the same moment,
sampled, so that infer's supervisor counts too (Linux only). The threshold is for the first, in infer's
default mode; the second is a figure.

infer makes its cache as large as the request can fill, not as large as --ctx allows: at 256 both sides
hold the same cache, which is the strict comparison; above it llama-completion's is larger.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

from benchmarks import common, whole_process

LIMIT_MB = 30


@dataclass(frozen=True)
class Peak:
    rss_mb: float
    tree_mb: float | None


def benchmark() -> str:
    given = _arguments().parse_args()
    peers, threads = common.peers_of(given), common.threads_of(given)
    report = common.Report("memory", given.rounds)
    models = {"smollm2": common.model_path(given.smollm2), "gemma": common.model_path(given.gemma)}
    facts: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as home:
        env = common.clean_environment(Path(home))
        for (name, path), n_ctx in product(models.items(), given.ctx):
            ours = [
                "-m", path, "--threads", str(threads), "--gpu-layers", "0", "--ctx", str(n_ctx),
                "--raw", "-n", str(whole_process.N_TOKENS), whole_process.PROMPT,
            ]  # fmt: skip
            theirs = whole_process.completion_command(peers.tool("llama-completion"), path, threads, n_ctx)
            reply = common.infer_reply(ours, env, whole_process.N_TOKENS)
            facts = common.engine_facts(reply, peers)
            results = common.interleave(
                {
                    "llama-completion": peak_of(theirs, env),
                    "infer": peak_of([*common.INFER, "run", *ours], env),
                    "infer --fast": peak_of([*common.INFER, "run", "--fast", *ours], env),
                },
                given.rounds,
            )
            _report(f"{name} ctx {n_ctx}", report, results)
    settings = {"threads": threads, "n_ctx": given.ctx, "n_tokens": whole_process.N_TOKENS}
    return report.line(common.machine_facts(**facts), settings)


def _report(name: str, report: common.Report, results: dict[str, list[Peak]]) -> None:
    for side, peaks in results.items():
        report.series(f"{name} {side} peak RSS MB", [p.rss_mb for p in peaks])
        if (trees := _trees(peaks)) is not None:
            report.series(f"{name} {side} tree MB", trees)
    peer, ours = results["llama-completion"], results["infer"]
    report.check(
        f"{name}: infer - llama-completion, peak RSS MB",
        _excess([p.rss_mb for p in ours], [p.rss_mb for p in peer]),
        "<=",
        LIMIT_MB,
    )
    tree, peer_tree = _trees(ours), _trees(peer)
    if tree is not None and peer_tree is not None:
        report.series(f"{name} infer - llama-completion, tree MB", [_excess(tree, peer_tree)])


def _trees(peaks: Sequence[Peak]) -> list[float] | None:
    trees = [p.tree_mb for p in peaks if p.tree_mb is not None]
    return trees if len(trees) == len(peaks) else None


def _excess(values: Sequence[float], baseline: Sequence[float]) -> float:
    return median(value - base for value, base in zip(values, baseline, strict=True))


def peak_of(command: list[str], env: dict[str, str]) -> Callable[[], Peak]:
    """What measures a command's peak, each time anew."""

    def measure() -> Peak:
        tree = common.TreeMemory()
        done = common.run(command, env, tree.watch)
        tree.join()
        return Peak(done.peak_rss / common.MB, None if tree.peak is None else tree.peak / common.MB)

    return measure


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=common.MIN_ROUNDS)
    common.add_peers(parser)
    common.add_gemma(parser)
    parser.add_argument(
        "--ctx", type=int, nargs="+", default=[256, 2048], metavar="TOKENS", help="windows (256 2048)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
