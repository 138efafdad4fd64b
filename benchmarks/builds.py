"""Whether two builds of infer do the same: some 60 command lines, on the fake model and on a real one.

    python -m benchmarks.builds OLD NEW [--model FILE] [--only NAME]

OLD and NEW are `infer` commands of two environments. Each scenario is a folder, an INFER_HOME and a list of
steps. It runs up to three times: all steps by OLD, all by NEW, and the first ones by OLD, the rest by NEW,
which goes on with the stores and jobs that OLD has left. All have to give the same digests, JSON keys, exit
codes and files. Ids, times, versions and paths are left out. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Values that differ between two runs of one build, by key.
_VARYING = {
    "id", "ids", "timings", "created_at", "started_at", "total_s", "wall_s", "load_s", "queue_s", "ttft_s",
    "prefill_tps", "decode_tps", "infer", "path", "output", "files", "model_files", "cached_tokens", "size",
    "fingerprint", "conversation", "thread", "parent", "created", "request_id",
}  # fmt: skip
_NOISE = (
    (re.compile(r"^timings .*"), "timings <n>"),
    (re.compile(r"\b[0-9a-f]{8,64}\b"), "<hex>"),
    (re.compile(r"\b\d+([.,]\d+)?( ?(ms|s|min|h|tok/s|tokens/s|MB|MiB|GB|GiB|KiB|kB|B))\b"), "<n>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\S*)"), "<time>"),
    (re.compile(r"\b\d\d:\d\d\b"), "<time>"),
)


@dataclass(frozen=True)
class Step:
    """One command line. `LAST` in it is the id of the newest record or conversation.

    `kill_at`: kill -9 as soon as this file has so many lines; what it said does not count then.
    """

    arguments: Sequence[str]
    stdin: str | None = None
    kill_at: tuple[str, int] | None = None
    compares_stdout: bool = True


@dataclass(frozen=True)
class Scenario:
    name: str
    steps: Sequence[Step]
    handed_over: int = 0  # steps that OLD does before NEW goes on
    files: dict[str, str] = field(default_factory=dict)
    compared: Sequence[str] = ()  # files of the folder, as lines of JSON in any order
    needs_model: bool = False


@dataclass(frozen=True)
class Outcome:
    code: int | None
    said: object


def _run(infer: str, step: Step, folder: Path, home: Path, model: str) -> Outcome:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("INFER_")}
    environment |= {"INFER_HOME": str(home), "COLUMNS": "100", "NO_COLOR": "1"}
    arguments = [a.replace("MODEL", model) for a in step.arguments]
    if "LAST" in arguments:
        arguments = [_newest(infer, folder, environment) if a == "LAST" else a for a in arguments]
    process = subprocess.Popen(
        [infer, *arguments],
        stdin=subprocess.DEVNULL if step.stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        cwd=folder, env=environment, start_new_session=True,
    )  # fmt: skip
    if step.kill_at is not None:
        name, n_lines = step.kill_at
        _wait_for(lambda: _n_lines(folder / name) >= n_lines or process.poll() is not None)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Outcome(None, None)
    out, _ = process.communicate(None if step.stdin is None else step.stdin.encode(), timeout=300)
    said = _normalized_text(out.decode(errors="replace"), folder) if step.compares_stdout else None
    return Outcome(process.returncode, said)


def _newest(infer: str, folder: Path, environment: dict[str, str]) -> str:
    command = [infer, "records", "list", "--limit", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=True)
    return done.stdout.partition("\t")[0]


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("a step did not come as far as it was to be killed at")
        time.sleep(0.005)


def _n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _normalized_text(text: str, folder: Path) -> object:
    """JSON lines as values without what varies; other text with ids, times and amounts replaced."""
    lines: list[object] = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, (dict, list)):
            lines.append(_normalized(value))
        else:
            line = line.replace(str(folder), "<folder>")
            for pattern, word in _NOISE:
                line = pattern.sub(word, line)
            lines.append(line.rstrip())
    return lines


def _normalized(value: object) -> object:
    if isinstance(value, dict):
        return {k: "<varies>" if k in _VARYING else _normalized(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_normalized(v) for v in value]
    return value


def _file(folder: Path, name: str) -> object:
    path = folder / name
    if not path.exists():
        return None
    found = _normalized_text(path.read_text("utf-8", "replace"), folder)
    assert isinstance(found, list)
    return sorted(json.dumps(line, sort_keys=True) for line in found)


def _play(scenario: Scenario, builds: Sequence[str], model: str) -> Iterator[tuple[str, object]]:
    """What each step gave, and then each compared file. `builds`: who does which step."""
    with tempfile.TemporaryDirectory(prefix="infer-builds-") as name:
        folder, home = Path(name) / "work", Path(name) / "home"
        folder.mkdir()
        for file, text in scenario.files.items():
            (folder / file).write_text(text, "utf-8")
        for n, (step, infer) in enumerate(zip(scenario.steps, builds, strict=True), 1):
            yield f"step {n} ({' '.join(step.arguments)[:60]})", _run(infer, step, folder, home, model)
        for file in scenario.compared:
            yield file, _file(folder, file)


def compare(scenario: Scenario, old: str, new: str, model: str) -> list[str]:
    """What differs, in words."""
    n = len(scenario.steps)
    wanted = dict(_play(scenario, [old] * n, model))
    plays = {"new": [new] * n}
    if scenario.handed_over:
        plays["old, then new"] = [old] * scenario.handed_over + [new] * (n - scenario.handed_over)
    differences = []
    for who, builds in plays.items():
        for what, found in _play(scenario, builds, model):
            if found != wanted[what]:
                differences.append(f"{scenario.name}, {who}, {what}: {wanted[what]!r} became {found!r}")
    return differences


def _rows(n: int, words: str = "Say the number") -> str:
    return "".join(json.dumps({"custom_id": f"row-{i}", "prompt": f"{words} {i}"}) + "\n" for i in range(n))


_SLOW = json.dumps({"step_s": 0.01})
_MESSAGES = json.dumps(
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "And now?"},
    ]
)
_LONG = "word " * 2000


def scenarios() -> list[Scenario]:
    fake = ["-m", "fake"]
    return [
        Scenario("run", [Step(["run", *fake, "--json", "Hello there"])]),
        Scenario(
            "run in plain", [Step(["run", *fake, "Hello there"]), Step(["run", *fake], stdin="piped\n")]
        ),
        Scenario("run with a system prompt", [Step(["run", *fake, "--json", "--system", "Be brief.", "Hi"])]),
        Scenario(
            "run with files",
            [Step(["run", *fake, "--json", "-f", "a.txt", "What is it?"])],
            files={"a.txt": "text"},
        ),
        Scenario(
            "run with messages",
            [Step(["run", *fake, "--json", "--messages", "m.json"])],
            files={"m.json": _MESSAGES},
        ),
        Scenario("run raw", [Step(["run", *fake, "--raw", "-n", "20", "Once upon"])]),
        Scenario("run sampled", [Step(["run", *fake, "--json", "-t", "0.9", "--seed", "7", "Hi"])]),
        Scenario(
            "samples",
            [Step(["run", *fake, "--jsonl", "-t", "1", "--seed", "7", "--samples", "3", "-n", "8", "Hi"])],
        ),
        Scenario("log-probabilities", [Step(["run", *fake, "--json", "--logprobs", "2", "-n", "4", "Hi"])]),
        Scenario("a stop string", [Step(["run", *fake, "--json", "--stop", "said", "Hi"])]),
        Scenario("a limit", [Step(["run", *fake, "--json", "-n", "3", "Hi"])]),
        *(
            Scenario(f"mode {mode}", [Step(["run", *fake, "--json", f"--{mode}", "Hello there"])])
            for mode in ("fast", "invariant")
        ),
        *(
            Scenario(
                f"overflow {policy}",
                [
                    Step(
                        [
                            "run",
                            *fake,
                            "--json",
                            "--ctx",
                            "512",
                            "--overflow",
                            policy,
                            "-f",
                            "long.txt",
                            "Sum up",
                        ]
                    )
                ],
                files={"long.txt": _LONG},
            )
            for policy in ("error", "drop-oldest", "drop-middle", "keep-ends")
        ),
        Scenario(
            "tokens", [Step(["tokens", *fake, "--json", "Hello there"]), Step(["tokens", *fake, "Hello"])]
        ),
        Scenario("template", [Step(["template", "render", *fake, "Hi"]), Step(["template", "show", *fake])]),
        Scenario(
            "bad flags", [Step(["run", *fake, "--top-k", "5", "Hi"]), Step(["run", "-m", "none-such", "Hi"])]
        ),
        Scenario(
            "chat",
            [
                Step(["chat", *fake, "-t", "0"], stdin="Hello\nAnd you?\n"),
                Step(["chat", *fake, "-c", "-t", "0"], stdin="Go on\n"),
                Step(["run", *fake, "-c", "--json", "One more"]),
                Step(["records", "export"]),
                Step(["replay", "LAST"]),
            ],
            handed_over=2,
        ),
        Scenario(
            "records",
            [
                Step(["run", *fake, "-t", "0.7", "--seed", "3", "Hi"]),
                Step(["run", *fake, "Hello"]),
                Step(["records", "list"]),
                Step(["records", "show", "LAST"]),
                Step(["records", "export"]),
                Step(["replay", "LAST"]),
            ],
            handed_over=2,
        ),
        Scenario(
            "cache",
            [
                Step(["cache", "warm", *fake, "-f", "long.txt"]),
                Step(["run", *fake, "--json", "-f", "long.txt", "First"]),
                Step(["run", *fake, "--json", "-f", "long.txt", "Second"]),
                Step(["cache", "list"]),
            ],
            handed_over=1,
            files={"long.txt": "word " * 400},
        ),
        *(
            Scenario(
                f"batch {mode}",
                [Step(["batch", "in.jsonl", "-o", "out.jsonl", *fake, f"--{mode}", "--parallel", "4"])],
                files={"in.jsonl": _rows(20)},
                compared=["out.jsonl"],
            )
            for mode in ("fast", "invariant")
        ),
        Scenario(
            "batch sampled, OpenAI's form",
            [
                Step(
                    [
                        "batch",
                        "in.jsonl",
                        "-o",
                        "out.jsonl",
                        *fake,
                        "--invariant",
                        "-t",
                        "1",
                        "--seed",
                        "5",
                        "--samples",
                        "2",
                        "--output-format",
                        "openai",
                        "-n",
                        "16",
                    ]
                )
            ],
            files={"in.jsonl": _rows(8)},
            compared=["out.jsonl"],
        ),
        Scenario(
            "batch from CSV",
            [
                Step(
                    [
                        "batch",
                        "in.csv",
                        "-o",
                        "out.jsonl",
                        *fake,
                        "--ordered",
                        "--invariant",
                        "--row-template",
                        "Name {colour} and {n}",
                    ]
                )
            ],
            files={"in.csv": "colour,n\nred,1\nblue,2\n"},
            compared=["out.jsonl"],
        ),
        Scenario(
            "batch with bad rows",
            [Step(["batch", "in.jsonl", "-o", "out.jsonl", *fake, "--invariant"])],
            files={"in.jsonl": _rows(3) + "{}\n" + '{"prompt": 3}\n'},
            compared=["out.jsonl"],
        ),
        Scenario(
            "kill and resume",
            [
                Step(
                    [
                        "batch",
                        "in.jsonl",
                        "-o",
                        "out.jsonl",
                        "-m",
                        "fake:slow.json",
                        "--invariant",
                        "-n",
                        "40",
                    ],
                    kill_at=("out.jsonl", 5),
                ),
                Step(
                    [
                        "batch",
                        "in.jsonl",
                        "-o",
                        "out.jsonl",
                        "-m",
                        "fake:slow.json",
                        "--invariant",
                        "-n",
                        "40",
                    ],
                    compares_stdout=False,
                ),
                Step(
                    ["verify", "out.jsonl", "--input", "in.jsonl", "--fraction", "1", "-m", "fake:slow.json"],
                    compares_stdout=False,
                ),
            ],
            handed_over=1,
            files={"in.jsonl": _rows(40), "slow.json": _SLOW},
            compared=["out.jsonl"],
        ),
        Scenario(
            "shards and merge",
            [
                *(
                    Step(
                        [
                            "batch",
                            "in.jsonl",
                            "-o",
                            f"out-{i}.jsonl",
                            *fake,
                            "--invariant",
                            "--shard",
                            f"{i}/3",
                        ]
                    )
                    for i in (1, 2, 3)
                ),
                Step(["merge", "out-1.jsonl", "out-2.jsonl", "out-3.jsonl", "-o", "all.jsonl"]),
                Step(
                    ["verify", "all.jsonl", "--input", "in.jsonl", "--fraction", "1", *fake],
                    compares_stdout=False,
                ),
            ],
            handed_over=3,
            files={"in.jsonl": _rows(12)},
            compared=["all.jsonl"],
        ),
        Scenario(
            "real: run in each mode",
            [
                Step(["run", "-m", "MODEL", "--json", "-n", "12", *flags, "Name three colours."])
                for flags in (
                    [],
                    ["--fast"],
                    ["--invariant"],
                    ["-t", "0.8", "--seed", "7"],
                    ["-t", "model", "--seed", "1"],
                )
            ]
            + [
                Step(
                    [
                        "run",
                        "-m",
                        "MODEL",
                        "--jsonl",
                        "-n",
                        "6",
                        "-t",
                        "1",
                        "--seed",
                        "2",
                        "--samples",
                        "4",
                        "Hi",
                    ]
                )
            ],
            needs_model=True,
        ),
        Scenario(
            "real: batch, resume, verify",
            [
                Step(
                    ["batch", "in.jsonl", "-o", "out.jsonl", "-m", "MODEL", "--invariant", "-n", "8"],
                    kill_at=("out.jsonl", 2),
                ),
                Step(
                    ["batch", "in.jsonl", "-o", "out.jsonl", "-m", "MODEL", "--invariant", "-n", "8"],
                    compares_stdout=False,
                ),
                Step(
                    ["verify", "out.jsonl", "--input", "in.jsonl", "--fraction", "1", "-m", "MODEL"],
                    compares_stdout=False,
                ),
            ],
            handed_over=1,
            files={"in.jsonl": _rows(12)},
            compared=["out.jsonl"],
            needs_model=True,
        ),
        Scenario(
            "real: a kept prefix",
            [
                Step(["run", "-m", "MODEL", "--json", "-n", "8", "-f", "long.txt", "First"]),
                Step(["run", "-m", "MODEL", "--json", "-n", "8", "-f", "long.txt", "Second"]),
                Step(["run", "-m", "MODEL", "--json", "-n", "8", "--no-cache", "-f", "long.txt", "Second"]),
            ],
            handed_over=1,
            files={"long.txt": "The river runs past the mill and the old bridge. " * 40},
            needs_model=True,
        ),
        Scenario(
            "real: chat and replay",
            [
                Step(
                    ["chat", "-m", "MODEL", "-n", "10", "-t", "0.7", "--seed", "3"], stdin="Hello\nAnd you?\n"
                ),
                Step(["chat", "-m", "MODEL", "-n", "10", "-c", "-t", "0.7", "--seed", "4"], stdin="Go on\n"),
                Step(["replay", "LAST"]),
                Step(["tokens", "-m", "MODEL", "--json", "Hello there, naïve 世界"]),
                Step(["template", "render", "-m", "MODEL", "Hi"]),
            ],
            handed_over=1,
            needs_model=True,
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--model", help="a GGUF file; without it only the fake model answers")
    parser.add_argument("--only", help="scenarios with this in their name")
    options = parser.parse_args()
    for command in (options.old, options.new):
        if shutil.which(command) is None:
            parser.error(f"there is no command {command}")
    model = "" if options.model is None else str(Path(options.model).resolve())
    differences: list[str] = []
    n_scenarios = n_lines = 0
    for scenario in scenarios():
        if (scenario.needs_model and not model) or (options.only and options.only not in scenario.name):
            continue
        print(scenario.name, file=sys.stderr)
        found = compare(scenario, options.old, options.new, model)
        for line in found:
            print(f"  {line[:2000]}", file=sys.stderr)
        differences += found
        n_scenarios += 1
        n_lines += len(scenario.steps)
    result = {
        "benchmark": "builds",
        "scenarios": n_scenarios,
        "command_lines": n_lines,
        "differences": [line[:200] for line in differences],
        "passed": not differences,
    }
    print(json.dumps(result))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
