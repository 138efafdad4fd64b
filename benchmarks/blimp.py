"""Which of two sentences is likelier? BLiMP through `infer score`, against loops over llama-cpp-python.

    python -m benchmarks.blimp [--data DIR] [--rounds 3] [--threads N] [--model MODEL] [--items 1000]

Four sets of pairs, a sentence that is right and one that is not, each scored after the prefix token alone:

- loop: llama-cpp-python's low-level functions with invariant settings, one sentence at a time (blimp_loop.py,
  which shares no code with infer);
- infer: `infer score --invariant`, lines in and lines out;
- Llama: `Llama(logits_all=True)`, what people write today, with its own settings.

Seconds are those of whole processes. Checked: the sums of loop and infer on every sentence, which sentence of
a pair is likelier, how much faster infer is, and tokens evaluated over those that are distinct. Figures of
`Llama` and of `infer score --fast` stand beside them.

The data is found in --data or INFER_TEST_DATA: blimp/*.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import common
from benchmarks.score_command import Row, Scored, n_distinct, score
from infer_cli.types import Mode

SETS = (
    "anaphor_gender_agreement",
    "regular_plural_subject_verb_agreement_1",
    "sentential_negation_npi_scope",
    "wh_island",
)
MOST_NATS, LEAST_SPEEDUP, MOST_EVALUATED = 1e-4, 1.5, 1.02
LOOP = Path(__file__).with_name("blimp_loop.py")

# The quickest way to read likelihoods out of `Llama`: `create_completion(echo=True, logprobs=1)` sorts the
# vocabulary at each token.
_LLAMA = """
import json, sys, time
import llama_cpp
model, n_threads, sentences, out = sys.argv[1:]
threads = {"n_threads": int(n_threads), "n_threads_batch": int(n_threads)}
llm = llama_cpp.Llama(model, n_ctx=256, logits_all=True, verbose=False, **threads)
prefix = llm.token_bos() if llm.token_bos() >= 0 else llm.token_eos()
began = time.perf_counter()
every_id, logprobs = [], []
for text in json.load(open(sentences)):
    ids = [prefix, *llm.tokenize(text.encode(), add_bos=False)]
    llm.reset()
    llm.eval(ids[:-1])
    rows = llm.logits_to_logprobs(llm.scores[:len(ids) - 1])
    logprobs.append(float(sum(float(row[token]) for row, token in zip(rows, ids[1:]))))
    every_id.append(ids)
json.dump({"seconds": time.perf_counter() - began, "ids": every_id, "logprobs": logprobs}, open(out, "w"))
"""


class Looped(NamedTuple):
    """What a loop found. `seconds` are the whole process's, `inner` those of the loop without the load."""

    seconds: float
    inner: float
    ids: list[list[int]]
    logprobs: list[float]


