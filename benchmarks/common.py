"""What the benchmarks share: measured child processes, interleaved rounds, ratios, one JSON line.

A measurement is whatever a function returns; a round calls each function once, so that a slow spell of the
machine meets all of them. Ratios are taken round by round and then their median. Nothing here asserts: a
missed threshold is `"passed": false` in the line. Linux and macOS (`os.wait4`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

ROOT = Path(__file__).resolve().parents[1]
INFER = (sys.executable, "-m", "infer_cli")
MIN_ROUNDS = 7  # fewer are a smoke test, and the line says so
NOISY_SPREAD = 0.05
MB = 1_000_000

SMOLLM2, GEMMA = "smollm2-135m-instruct", "gemma-3-270m"

T = TypeVar("T")


class BenchmarkError(Exception):
    """The measurement cannot be made: a program failed, a peer is missing, the work was not the same."""


# A job whose weights are those of its file, in every mode: shards don't look whether others are quicker.
AS_STORED = ("--shard", "1/2")


def as_stored(lines: Sequence[str]) -> list[str]:
    """The input of a job with `AS_STORED` that answers these lines: each is followed by the other shard's."""
    return [line for line in lines for _shard in range(2)]


# --- child processes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One finished child process. `first_byte_s`: seconds until it wrote to stdout, or ended.

    `peak_rss` is that of its largest process, in bytes, as GNU time has it. It is never less than this
    process's own size: Linux counts what a child held between fork and exec.
    """

    seconds: float
    first_byte_s: float
    cpu_s: float
    peak_rss: int
    stdout: str


def run(command: Sequence[str], env: Mapping[str, str], watch: Callable[[int], None] | None = None) -> Run:
    """Run a program to its end, from the project's directory. `watch` gets its pid at once.

    Raises BenchmarkError where it cannot start or its exit code is not 0.
    """
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(env),
                cwd=ROOT,
            )
        except OSError as e:
            raise BenchmarkError(f"{command[0]}: {e.strerror}") from None
        if watch is not None:
            watch(process.pid)
        assert process.stdout is not None
        with process.stdout as pipe:
            out = pipe.read(1)
            first_byte_s = time.perf_counter() - began
            out += pipe.read()
        _pid, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            tail = errors.read().decode(errors="replace")[-600:].strip()
            raise BenchmarkError(f"exit code {process.returncode} of {' '.join(command)}\n{tail}")
    return Run(
        seconds,
        first_byte_s,
        usage.ru_utime + usage.ru_stime,
        rss_bytes(usage.ru_maxrss),
        out.decode(errors="replace"),
    )


def rss_bytes(ru_maxrss: int) -> int:
    """`ru_maxrss` is kilobytes on Linux, bytes on macOS."""
    return ru_maxrss if sys.platform == "darwin" else ru_maxrss * 1024


class TreeMemory:
    """The most memory that a process and its descendants held together (proportional set size, bytes).

    Sampled; `peak` is None where /proc has no smaps_rollup. Use: `run(command, env, TreeMemory().watch)`.
    """

    INTERVAL_S = 0.005

    def __init__(self) -> None:
        self.peak: int | None = None
        self._thread: threading.Thread | None = None

    def watch(self, pid: int) -> None:
        self._thread = threading.Thread(target=self._sample, args=(pid,), daemon=True)
        self._thread.start()

    def _sample(self, pid: int) -> None:
        while (total := tree_pss(pid)) is not None:
            self.peak = max(self.peak or 0, total)
            time.sleep(self.INTERVAL_S)

    def join(self) -> None:
        """Wait until the process is gone."""
        if self._thread is not None:
            self._thread.join()


def tree_pss(pid: int) -> int | None:
    """Proportional set size of a process and its descendants in bytes; None once it is gone."""
    own = _pss(pid)
    if own is None:
        return None
    total = own
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        total += sum(tree_pss(int(child)) or 0 for child in children)
    return total


def _pss(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)


# --- interleaving and figures ---------------------------------------------------------------------


def interleave(measurements: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Each measurement once a round: A B A B … . Progress on stderr."""
    results: dict[str, list[T]] = {name: [] for name in measurements}
    for i in range(rounds):
        for name, measure in measurements.items():
            print(f"\rround {i + 1}/{rounds} {name:<32}", end="", file=sys.stderr, flush=True)
            results[name].append(measure())
    print(f"\r{'':<60}\r", end="", file=sys.stderr, flush=True)
    return results


