"""Seconds to count the tokens of a large text: `infer tokens` against `llama-tokenize`.

    python -m benchmarks.tokens --peers DIR [--rounds 7] [--megabytes 50] [--text FILE] [--smollm2 MODEL]

A round: each of both, a process of its own, on the same text (FILE repeated up to the size). The vocabulary
is checked before the first round, as it is once per vocabulary. At the end both give their ids, which must be
the same.
`llama-tokenize` can count only beside its list of ids; it writes into a pipe that is read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import common

DATA = Path(os.environ.get("INFER_TEST_DATA", common.ROOT.parent / "shared" / "data"))


def benchmark() -> str:
    parser = common.arguments(__doc__, rounds=7)
    common.add_peers(parser)
    parser.add_argument("--megabytes", type=int, default=50, help="size of the text (50)")
    parser.add_argument(
        "--text", type=Path, default=DATA / "wikitext2" / "valid.txt", metavar="FILE", help="WikiText-2"
    )
    given = parser.parse_args()
    peers, model = common.peers_of(given), common.model_path(given.smollm2)
    report = common.Report("tokens", given.rounds)
    with tempfile.TemporaryDirectory() as home:
        env = common.clean_environment(Path(home))
        text = Path(home) / "text"
        size = _write_text(text, given)
        infer = [*common.INFER, "tokens", "-m", model, "-f", str(text)]
        tokenize = [peers.tool("llama-tokenize"), "-m", model, "-f", str(text), "--ids"]
        tokenize += ["--no-bos", "--no-parse-special", "--log-disable"]
        common.run(infer, env)
        peak: list[float] = []
        results = common.interleave(
            {"infer tokens": _timed(infer, env, peak), "llama-tokenize": _timed(tokenize, env, [])},
            given.rounds,
        )
        # Not before: a process starts with the peak memory of the one that made it.
        n_tokens = _same_ids(infer, tokenize, env)
    for name, seconds in results.items():
        report.series(f"{name} s", seconds)
        report.series(f"{name} MB/s", [size / common.MB / s for s in seconds])
    report.series("infer tokens peak MB", peak)
    ratio = report.ratio("llama-tokenize / infer tokens", results["llama-tokenize"], results["infer tokens"])
    report.check("llama-tokenize / infer tokens", ratio, ">=", 5.0)
    version = common.run([*common.INFER, "--version"], dict(os.environ)).stdout.split()[-1]
    return report.line(
        common.machine_facts(infer=version, peers_commit=peers.commit()),
        {"bytes": size, "tokens": n_tokens, "text": given.text.name},
    )


def _write_text(path: Path, given: argparse.Namespace) -> int:
    """Write the text, repeated up to the size; returns its bytes."""
    try:
        once = given.text.read_bytes()
    except OSError as e:
        raise common.BenchmarkError(f"{given.text}: {e.strerror}: give a text with --text") from None
    size = given.megabytes * common.MB
    with path.open("wb") as file:
        for start in range(0, size, len(once)):
            file.write(once[: size - start])
    return int(size)


def _same_ids(infer: list[str], tokenize: list[str], env: dict[str, str]) -> int:
    ours = json.loads(common.run([*infer, "--json"], env).stdout)
    theirs = json.loads(common.run(tokenize, env).stdout)
    if ours["method"] != "tiktoken":
        raise common.BenchmarkError("infer did not use tiktoken: there is nothing to measure")
    if ours["ids"] != theirs:
        raise common.BenchmarkError("the ids differ: the work is not the same")
    return len(theirs)


def _timed(command: list[str], env: dict[str, str], peak: list[float]) -> Callable[[], float]:
    def measure() -> float:
        done = common.run(command, env)
        peak.append(done.peak_rss / common.MB)
        return done.seconds

    return measure


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
