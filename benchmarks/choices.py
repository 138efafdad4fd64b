"""Four choices behind a long prompt: `infer score` against llama-server, which evaluates the same texts.

    python -m benchmarks.choices --peers DIR [--data DIR] [--rounds 3] [--threads N] [--model MODEL]
        [--items 100]

A question of GSM8K behind five that are solved, and four sentences that answer it: of several tokens, none
the beginning of another. Checked: tokens evaluated over those that are distinct in fast and in invariant
(figures: the same of canonical and of llama-server), and how much faster fast is than llama-server with 1
slot or with 16, whichever is quicker (figures: invariant and canonical).

llama-server gets one request a text, `/completion` with n_predict 1 and cache_prompt, with as many clients as
it has slots. It discards the likelihood: this is what the evaluation alone costs there. It is up and loaded
when its time begins; infer's is that of the whole process, with start and load.

The data is found in --data or INFER_TEST_DATA: gsm8k/train_200.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import common, llama_server
from benchmarks.score_command import Row, Scored, n_distinct, score
from infer_cli.types import Mode

N_SHOTS = 5
SLOTS = (1, 16)
MOST_EVALUATED, LEAST_SPEEDUP = 1.05, 1.5
MODES: tuple[Mode, ...] = ("fast", "invariant", "canonical")


class Served(NamedTuple):
    """Seconds of all requests, and how many tokens were evaluated for them."""

    seconds: float
    evaluated: int


def benchmark() -> str:
    given = _arguments().parse_args()
    peers, threads = common.peers_of(given), common.threads_of(given)
    report, model = common.Report("choices", given.rounds), common.model_path(given.model)
    problems = common.data_file(given, "gsm8k/train_200.jsonl").read_text("utf-8").splitlines()
    rows = rows_of([json.loads(line) for line in problems[: N_SHOTS + given.items]])
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        env = common.clean_environment(folder / "home")
        version = common.run([*common.INFER, "--version"], env).stdout.split()[-1]
        with llama_server.running(peers, model, 1, threads, env) as url:
            ids = llama_server.tokenize(url, [row.context + row.continuation for row in rows])
            contexts = llama_server.tokenize(url, [row.context for row in rows])
        check_choices(ids, contexts)
        served: dict[int, list[Served]] = {n: [] for n in SLOTS}
        scores: dict[Mode, list[Scored]] = {mode: [] for mode in MODES}

        def by_server(n_slots: int) -> Callable[[], float]:
            def measure() -> float:
                # Gemma's windows would forget what the next choice begins with, without --swa-full.
                with llama_server.running(peers, model, n_slots, threads, env, "--swa-full") as url:
                    served[n_slots].append(_evaluate(url, ids, n_slots))
                return served[n_slots][-1].seconds

            return measure

        def by_infer(mode: Mode) -> Callable[[], float]:
            def measure() -> float:
                scores[mode].append(score(rows, model, threads, mode, env, folder))
                return scores[mode][-1].seconds

            return measure

        servers = {f"llama-server -np {n}": by_server(n) for n in SLOTS}
        seconds = common.interleave(
            {**servers, **{f"infer --{mode}": by_infer(mode) for mode in MODES}}, given.rounds
        )
    for name, values in seconds.items():
        report.series(f"{name} s", values)
    quicker = min(servers, key=lambda name: sum(seconds[name]))
    for mode in MODES:
        ratio = report.ratio(f"{quicker} / infer --{mode} s", seconds[quicker], seconds[f"infer --{mode}"])
        if mode == "fast":
            report.check(f"{quicker} / infer --fast s", ratio, ">=", LEAST_SPEEDUP)
    _check_evaluated(report, [one[:-1] for one in ids], scores, served)
    settings = {
        "threads": threads,
        "model": Path(model).name,
        "questions": given.items,
        "shots": N_SHOTS,
        "llama_server": "evaluates the texts and discards the likelihood",
    }
    return report.line(common.machine_facts(infer=version, peers_commit=peers.commit()), settings)


def rows_of(problems: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Four rows for each problem but the first ones, which are shown with their answers."""
    solved = "".join(f"{_question(problem)} {problem['answer']}\n\n" for problem in problems[:N_SHOTS])
    return [
        Row(solved + _question(problem), f" The answer is {number}.")
        for problem in problems[N_SHOTS:]
        for number in numbers_of(problem["answer"])
    ]


def _question(problem: Mapping[str, Any]) -> str:
    return f"Question: {problem['question']}\nAnswer:"


def numbers_of(answer: str) -> list[int]:
    """The right one, and three wrong ones."""
    right = int(answer.rpartition("####")[2].replace(",", ""))
    return [right, right + 1, right + 10, right + 100]


def check_choices(ids: Sequence[Sequence[int]], contexts: Sequence[Sequence[int]]) -> None:
    """Raises BenchmarkError where a choice is a single token, or the beginning of another one."""
    for one, context in zip(ids, contexts, strict=True):
        if list(one[: len(context)]) != list(context) or len(one) < len(context) + 2:
            raise common.BenchmarkError("a choice does not follow its context with several tokens")
    for start in range(0, len(ids), 4):
        choices = [tuple(one) for one in ids[start : start + 4]]
        for a in choices:
            if sum(b[: len(a)] == a for b in choices) != 1:
                raise common.BenchmarkError("a choice is the beginning of another one")


def _evaluate(url: str, ids: Sequence[list[int]], n_clients: int) -> Served:
    def evaluated(one: list[int]) -> int:
        # The last token too is only predicted: infer does not evaluate it either.
        body = {"prompt": one[:-1], "n_predict": 1, "cache_prompt": True, "temperature": 0.0}
        answer = llama_server.ask(url, "/completion", body)
        if answer["tokens_evaluated"] != len(one) - 1:
            raise common.BenchmarkError(f"llama-server took {answer['tokens_evaluated']} of {len(one) - 1}")
        return int(answer["timings"]["prompt_n"])

    with ThreadPoolExecutor(n_clients) as clients:
        began = time.perf_counter()
        total = sum(clients.map(evaluated, ids))
        return Served(time.perf_counter() - began, total)


def _check_evaluated(
    report: common.Report,
    asked: list[list[int]],
    scores: Mapping[Mode, Sequence[Scored]],
    served: Mapping[int, Sequence[Served]],
) -> None:
    """`asked`: what has to be evaluated for each row."""
    distinct = n_distinct(asked)
    report.series("tokens of all rows", [sum(map(len, asked))])
    report.series("tokens that are distinct", [distinct])
    for mode, runs in scores.items():
        if any(run.prompt_tokens != [len(ids) for ids in asked] for run in runs):
            raise common.BenchmarkError("infer and llama-server evaluate different tokens")
        most = max(run.evaluated for run in runs) / distinct
        if mode == "canonical":
            report.series("canonical: tokens evaluated / distinct", [most])
        else:
            report.check(f"{mode}: tokens evaluated / distinct", most, "<=", MOST_EVALUATED)
    for n, served_runs in served.items():
        most = max(run.evaluated for run in served_runs) / distinct
        report.series(f"llama-server -np {n}: tokens evaluated / distinct", [most])


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=3)
    common.add_tools(parser)
    common.add_threads(parser)
    common.add_data(parser)
    common.add_one_model(parser, common.SMOLLM2)
    parser.add_argument("--items", type=int, default=100, help="questions (100)")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
