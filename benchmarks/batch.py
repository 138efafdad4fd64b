"""Rows a second of `infer batch` against llama-server and a loop over llama-cpp-python's `Llama`.

    python -m benchmarks.batch --peers DIR [--data DIR] [--rounds 7] [--threads N] [--smollm2 MODEL]
        [--gemma MODEL] [--only questions|questions-gemma|long-replies|prefix|copy|steps]

questions: 64 MT-Bench first turns, 64 tokens each, 16 at a time, greedy: fast, canonical and invariant,
against `llama-server -np 16` under 16 clients and the loop. Reply times only, on all sides: no load. All have
the weights as they are stored.
questions-gemma: the same with Gemma, a base model, which goes on with them as plain text.
long-replies: the same questions, 256 tokens each: fast, which may take F16 weights, against fast with those
of the file. Tokens a second of the replies alone, and of the whole process with all that the choice takes.
prefix: 48 GSM8K questions behind one 6-shot prefix, 32 tokens each, fast and canonical, against `llama-server
-np 16` and `-np 1`; and prompt tokens evaluated over those that are distinct. Fast takes F16 weights here:
its whole process, with the load and the making of these, stands beside its reply times.
copy: texts to be returned with one word changed (few-shot, raw, Gemma), with speculation and without.
steps: tokens a second of 16 replies while all of them are written, against `llama-batched-bench`: what 128
steps add to a job, so that beginning and end, with fewer rows, are left out.

The data is found in --data or INFER_TEST_DATA: mt_bench/question.jsonl and gsm8k/train_200.jsonl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import common, llama_server

WIDTH = 16
N_QUESTIONS, QUESTION_TOKENS, LONG_TOKENS = 64, 64, 256
N_SHOTS, N_PROBLEMS, PROBLEM_TOKENS = 6, 48, 32
STEP_PROMPT, STEPS_BEFORE, STEPS = 64, 32, 128
COPY_TOKENS = 192
PARTS = ("questions", "questions-gemma", "long-replies", "prefix", "copy", "steps")

_LOOP = """
import json, sys, time
import llama_cpp
rows, model, n_tokens, n_threads, n_ctx = json.load(sys.stdin)
llm = llama_cpp.Llama(model, n_ctx=n_ctx, n_threads=n_threads, n_threads_batch=n_threads, verbose=False)
began = time.perf_counter()
for row in rows:
    if "messages" in row:
        llm.create_chat_completion(row["messages"], max_tokens=n_tokens, temperature=0.0)
    else:
        llm.create_completion(row["prompt"], max_tokens=n_tokens, temperature=0.0)
