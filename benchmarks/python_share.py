"""What Python costs beside the model: microseconds of a row-step in the engine, and memory of a long job.

    python -m benchmarks.python_share [--rounds 7] [--rows 10000]

Both with the fake backend. row-step: 320 requests of 32 tokens, 16 at a time, through the engine alone; the
time in calls of the backend is taken off, and what is left is divided by the tokens that were chosen, prefill
and admission included. memory: `infer batch` on a tenth of the rows and on all of them, peak of both.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import common

WIDTH, N_REQUESTS, N_TOKENS, N_PROMPT = 16, 320, 32, 48
MOST_US = 50.0
MOST_GROWTH = 1.1
MODES = ("fast", "canonical", "invariant")


def benchmark() -> str:
    parser = common.arguments(__doc__, rounds=common.MIN_ROUNDS)
    parser.add_argument("--rows", type=int, default=10_000, help="of the long job (10000)")
    given = parser.parse_args()
    report = common.Report("python_share", given.rounds)
    results = common.interleave({mode: _row_step(mode) for mode in MODES}, given.rounds)
    for mode, values in results.items():
        report.series(f"{mode} us a row-step", values)
        report.check(f"{mode} us a row-step", sorted(values)[len(values) // 2], "<=", MOST_US)
    with tempfile.TemporaryDirectory() as folder:
        short, long = (_peak(Path(folder) / str(n), n) for n in (given.rows // 10, given.rows))
    report.series("memory of a tenth of the rows, MB", [short])
    report.series("memory of all rows, MB", [long])
    report.check("memory of all rows / of a tenth", long / short, "<=", MOST_GROWTH)
    settings = {"width": WIDTH, "requests": N_REQUESTS, "tokens": N_TOKENS, "rows": given.rows}
    return report.line(common.machine_facts(), settings)


class _Timed:
    """A backend whose calls are counted as its own time."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._backend, name)
        if not callable(value):
            return value

        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return value(*arguments)
            finally:
                self.seconds += time.perf_counter() - began

        self.__dict__[name] = timed
        return timed


def _row_step(mode: str) -> Callable[[], float]:
    from infer_cli.backend.fake import FakeBackend, FakeScript
    from infer_cli.backend.spec import ContextSpec
    from infer_cli.engine.engine import Engine
    from infer_cli.engine.mode_policy import ModelTraits, choose
    from infer_cli.types import EngineRequest, SamplingParams

    def measure() -> float:
        policy = choose(mode, WIDTH, ModelTraits(), speculate=False)  # type: ignore[arg-type]
        spec = ContextSpec(512, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 1)
        backend = _Timed(FakeBackend(FakeScript(default_reply="x" * N_TOKENS), spec))
        engine = Engine(backend, policy, time.perf_counter, 512)
        for n in range(N_REQUESTS):
            prompt = tuple(65 + (n * 7 + i) % 26 for i in range(N_PROMPT))
            engine.submit(EngineRequest(str(n), prompt, SamplingParams(), N_TOKENS), 0.0)
        began = time.perf_counter()
        while not engine.idle:
            engine.step()
        seconds = time.perf_counter() - began - backend.seconds
        return seconds * 1e6 / (N_REQUESTS * N_TOKENS)

    return measure


def _peak(folder: Path, n_rows: int) -> float:
    """Peak memory of a job of so many rows, in MB."""
    folder.mkdir()
    rows, summary = folder / "in.jsonl", folder / "summary.json"
    rows.write_text("".join(json.dumps({"prompt": f"row {n} asks something"}) + "\n" for n in range(n_rows)))
    command = [
        *common.INFER, "batch", str(rows), "-o", str(folder / "out.jsonl"), "-m", "fake", "-n", "8", "--fast",
        "--parallel", str(WIDTH), "--quiet", "--no-record", "--summary", str(summary),
    ]  # fmt: skip
    common.run(command, common.clean_environment(folder / "home"))
    found = json.loads(summary.read_text())
    if found["done"] != n_rows:
        raise common.BenchmarkError(f"{found['done']} of {n_rows} rows were answered")
    return float(found["peak_memory_bytes"]) / common.MB


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
