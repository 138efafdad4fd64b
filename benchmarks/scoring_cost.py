"""What scoring costs beside the model's own work: time outside llama.cpp, and memory.

    python -m benchmarks.scoring_cost [--data DIR] [--rounds 7] [--threads N] [--model MODEL] [--items 100]
        [--only time|memory]

With Gemma 3, whose vocabulary is large. time: pairs of BLiMP sentences through the engine alone; what passes
outside `llama_decode` (log-probabilities, the tree, Python) over the whole. The load is left out.
memory: peak of `infer score` with one text, every token of it scored, against `infer run` with the same text
and mode. It may be more by twice the logits that are held (64 MiB; in canonical those of 65 rows) and 16 MiB.
Peak RSS is that of the largest process; "tree" adds up a process and its children.

The data is found in --data or INFER_TEST_DATA: blimp/wh_island.jsonl, wikitext2/valid.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks import common
from benchmarks.memory import Peak, peak_of
from benchmarks.score_command import Row, remove_output, row_line, score_command
from infer_cli.types import Mode

MODES: tuple[Mode, ...] = ("fast", "invariant", "canonical")
MIB = 2**20
MOST_SHARE = 0.08
LOGITS_BYTES, CANONICAL_ROWS, OTHER_BYTES = 64 * MIB, 65, 16 * MIB
TEXT_BYTES = 1500  # of the text whose memory is measured: some 350 tokens
PARTS = ("time", "memory")


def benchmark() -> str:
    given = _arguments().parse_args()
    report, threads = common.Report("scoring_cost", given.rounds), common.threads_of(given)
    model = common.model_path(given.model)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        env = common.clean_environment(folder / "home")
        version = common.run([*common.INFER, "--version"], env).stdout.split()[-1]
        if given.only != "memory":
            _time(given, report, model, threads, env)
        if given.only != "time":
            _memory(given, report, model, threads, env, folder)
    settings = {"threads": threads, "model": Path(model).name, "pairs": given.items}
    return report.line(common.machine_facts(infer=version), settings)


# --- time -----------------------------------------------------------------------------------------


def _time(
    given: argparse.Namespace, report: common.Report, model: str, threads: int, env: dict[str, str]
) -> None:
    lines = common.data_file(given, "blimp/wh_island.jsonl").read_text("utf-8").splitlines()[: given.items]
    pairs = [json.loads(line) for line in lines]
    sentences = [pair[which] for pair in pairs for which in ("sentence_good", "sentence_bad")]
    tokens: dict[Mode, int] = {}

    def share(mode: Mode) -> Callable[[], float]:
        order = {"model": model, "threads": threads, "mode": mode, "sentences": sentences}
        program = "from benchmarks import scoring_cost; scoring_cost.score_all()"

        def measure() -> float:
            found = json.loads(common.run([sys.executable, "-c", program, json.dumps(order)], env).stdout)
            tokens[mode] = found["evaluated"]
            return 1 - float(found["decode_s"]) / float(found["seconds"])

        return measure

    results = common.interleave({mode: share(mode) for mode in MODES}, given.rounds)
    for mode in MODES:
        shares = results[mode]
        report.series(f"{mode} share of time outside llama.cpp", shares)
        report.series(f"{mode} tokens evaluated", [tokens[mode]])
        report.check(f"{mode} share of time outside llama.cpp", median(shares), "<=", MOST_SHARE)


def score_all() -> None:
    """What the process does: carries out the order in its argument, prints seconds, those of llama_decode,
    and tokens evaluated. A process of its own, since llama.cpp reads its settings once."""
    import os
    import time

    from infer_cli.backend import native
    from infer_cli.models.installed import at_path
    from infer_cli.prompt.pairs import encode_pair
    from infer_cli.runtime.options import EngineOptions
    from infer_cli.runtime.session import Session
    from infer_cli.types import Finished

    order = json.loads(sys.argv[1])
    options = EngineOptions(threads=order["threads"], mode=order["mode"], gpu_layers="0")
    session = Session(at_path(Path(order["model"])), options, 1, os.open(os.devnull, os.O_WRONLY))
    vocab = session.loaded.vocab
    pairs = sorted(encode_pair(vocab, "", text) for text in order["sentences"])
    engine = session.score_engine(max(len(pair.context + pair.continuation) for pair in pairs))
    bindings = native.bindings()
    decode, decode_s = bindings.llama_decode, 0.0

    def timed(*arguments: object) -> int:
        nonlocal decode_s
        began = time.perf_counter()
        status = int(decode(*arguments))
        decode_s += time.perf_counter() - began
        return status

    bindings.llama_decode = timed
    found = {}
    for n in (1, len(pairs)):  # the first call of all reads the file
        decode_s, evaluated = 0.0, 0
        began = time.perf_counter()
        for i, pair in enumerate(pairs[:n]):
            engine.submit(pair.request(f"{n}-{i}"), began)
        while not engine.idle:
            for event in engine.step():
                if isinstance(event, Finished):
                    if event.likelihood is None:
                        raise SystemExit(f"a sentence was not scored: {event.error}")
                    evaluated += event.usage.prompt_tokens - event.usage.cached_tokens
        seconds = time.perf_counter() - began
        found = {"seconds": seconds, "decode_s": decode_s, "evaluated": evaluated}
    print(json.dumps(found))


# --- memory ---------------------------------------------------------------------------------------


def _memory(
    given: argparse.Namespace,
    report: common.Report,
    model: str,
    threads: int,
    env: dict[str, str],
    folder: Path,
) -> None:
    text = common.data_file(given, "wikitext2/valid.txt").read_text("utf-8")[:TEXT_BYTES].strip()
    n_vocab = _vocabulary(model, env)
    for mode in MODES:
        run = [
            *common.INFER, "run", "--raw", f"--{mode}", "-m", model, "--threads", str(threads),
            "--gpu-layers", "0", "-n", "1", "--no-record", "--no-cache", text,
        ]  # fmt: skip
        results = common.interleave(
            {
                f"{mode} infer run": peak_of(run, env),
                f"{mode} infer score": _score_peak(text, model, threads, mode, env, folder),
            },
            given.rounds,
        )
        for name, peaks in results.items():
            report.series(f"{name} peak RSS MB", [peak.rss_mb for peak in peaks])
            if trees := [peak.tree_mb for peak in peaks if peak.tree_mb is not None]:
                report.series(f"{name} tree MB", trees)
        run_peaks, score_peaks = results.values()
        pairs = zip(score_peaks, run_peaks, strict=True)
        excess = median(score.rss_mb - run.rss_mb for score, run in pairs)
        limit = most_excess(mode, n_vocab) / common.MB
        report.check(f"{mode}: infer score - infer run, peak RSS MB", excess, "<=", limit)


def most_excess(mode: Mode, n_vocab: int) -> int:
    """Bytes that `infer score` may hold beyond `infer run`."""
    held = CANONICAL_ROWS * n_vocab * 4 if mode == "canonical" else LOGITS_BYTES
    return 2 * held + OTHER_BYTES


def _score_peak(
    text: str, model: str, threads: int, mode: Mode, env: dict[str, str], folder: Path
) -> Callable[[], Peak]:
    source, out = folder / "text.jsonl", folder / "text-scored.jsonl"
    source.write_text(row_line(0, Row("", text)), "utf-8")
    measure = peak_of(score_command(source, out, model, threads, mode), env)

    def measured() -> Peak:
        remove_output(out)
        return measure()

    return measured


def _vocabulary(model: str, env: dict[str, str]) -> int:
    """How many tokens it has."""
    program = (
        "import sys; from pathlib import Path; from infer_cli.models.gguf.reading import read_model_header;"
        "from infer_cli.models.gguf.shape import ModelShape;"
        "print(ModelShape(read_model_header(Path(sys.argv[1]))).n_vocab)"
    )
    return int(common.run([sys.executable, "-c", program, model], env).stdout)


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=common.MIN_ROUNDS)
    common.add_threads(parser)
    common.add_data(parser)
    common.add_one_model(parser, common.GEMMA)
    parser.add_argument("--items", type=int, default=100, help="pairs of sentences (100)")
    parser.add_argument("--only", choices=PARTS, help="one part")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
