"""The benchmarks' arithmetic and their JSON line; every script explains itself. Nothing is measured here."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import common
from infer_cli.batch.job import Shard

PARTS_OF_SCRIPTS = {"__init__", "common", "blimp_loop", "llama_server", "score_command"}
SCRIPTS = sorted(
    path.stem for path in (common.ROOT / "benchmarks").glob("*.py") if path.stem not in PARTS_OF_SCRIPTS
)


def _line(report: common.Report) -> dict[str, object]:
    text = report.line({"cpu": "x"}, {"threads": 2})
    assert "\n" not in text
    parsed: dict[str, object] = json.loads(text)
    return parsed


def test_ratios_pair_values_of_the_same_round() -> None:
    # A slow second round slows both sides: the ratio does not see it.
    assert common.ratios([2.0, 20.0, 3.0], [1.0, 10.0, 1.5]) == [2.0, 2.0, 2.0]


def test_the_median_ratio_is_of_the_ratios_not_of_the_medians() -> None:
    report = common.Report("x", 3)
    # Median of values over median of baselines would be 2/2.
    assert report.ratio("r", [1.0, 2.0, 9.0], [2.0, 1.0, 3.0]) == 2.0


def test_series_of_different_lengths_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="longer"):
        common.ratios([1.0], [1.0, 2.0])


def test_spread_is_the_interquartile_range_over_the_median() -> None:
    assert common.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
    assert common.spread([7.0]) == 0.0


@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=20), st.floats(0.01, 100))
def test_spread_knows_no_unit(values: list[float], unit: float) -> None:
    assert math.isclose(common.spread(values), common.spread([v * unit for v in values]), abs_tol=1e-9)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=20))
def test_a_described_series_lies_around_its_median(values: list[float]) -> None:
    described = common.describe(values)
    assert described["min"] <= described["median"] <= described["max"]
    assert described["min"] == pytest.approx(min(values), rel=1e-4)


def test_a_job_with_the_stored_weights_has_all_lines_and_is_a_shard() -> None:
    """A shard has them: tests/batch/test_planning.py."""
    flag, shard = common.AS_STORED[0], Shard.parse(common.AS_STORED[1])
    assert flag == "--shard" and shard.of > 1
    lines = ["a\n", "b\n", "b\n", "c\n"]
    assert [line for n, line in enumerate(common.as_stored(lines)) if shard.has(n)] == lines


def test_interleave_takes_turns() -> None:
    calls: list[str] = []

    def measure(name: str) -> int:
        calls.append(name)
        return len(calls)

    results = common.interleave({"a": lambda: measure("a"), "b": lambda: measure("b")}, 3)
    assert calls == ["a", "b"] * 3
    assert results == {"a": [1, 3, 5], "b": [2, 4, 6]}


@pytest.mark.parametrize(
    ("value", "relation", "passed"),
    [(1.25, "<=", True), (1.26, "<=", False), (1.25, ">=", True), (1.24, ">=", False), (None, "<=", None)],
)
def test_a_check_holds_up_to_its_limit(value: float | None, relation: str, passed: bool | None) -> None:
    assert common.Check("x", value, relation, 1.25).passed is passed  # type: ignore[arg-type]


def test_the_line_has_figures_checks_noise_and_machine() -> None:
    report = common.Report("startup", 7)
    report.series("a s", [1.0] * 7)
    report.check("a / b", report.ratio("a / b", [1.0] * 7, [2.0] * 7), "<=", 0.6)
    line = _line(report)
    assert line["passed"] is True and line["enough_rounds"] is True
    assert line["checks"] == [{"name": "a / b", "value": 0.5, "relation": "<=", "limit": 0.6, "passed": True}]
    assert line["figures"] == {"a s": {"median": 1.0, "min": 1.0, "max": 1.0, "spread": 0.0}}
    assert line["machine"] == {"cpu": "x"} and line["settings"] == {"threads": 2}
    noise = line["noise"]
    assert isinstance(noise, dict) and noise["noisy"] is False


@pytest.mark.parametrize("value", [None, 0.7])
def test_a_check_missed_or_not_measured_is_not_passed(value: float | None) -> None:
    report = common.Report("x", 3)
    report.check("held", 0.1, "<=", 0.6)
    report.check("not held", value, "<=", 0.6)
    line = _line(report)
    assert line["passed"] is False and line["enough_rounds"] is False


def test_scattered_ratios_are_called_noisy() -> None:
    report = common.Report("x", 4)
    report.ratio("r", [1.0, 2.0, 1.0, 2.0], [1.0] * 4)
    noise = _line(report)["noise"]
    assert isinstance(noise, dict) and noise["noisy"] is True


def test_a_run_has_its_time_and_the_memory_it_touched() -> None:
    # Both far above this process's own size, below which `peak_rss` cannot go.
    own = common.rss_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    n_small = own + 100_000_000
    small, large = (
        common.run([sys.executable, "-c", f"b = b'x' * {n}; print(len(b))"], os.environ)
        for n in (n_small, n_small + 60_000_000)
    )
    assert small.stdout == f"{n_small}\n" and 0 < small.seconds < 60
    assert 50_000_000 < large.peak_rss - small.peak_rss < 70_000_000


def test_tree_memory_adds_the_children() -> None:
    """In a small process of its own: a child's `ru_maxrss` begins with what its parent has resident."""
    hold = "import time; b = b'x' * 40_000_000; time.sleep(0.4)"
    both = f"import subprocess, sys; b = b'x' * 40_000_000; subprocess.run([sys.executable, '-c', {hold!r}])"
    measure = (
        "import os, sys\n"
        "from benchmarks import common\n"
        "tree = common.TreeMemory()\n"
        f"done = common.run([sys.executable, '-c', {both!r}], os.environ, tree.watch)\n"
        "tree.join()\n"
        "print(tree.peak, done.peak_rss)\n"
    )
    shown = subprocess.run([sys.executable, "-c", measure], capture_output=True, text=True, check=True)
    tree_peak, own_peak = map(int, shown.stdout.split())
    assert tree_peak > 80_000_000 > own_peak


def test_a_program_that_fails_says_which_and_why() -> None:
    with pytest.raises(common.BenchmarkError, match=r"(?s)exit code 3 .*went wrong"):
        common.run([sys.executable, "-c", "import sys; sys.stderr.write('went wrong'); sys.exit(3)"], {})


def test_the_users_settings_do_not_reach_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INFER_FAST", "LLAMA_ARG_THREADS", "LLM_MODEL"):
        monkeypatch.setenv(name, "1")
    env = common.clean_environment(Path("home"))
    assert {name for name in env if name.startswith(("INFER_", "LLAMA_ARG_", "LLM_"))} == {
        "INFER_HOME",
        "LLM_USER_PATH",
    }


def test_a_missing_peer_is_named(tmp_path: Path) -> None:
    with pytest.raises(common.BenchmarkError, match="llama-bench"):
        common.Peers(tmp_path).tool("llama-bench")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", "--help"],
        cwd=common.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert f"benchmarks.{script}" in done.stdout or f"benchmarks/{script}.py" in done.stdout