def ratios(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """values[i] / baseline[i]: both are of the same round."""
    return [value / base for value, base in zip(values, baseline, strict=True)]


def median_ratio(values: Sequence[float], baseline: Sequence[float]) -> float:
    return statistics.median(ratios(values, baseline))


def spread(values: Sequence[float]) -> float:
    """Interquartile range over the median: how noisy a series is. 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    low, _middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / statistics.median(values)


def describe(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": _rounded(statistics.median(values)),
        "min": _rounded(min(values)),
        "max": _rounded(max(values)),
        "spread": _rounded(spread(values)),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


@dataclass(frozen=True)
class Check:
    """A figure against its threshold. `value` None: not measured."""

    name: str
    value: float | None
    relation: Literal["<=", ">="]
    limit: float

    @property
    def passed(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.limit if self.relation == "<=" else self.value >= self.limit


class Report:
    """Collects the series, ratios and checks of one benchmark."""

    def __init__(self, benchmark: str, rounds: int) -> None:
        self._benchmark, self._rounds = benchmark, rounds
        self._series: dict[str, list[float]] = {}
        self._ratios: dict[str, list[float]] = {}
        self._checks: list[Check] = []
        self._load_before = load_average()

    def series(self, name: str, values: Sequence[float]) -> None:
        self._series[name] = list(values)

    def ratio(self, name: str, values: Sequence[float], baseline: Sequence[float]) -> float:
        """Record a ratio round by round; returns its median."""
        self._ratios[name] = ratios(values, baseline)
        return statistics.median(self._ratios[name])

    def check(self, name: str, value: float | None, relation: Literal["<=", ">="], limit: float) -> None:
        self._checks.append(Check(name, value, relation, limit))

    def line(self, machine: Mapping[str, object], settings: Mapping[str, object]) -> str:
        """The JSON line. `passed`: every check held (one that was not measured did not)."""
        spreads = {name: _rounded(spread(values)) for name, values in self._ratios.items()}
        worst = max(spreads.values(), default=0.0)
        return json.dumps(
            {
                "benchmark": self._benchmark,
                "passed": all(check.passed is True for check in self._checks),
                "checks": [
                    {
                        "name": check.name,
                        "value": None if check.value is None else _rounded(check.value),
                        "relation": check.relation,
                        "limit": check.limit,
                        "passed": check.passed,
                    }
                    for check in self._checks
                ],
                "rounds": self._rounds,
                "enough_rounds": self._rounds >= MIN_ROUNDS,
                "figures": {name: describe(values) for name, values in self._series.items()},
                "ratios": {name: describe(values) for name, values in self._ratios.items()},
                "noise": {
                    "worst_ratio_spread": worst,
                    "noisy": worst > NOISY_SPREAD,
                    "load_average_before": self._load_before,
                    "load_average_after": load_average(),
                },
                "settings": dict(settings),
                "machine": dict(machine),
            },
            ensure_ascii=False,
        )


# --- the machine and the peers --------------------------------------------------------------------


def load_average() -> float:
    """Of the last minute."""
    return round(os.getloadavg()[0], 2)


def cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        named = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return named.stdout.strip()
    return platform.processor()


def machine_facts(**versions: object) -> dict[str, object]:
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_model(),
        "logical_cores": os.cpu_count(),
        "python": platform.python_version(),
        **versions,
    }


def clean_environment(home: Path) -> dict[str, str]:
    """This environment without the user's own settings, and with an infer of its own under `home`.

    Python keeps what it compiles, as it does for whoever installs the program.
    """
    others = ("INFER_", "LLAMA_ARG_", "LLM_", "PYTHONDONTWRITEBYTECODE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(others)}
    return {**kept, "INFER_HOME": str(home / "infer"), "LLM_USER_PATH": str(home / "llm")}


def model_path(name_or_path: str) -> str:
    """A path as it is; a model's name through `infer models path`. Raises BenchmarkError."""
    if os.path.isfile(name_or_path):
        return os.path.abspath(name_or_path)
    try:
        return run([*INFER, "models", "path", name_or_path], os.environ).stdout.strip()
    except BenchmarkError:
        raise BenchmarkError(
            f"no model {name_or_path}: `infer models pull {name_or_path}`, or give its file"
        ) from None


@dataclass(frozen=True)
class Peers:
    """llama.cpp's own tools, built at the commit that the pinned llama-cpp-python vendors."""

    directory: Path

    def tool(self, name: str) -> str:
        path = self.directory / name
        if not path.is_file():
            raise BenchmarkError(f"no {name} in {self.directory}: build it, see benchmarks/README.md")
        return str(path)

    def commit(self) -> str:
        """As `llama-completion --version` says it (on stderr)."""
        shown = subprocess.run([self.tool("llama-completion"), "--version"], capture_output=True, text=True)
        words = (shown.stdout + shown.stderr).replace(")", " ").replace(",", " ").split()
        return words[words.index("commit") + 1] if "commit" in words else "unknown"


def engine_facts(reply: Mapping[str, object], peers: Peers) -> dict[str, object]:
    """Versions on both sides, from a reply of `infer run --json` and from the tools."""
    engine = reply["engine"]
    assert isinstance(engine, dict)
    facts = engine["facts"]
    ours, theirs = str(facts["commit"]).removesuffix("-dirty"), peers.commit()
    return {
        "infer": facts["infer"],
        "llama_cpp_python": facts["llama_cpp_python"],
        "llama_cpp_commit": ours,
        "peers_commit": theirs,
        "same_commit": ours.startswith(theirs) or theirs.startswith(ours),
    }


# --- command lines --------------------------------------------------------------------------------


def arguments(description: str | None, *, rounds: int = 9) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help=f"interleaved rounds ({rounds})")
    return parser