def benchmark() -> str:
    given = _arguments().parse_args()
    report, threads = common.Report("blimp", given.rounds), common.threads_of(given)
    model = common.model_path(given.model)
    sentences = [text for name in SETS for text in _sentences(given, name)]
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        env = common.clean_environment(folder / "home")
        version = common.run([*common.INFER, "--version"], env).stdout.split()[-1]
        asked, found = folder / "sentences.json", folder / "found.json"
        asked.write_text(json.dumps(sentences), "utf-8")
        order = [model, str(threads), str(asked), str(found)]
        loops: dict[str, list[Looped]] = {"loop": [], "Llama": []}
        scores: dict[Mode, list[Scored]] = {"invariant": [], "fast": []}

        def looped(name: str, program: Sequence[str]) -> Callable[[], float]:
            def measure() -> float:
                done = common.run([sys.executable, *program, *order], env)
                loops[name].append(_looped(done.seconds, found))
                return done.seconds

            return measure

        def scored(mode: Mode) -> Callable[[], float]:
            rows = [Row("", text) for text in sentences]

            def measure() -> float:
                scores[mode].append(score(rows, model, threads, mode, env, folder))
                return scores[mode][-1].seconds

            return measure

        seconds = common.interleave(
            {
                "loop": looped("loop", [str(LOOP)]),
                "infer": scored("invariant"),
                "Llama": looped("Llama", ["-c", _LLAMA]),
                "infer --fast": scored("fast"),
            },
            given.rounds,
        )
    for name, values in seconds.items():
        report.series(f"{name} s", values)
    for name, runs in loops.items():
        report.series(f"{name} without the load s", [run.inner for run in runs])
    _check_sums(report, loops["loop"], scores["invariant"])
    ratio = report.ratio("loop / infer s", seconds["loop"], seconds["infer"])
    report.check("loop / infer s", ratio, ">=", LEAST_SPEEDUP)
    report.ratio("Llama / infer s", seconds["Llama"], seconds["infer"])
    report.ratio("Llama / infer --fast s", seconds["Llama"], seconds["infer --fast"])
    _check_evaluated(report, loops["loop"][0].ids, scores)
    last = loops["loop"][-1].logprobs
    others = {"Llama": loops["Llama"][-1].logprobs, "infer --fast": scores["fast"][-1].logprobs}
    for name, other in others.items():
        apart, n_other = largest_difference(last, other), different(last, other)
        report.series(f"{name} and loop: largest difference of a sentence, nats", [apart])
        report.series(f"{name} and loop: pairs that are decided differently", [n_other])
    settings = {"threads": threads, "model": Path(model).name, "pairs": len(sentences) // 2, "sets": SETS}
    return report.line(common.machine_facts(infer=version), settings)


def _sentences(given: argparse.Namespace, name: str) -> list[str]:
    """Of the first pairs of a set, the right one first."""
    lines = common.data_file(given, f"blimp/{name}.jsonl").read_text("utf-8").splitlines()
    pairs = [json.loads(line) for line in lines[: given.items]]
    return [pair[which] for pair in pairs for which in ("sentence_good", "sentence_bad")]


def _looped(seconds: float, found: Path) -> Looped:
    facts = json.loads(found.read_text("utf-8"))
    return Looped(seconds, facts["seconds"], facts["ids"], facts["logprobs"])


def _check_sums(report: common.Report, loops: list[Looped], scores: list[Scored]) -> None:
    for loop, infer in zip(loops, scores, strict=True):
        if [ids[1:] for ids in loop.ids] != infer.tokens:
            raise common.BenchmarkError("loop and infer scored different tokens")
    both = list(zip(loops, scores, strict=True))
    apart = max(largest_difference(loop.logprobs, infer.logprobs) for loop, infer in both)
    report.check("loop and infer: largest difference of a sentence, nats", apart, "<=", MOST_NATS)
    wrong = max(different(loop.logprobs, infer.logprobs) for loop, infer in both)
    report.check("loop and infer: pairs that are decided differently", wrong, "<=", 0)
    report.series("share of pairs with the right sentence likelier", [accuracy(loops[-1].logprobs)])


def _check_evaluated(report: common.Report, ids: list[list[int]], scores: dict[Mode, list[Scored]]) -> None:
    """The last token of a sentence is not evaluated."""
    distinct = n_distinct(one[:-1] for one in ids)
    report.series("tokens that are distinct", [distinct])
    for mode, runs in scores.items():
        evaluated = max(run.evaluated for run in runs)
        report.check(f"{mode}: tokens evaluated / distinct", evaluated / distinct, "<=", MOST_EVALUATED)


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def decisions(logprobs: Sequence[float]) -> list[bool]:
    """Whether the first sentence of a pair is the likelier, of sums that alternate."""
    return [good > bad for good, bad in zip(logprobs[::2], logprobs[1::2], strict=True)]


def different(one: Sequence[float], other: Sequence[float]) -> int:
    """How many pairs are decided differently."""
    return sum(a != b for a, b in zip(decisions(one), decisions(other), strict=True))


def accuracy(logprobs: Sequence[float]) -> float:
    decided = decisions(logprobs)
    return sum(decided) / len(decided)


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=3)
    common.add_threads(parser)
    common.add_data(parser)
    common.add_one_model(parser, common.SMOLLM2)
    parser.add_argument("--items", type=int, default=1000, help="pairs of each set (1000)")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
