"""Can `infer verify --tokens` tell quantizations apart, and does it leave the same model in peace?

    python -m benchmarks.claimed_tokens [--smollm2 MODEL] [--types Q4_1,F16] [--rows 32] [--data DIR]
        [--portable PYTHON] [--only noise|table] [--claimed Q4_1] [--actual Q4_1]

The default model is quantized anew by llama.cpp to each type, all from the file as it ships: so they are as
near each other as models of different files can be. Each answers GSM8K questions, greedy and sampled. These
rows are then checked by their tokens with each of the others: a row alarms where one of its tokens is beyond
the margin, or all of them on average. A cell of the table is the share of rows that alarm, and how many rows
find one with 95 %; where none alarms, the two can't be told apart by so many rows.

No row may alarm where the model is the one that answered: in each mode, on one thread and on two, and (with
`--portable`) by a build with GGML_NATIVE=OFF. PYTHON is that of an environment with such a llama-cpp-python.
It needs no quiet machine. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import common
from benchmarks.quantizations import FTYPES, quantize

TYPES = ("Q4_1", "F16", "Q8_0", "Q4_0", "Q5_1", "Q4_K_M", "IQ4_NL")
SAMPLING = {"greedy": (), "sampled": ("-t", "1", "--seed", "7")}
N_TOKENS = 48
WIDTH = 16
SURE = 0.95
_CHECK_FAILED = 9


class Cell(NamedTuple):
    """Of the rows of one type, checked by another. `farthest` of their tokens, in nats; None: beyond what is
    told. `farthest_mean`: of a reply on average."""

    claimed: str
    actual: str
    sampling: str
    n_rows: int
    n_alarms: int
    farthest: float | None
    farthest_mean: float

    @property
    def needed(self) -> int | None:
        """Rows that find the other model with a chance of `SURE`; None where no row has."""
        share = self.n_alarms / self.n_rows
        if share in (0, 1):
            return 1 if share else None
        return math.ceil(math.log(1 - SURE) / math.log(1 - share))


def benchmark() -> str:
    given = _arguments().parse_args()
    report, types = common.Report("claimed_tokens", 1), given.types.split(",")
    if unknown := {*types, *given.claimed.split(","), *given.actual.split(",")} - {"", *FTYPES}:
        raise common.BenchmarkError(f"no type {min(unknown)}: {', '.join(FTYPES)}")
    source = common.model_path(given.smollm2)
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = common.clean_environment(folder / "home")
        version = common.run([*common.INFER, "--version"], env).stdout.split()[-1]
        bench = _Bench(folder, env, _rows(given, folder))
        if given.only != "table":
            for what, cell in _same_model(bench, source, given.portable):
                report.check(f"{what}, {cell.sampling}: rows that alarm", cell.n_alarms, "<=", 0)
        if given.only != "noise":
            models = {"Q4_1": Path(source)}
            for kind in types:
                if kind not in models:
                    models[kind] = folder / f"{kind}.gguf"
                    quantize(source, models[kind], kind, env)
            cells = list(_table(bench, {kind: models[kind] for kind in types}, given))
            for cell in cells:
                if cell.claimed == cell.actual:
                    name_ = f"{cell.claimed} by itself, {cell.sampling}: rows that alarm"
                    report.check(name_, cell.n_alarms, "<=", 0)
    _show(cells)
    settings = {
        "rows": given.rows,
        "max_tokens": N_TOKENS,
        "types": given.types,
        "portable": given.portable is not None,
        "cells": [{**cell._asdict(), "needed": cell.needed} for cell in cells],
        "not_told_apart": sorted(
            {f"{cell.claimed} {cell.actual} {cell.sampling}" for cell in cells if _is_alike(cell)}
        ),
    }
    return report.line(common.machine_facts(infer=version), settings)


def _is_alike(cell: Cell) -> bool:
    return cell.claimed != cell.actual and not cell.n_alarms


def _rows(given: argparse.Namespace, folder: Path) -> Path:
    lines = common.data_file(given, "gsm8k/train_200.jsonl").read_text("utf-8").splitlines()[: given.rows]
    path = folder / "in.jsonl"
    rows = [{"custom_id": f"q{i}", "prompt": json.loads(line)["question"]} for i, line in enumerate(lines)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


class _Bench:
    """Rows that are answered and checked, each by a process of its own."""

    def __init__(self, folder: Path, env: dict[str, str], rows: Path) -> None:
        self._folder, self._env, self._rows = folder, env, rows

    def answered(self, name: str, model: Path, flags: Sequence[str], python: str = sys.executable) -> Path:
        out = self._folder / f"{name}.jsonl"
        command = [python, "-m", "infer_cli", "batch", str(self._rows), "-o", str(out), "-m", str(model)]
        common.run(
            [*command, "--parallel", str(WIDTH), "-n", str(N_TOKENS), "--gpu-layers", "0", "--quiet", *flags],
            self._env,
        )
        return out

    def checked(
        self,
        claims: Path,
        model: Path,
        *,
        claimed: str,
        actual: str,
        sampling: str,
        python: str = sys.executable,
    ) -> Cell:
        began = time.perf_counter()
        command = [python, "-m", "infer_cli", "verify", str(claims), "-m", str(model)]
        done = subprocess.run(
            [*command, "--tokens", "--fraction", "1", "--json", "--quiet"],
            env=self._env,
            capture_output=True,
            text=True,
        )
        if done.returncode not in (0, _CHECK_FAILED):
            raise common.BenchmarkError(done.stderr.strip())
        found = json.loads(done.stdout)
        alarms = {difference["row"] for difference in found["differences"]}
        cell = Cell(
            claimed, actual, sampling, found["rows"], len(alarms), found["farthest"], found["farthest_mean"]
        )
        print(
            f"{claimed} by {actual}, {sampling}: {cell.n_alarms} of {cell.n_rows} alarm, farthest"
            f" {cell.farthest}, on average {cell.farthest_mean:.3f} ({time.perf_counter() - began:.0f} s)",
            file=sys.stderr,
            flush=True,
        )
        return cell


def _same_model(bench: _Bench, model: str, portable: str | None) -> Iterator[tuple[str, Cell]]:
    """The rows of one model, made in other ways, checked by the same model."""
    ways: list[tuple[str, tuple[str, ...], str]] = [
        (mode, (f"--{mode}", "--threads", threads), sys.executable)
        for mode in ("canonical", "fast", "invariant")
        for threads in ("1", "2")
    ]
    if portable is not None:
        ways += [(f"{mode}, portable", (f"--{mode}",), portable) for mode in ("fast", "invariant")]
    for way, flags, python in ways:
        what = f"{way}, {flags[-1]} threads" if "--threads" in flags else way
        for sampling, sampled in SAMPLING.items():
            claims = bench.answered(f"{what} {sampling}", Path(model), (*flags, *sampled), python)
            yield what, bench.checked(claims, Path(model), claimed=what, actual="itself", sampling=sampling)


def _table(bench: _Bench, models: dict[str, Path], given: argparse.Namespace) -> Iterator[Cell]:
    claimed = given.claimed.split(",") if given.claimed else list(models)
    actual = given.actual.split(",") if given.actual else list(models)
    for kind in claimed:
        for sampling, sampled in SAMPLING.items():
            claims = bench.answered(f"{kind} {sampling}", models[kind], ("--invariant", *sampled))
            for other in actual:
                yield bench.checked(claims, models[other], claimed=kind, actual=other, sampling=sampling)


def _show(cells: Sequence[Cell]) -> None:
    """The table on stderr: share of rows that alarm, and rows for 95 %."""
    for sampling in SAMPLING:
        found = {(cell.claimed, cell.actual): cell for cell in cells if cell.sampling == sampling}
        columns = list(dict.fromkeys(actual for _, actual in found))
        print(
            f"\n{sampling}: claimed by actual" + "".join(f"{name:>12}" for name in columns), file=sys.stderr
        )
        for claimed in dict.fromkeys(claimed for claimed, _ in found):
            shown = ""
            for actual in columns:
                cell = found[claimed, actual]
                rows = "-" if cell.needed is None else cell.needed
                shown += f"{f'{cell.n_alarms / cell.n_rows:.0%} / {rows}':>12}"
            print(f"{claimed:<{len(sampling) + 20}}{shown}", file=sys.stderr)


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=1)
    common.add_model(parser)
    common.add_data(parser)
    parser.add_argument("--types", default=",".join(TYPES), help="some of these, with commas between")
    parser.add_argument("--claimed", default="", help="types that answer (all)")
    parser.add_argument("--actual", default="", help="types that check (all)")
    parser.add_argument("--rows", type=int, default=32, help="questions of each type and sampling (32)")
    parser.add_argument("--portable", metavar="PYTHON", help="of a build with GGML_NATIVE=OFF")
    parser.add_argument("--only", choices=("noise", "table"), help="one part")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
