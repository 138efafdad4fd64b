"""Seconds that `infer --help` takes, against `python -c "import typer"` with the same interpreter.

python -m benchmarks.startup [--rounds 21]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import common


def benchmark() -> str:
    given = common.arguments(__doc__, rounds=21).parse_args()
    report = common.Report("startup", given.rounds)
    with tempfile.TemporaryDirectory() as home:
        env = common.clean_environment(Path(home))
        commands = {
            "import typer": [sys.executable, "-c", "import typer"],
            "infer --help": [*common.INFER, "--help"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        for command in commands.values():
            common.run(command, env)  # page cache, compiled Python
        results = common.interleave(
            {name: _timed(command, env) for name, command in commands.items()}, given.rounds
        )
        version = common.run([*common.INFER, "--version"], env).stdout.split()[-1]
    for series, values in results.items():
        report.series(f"{series} s", values)
    ratio = report.ratio("infer --help / import typer", results["infer --help"], results["import typer"])
    report.check("infer --help / import typer", ratio, "<=", 2.0)
    return report.line(common.machine_facts(infer=version, typer=_typer_version()), {})


def _timed(command: list[str], env: dict[str, str]) -> Callable[[], float]:
    return lambda: common.run(command, env).seconds


def _typer_version() -> str:
    from importlib.metadata import version

    return version("typer")


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