def add_peers(parser: argparse.ArgumentParser) -> None:
    add_tools(parser)
    add_model(parser)


def add_tools(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--peers",
        type=Path,
        default=os.environ.get("INFER_BENCH_PEERS"),
        metavar="DIR",
        help="directory of llama.cpp's tools (INFER_BENCH_PEERS)",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, help="for all sides (infer's own default)")


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("INFER_TEST_DATA", "../shared/data"),
        metavar="DIR",
        help="directory of the data sets (INFER_TEST_DATA)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    add_threads(parser)
    parser.add_argument(
        "--smollm2", default=SMOLLM2, metavar="MODEL", help=f"an installed model or a file ({SMOLLM2})"
    )


def add_one_model(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--model", default=default, help=f"an installed model or a file ({default})")


def add_gemma(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gemma", default=GEMMA, metavar="MODEL", help=f"an installed model or a file ({GEMMA})"
    )


def peers_of(given: argparse.Namespace) -> Peers:
    if given.peers is None:
        raise BenchmarkError("give the directory of llama.cpp's tools: --peers DIR or INFER_BENCH_PEERS")
    return Peers(Path(given.peers).resolve())


def threads_of(given: argparse.Namespace) -> int:
    from infer_cli.system.processors import default_threads

    return default_threads() if given.threads is None else int(given.threads)


def data_file(given: argparse.Namespace, name: str) -> Path:
    """A file of the data sets. Raises BenchmarkError where there is none."""
    path = Path(given.data) / name
    if not path.is_file():
        raise BenchmarkError(f"no {path}: --data or INFER_TEST_DATA names the directory of {name}")
    return path.resolve()


def infer_reply(arguments: Sequence[str], env: Mapping[str, str], n_tokens: int) -> dict[str, object]:
    """A reply of `infer run --json` with exactly `n_tokens` tokens. Raises BenchmarkError for another."""
    reply: dict[str, object] = json.loads(run([*INFER, "run", *arguments, "--json"], env).stdout)
    tokens = reply["tokens"]
    assert isinstance(tokens, list)
    if len(tokens) != n_tokens:
        raise BenchmarkError(f"infer gave {len(tokens)} tokens, not {n_tokens}: the work is not the same")
    return reply


def main(benchmark: Callable[[], str]) -> int:
    """Run a benchmark and print its line. Exit code 0 whether or not its checks held, 1 if it did not run."""
    try:
        print(benchmark())
    except BenchmarkError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0