print(time.perf_counter() - began)
"""


def benchmark() -> str:
    given = _arguments().parse_args()
    report = common.Report("batch", given.rounds)
    bench = _Bench(given, report)
    for part in [given.only] if given.only else PARTS:
        getattr(bench, part.replace("-", "_"))()
    settings = {"threads": bench.threads, "width": WIDTH, "parts": given.only or list(PARTS)}
    return report.line(common.machine_facts(infer=bench.version()), settings)


class _Bench:
    def __init__(self, given: argparse.Namespace, report: common.Report) -> None:
        self._given, self._report, self._rounds = given, report, given.rounds
        self._peers, self.threads = common.peers_of(given), common.threads_of(given)
        self._model, self._gemma = common.model_path(given.smollm2), common.model_path(given.gemma)
        self._work = tempfile.TemporaryDirectory()
        self._folder = Path(self._work.name)
        self._env = common.clean_environment(self._folder / "home")

    def version(self) -> str:
        return common.run([*common.INFER, "--version"], self._env).stdout.split()[-1]

    # --- the parts -----------------------------------------------------------------------------

    def questions(self) -> None:
        self._answer_all("questions", self._model, self._asked())

    def _asked(self) -> list[dict[str, Any]]:
        return [{"messages": [{"role": "user", "content": text}]} for text in self._first_turns()]

    def questions_gemma(self) -> None:
        rows = [{"prompt": text} for text in self._first_turns()]
        self._answer_all("questions-gemma", self._gemma, rows, "--raw")

    def _first_turns(self) -> list[str]:
        return [row["turns"][0] for row in self._lines("mt_bench/question.jsonl")[:N_QUESTIONS]]

    def _answer_all(self, part: str, model: str, rows: Sequence[dict[str, Any]], *flags: str) -> None:
        def batch(*mode: str) -> float:
            more = ("-m", model, *flags, *mode, *common.AS_STORED)
            return float(self._batch(rows, QUESTION_TOKENS, *more)["seconds"])

        results = common.interleave(
            {
                "llama-server -np 16": lambda: self._served(rows, QUESTION_TOKENS, WIDTH, model),
                "fast": lambda: batch("--fast"),
                "canonical": lambda: batch("--canonical"),
                "invariant": lambda: batch("--invariant"),
                "Llama loop": lambda: self._loop(rows, QUESTION_TOKENS, model),
            },
            self._rounds,
        )
        self._show(part, results, len(rows))
        server, fast, canonical, invariant, loop = results.values()
        self._check(f"{part}: fast / llama-server rows/s", server, fast, 1.0)
        self._check(f"{part}: fast / Llama loop rows/s", loop, fast, 1.6)
        self._check(f"{part}: canonical / fast rows/s", fast, canonical, 0.85)
        self._check(f"{part}: invariant / fast rows/s", fast, invariant, 0.7)

    def long_replies(self) -> None:
        """The replies differ, and so do their lengths: tokens are counted, not rows."""
        rows, whole = self._asked(), dict[str, list[float]]()
        expanded: list[int] = []

        def batch(name: str, *flags: str) -> float:
            found = self._batch(rows, LONG_TOKENS, "--fast", *flags)
            n_tokens = sum(reply["usage"]["completion_tokens"] for reply in found["replies"])
            whole.setdefault(name, []).append(n_tokens / found["whole"])
            if not flags:
                expanded.append(found["replies"][0]["engine"]["facts"].get("weights") == "f16")
            return float(n_tokens / found["seconds"])

        results = common.interleave(
            {
                "fast": lambda: batch("fast"),
                "as stored": lambda: batch("as stored", *common.AS_STORED),
            },
            self._rounds,
        )
        self._report.series("long-replies: rounds with F16 weights", [sum(expanded)])
        for what, found in (("replies", results), ("whole process", whole)):
            for name, values in found.items():
                self._report.series(f"long-replies {name} {what} tokens/s", values)
            title = f"long-replies: fast / as stored, {what}, tokens/s"
            ratio = self._report.ratio(title, found["fast"], found["as stored"])
            self._report.check(title, ratio, ">=", 1.0)

    def prefix(self) -> None:
        problems = self._lines("gsm8k/train_200.jsonl")
        shots = "".join(_solved(problem) for problem in problems[:N_SHOTS])
        rows = [
            {"prompt": f"{shots}Question: {problem['question']}\nAnswer:"}
            for problem in problems[N_SHOTS : N_SHOTS + N_PROBLEMS]
        ]
        n = PROBLEM_TOKENS
        evaluated: dict[str, int] = {}
        whole: dict[str, list[float]] = {}

        def batch(*flags: str) -> float:
            found, name = self._batch(rows, n, "--raw", *flags), " ".join(flags)
            evaluated[name] = found["evaluated"]
            whole.setdefault(name, []).append(found["whole"])
            return float(found["seconds"])

        results = common.interleave(
            {
                "llama-server -np 16": lambda: self._served(rows, n, WIDTH, self._model),
                "llama-server -np 1": lambda: self._served(rows, n, 1, self._model),
                "fast": lambda: batch("--fast"),
                "canonical": lambda: batch("--canonical"),
            },
            self._rounds,
        )
        self._show("prefix", results, len(rows))
        many, one, fast, _canonical = results.values()
        self._check("prefix: fast / llama-server -np 16 rows/s", many, fast, 3.0)
        self._check("prefix: fast / llama-server -np 1 rows/s", one, fast, 1.5)
        self._report.series("prefix fast whole process s", whole["--fast"])
        self._report.ratio("prefix: fast whole process / llama-server -np 1 rows/s", one, whole["--fast"])
        distinct = self._distinct([str(row["prompt"]) for row in rows])
        for name, flags, limit in (("fast", "--fast", 1.1), ("canonical", "--canonical", 1.4)):
            self._report.check(
                f"prefix: {name} prompt tokens evaluated / distinct", evaluated[flags] / distinct, "<=", limit
            )

    def copy(self) -> None:
        problems = self._lines("gsm8k/train_200.jsonl")
        rows = [{"prompt": _copy_work(problems, n)} for n in range(8)]
        flags = ("-m", self._gemma, "--raw", "--fast", "--parallel", "1", "--stop", "\n\n")
        results = common.interleave(
            {
                "with": lambda: self._batch(rows, COPY_TOKENS, *flags)["seconds"],
                "without": lambda: self._batch(rows, COPY_TOKENS, *flags, "--no-speculation")["seconds"],
            },
            self._rounds,
        )
        self._show("copy", results, len(rows))
        self._check("copy: speculation / none rows/s", results["without"], results["with"], 1.5)

    def steps(self) -> None:
        text = " ".join(problem["question"] for problem in self._lines("gsm8k/train_200.jsonl"))
        tried = [{"prompt": text[i * 300 : i * 300 + 260]} for i in range(4 * WIDTH)]
        most = STEPS_BEFORE + STEPS
        flags = ("--raw", "--fast", "--no-speculation", *common.AS_STORED)
        replies = self._batch(tried, most, *flags)["replies"]
        endless = {
            int(reply["custom_id"]) for reply in replies if reply["usage"]["completion_tokens"] == most
        }
        rows = [row for i, row in enumerate(tried) if i in endless][:WIDTH]
        if len(rows) < WIDTH:
            raise common.BenchmarkError("too many replies end by themselves: steps can't be counted")
        bench = [
            self._peers.tool("llama-batched-bench"), "-m", self._model, "-c", str(WIDTH * 256),
            "-npp", str(STEP_PROMPT + STEPS_BEFORE), "-ntg", str(STEPS), "-npl", str(WIDTH),
            "-t", str(self.threads), "-ngl", "0", "--output-format", "jsonl",
        ]  # fmt: skip

        def peer() -> float:
            lines = common.run(bench, self._env).stdout.splitlines()
            return float(json.loads(next(line for line in lines if line.startswith("{")))["speed_tg"])

        def seconds(n_tokens: int) -> float:
            return float(self._batch(rows, n_tokens, *flags)["seconds"])

        def ours() -> float:
            return WIDTH * STEPS / (seconds(most) - seconds(STEPS_BEFORE))

        results = common.interleave({"llama-batched-bench": peer, "infer": ours}, self._rounds)
        for name, values in results.items():
            self._report.series(f"steps {name} tokens/s", values)
        ratio = self._report.ratio("steps: infer / S_TG", results["infer"], results["llama-batched-bench"])
        self._report.check("steps: infer / llama-batched-bench S_TG", ratio, ">=", 0.95)

    # --- the sides -----------------------------------------------------------------------------

    def _batch(self, rows: Sequence[dict[str, Any]], n_tokens: int, *flags: str) -> dict[str, Any]:
        """Seconds between the first request and the last reply, and of the whole process; prompt tokens
        evaluated; the replies."""
        out, summary = self._folder / "out.jsonl", self._folder / "summary.json"
        source = self._folder / "in.jsonl"
        input_lines = [json.dumps(row) + "\n" for row in rows]
        source.write_text("".join(common.as_stored(input_lines) if "--shard" in flags else input_lines))
        for stale in (out, *self._folder.glob("out.jsonl.job/*")):
            stale.unlink(missing_ok=True)
        width = [] if "--parallel" in flags else ["--parallel", str(WIDTH)]
        model = [] if "-m" in flags else ["-m", self._model]
        command = [
            *common.INFER, "batch", str(source), "-o", str(out), "-n", str(n_tokens),
            "--threads", str(self.threads), "--gpu-layers", "0", "--summary", str(summary), "--quiet",
            "--no-record", *model, *width, *flags,
        ]  # fmt: skip
        began = time.perf_counter()
        common.run(command, self._env)
        whole_s = time.perf_counter() - began
        facts = json.loads(summary.read_text())
        replies = [json.loads(line) for line in out.read_text().splitlines()]
        usage = [reply["usage"] for reply in replies]
        return {
            "seconds": float(facts["seconds"]),
            "whole": whole_s,
            "evaluated": sum(u["prompt_tokens"] - u["cached_tokens"] for u in usage),
            "replies": replies,
        }

    def _served(self, rows: Sequence[dict[str, Any]], n_tokens: int, n_slots: int, model: str) -> float:
        """Seconds of all requests to a llama-server that is up."""
        with (
            llama_server.running(self._peers, model, n_slots, self.threads, self._env) as url,
            ThreadPoolExecutor(n_slots) as clients,
        ):
            began = time.perf_counter()
            list(clients.map(lambda row: _ask(url, row, n_tokens), rows))
            return time.perf_counter() - began

    def _loop(self, rows: Sequence[dict[str, Any]], n_tokens: int, model: str) -> float:
        order = json.dumps([list(rows), model, n_tokens, self.threads, 2048])
        done = subprocess.run(
            [sys.executable, "-c", _LOOP], input=order, capture_output=True, text=True, env=self._env
        )
        if done.returncode != 0:
            raise common.BenchmarkError(f"the loop over Llama failed: {done.stderr[-400:]}")
        return float(done.stdout.splitlines()[-1])

    # --- figures -------------------------------------------------------------------------------

    def _show(self, part: str, results: dict[str, list[float]], n_rows: int) -> None:
        for name, values in results.items():
            self._report.series(f"{part} {name} s", values)
            self._report.series(f"{part} {name} rows/s", [n_rows / seconds for seconds in values])

    def _check(self, name: str, slower: list[float], faster: list[float], limit: float) -> None:
        """Seconds of two sides; the second's rows a second over the first's."""
        self._report.check(name, self._report.ratio(name, slower, faster), ">=", limit)

    def _distinct(self, prompts: list[str]) -> int:
        """Tokens of all prompts, each common beginning counted once."""
        seen: set[tuple[int, ...]] = set()
        for n, prompt in enumerate(prompts):
            file = self._folder / f"prompt-{n}.txt"
            file.write_text(prompt)
            found = common.run(
                [*common.INFER, "tokens", "-f", str(file), "-m", self._model, "--json"], self._env
            ).stdout
            ids = json.loads(found)["ids"]
            seen.update(tuple(ids[: i + 1]) for i in range(len(ids)))
        return len(seen)

    def _lines(self, name: str) -> list[dict[str, Any]]:
        text = common.data_file(self._given, name).read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]


def _solved(problem: dict[str, Any]) -> str:
    return f"Question: {problem['question']}\nAnswer: {problem['answer']}\n\n"


def _copy_work(problems: list[dict[str, Any]], n: int) -> str:
    """An example of a text returned with one word changed, and another text."""
    parts = []
    for i in (4 * n, 4 * n + 2):
        text = " ".join(problem["question"].strip() for problem in problems[i : i + 2])
        word = max(text.split(), key=len).strip(".,?!'\"")
        parts.append((f"Text: {text}\nChange {word!r} to 'BANANA'.\nResult:", text.replace(word, "BANANA")))
    (example, solved), (asked, _answer) = parts
    return f"{example} {solved}\n\n{asked}"


def _ask(url: str, row: dict[str, Any], n_tokens: int) -> None:
    body: dict[str, Any] = {**row, "temperature": 0.0, "cache_prompt": True}
    if "messages" in row:
        path, body["max_tokens"] = "/v1/chat/completions", n_tokens
    else:
        path, body["n_predict"] = "/completion", n_tokens
    llama_server.ask(url, path, body)


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=common.MIN_ROUNDS)
    common.add_peers(parser)
    common.add_gemma(parser)
    common.add_data(parser)
    parser.add_argument("--only", choices=PARTS, help="one part")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
