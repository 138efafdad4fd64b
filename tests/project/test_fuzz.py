"""The short form of the harness: every target over its corpus and a few generated inputs, the same each time.

docs/fuzzing.md says how to run the long form, and what to do with what it finds.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.faults import JOBS, Job, Trial, disturb, fill
from fuzz.runner import REPO, run
from fuzz.target import CORPUS, TARGETS, target_class
from tests.fuzz_broken import BrokenTarget

# Generated inputs of each target: seconds, not minutes.
RUNS = {
    "header": 6000,
    "load": 200,
    "templates": 100,
    "rows": 800,
    "catalogue": 60,
    "config": 30,
    "job": 40,
    "records": 300,
    "prefix": 2000,
    "sanitize": 3000,
    "http": 150,
    "text": 3000,
    "scorers": 1000,
}
SEED = 1

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="children are watched with POSIX signals")


def test_every_target_has_a_short_form_and_a_corpus() -> None:
    assert RUNS.keys() == TARGETS.keys()
    assert {path.name for path in CORPUS.iterdir()} <= TARGETS.keys()
    for name in TARGETS.keys() - {"load"}:
        assert target_class(TARGETS[name]).corpus(), name


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found(name: str) -> None:
    outcome = run(name, TARGETS[name], seed=SEED, runs=RUNS[name])
    assert not outcome.kinds, json.dumps(outcome.as_json(), indent=1)
    assert outcome.runs == len(target_class(TARGETS[name]).corpus()) + RUNS[name]


@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
@pytest.mark.parametrize("kill", [True, False], ids=["kills", "signals"])
def test_nothing_is_lost_where_a_command_is_disturbed(tmp_path: Path, kill: bool) -> None:
    trial = Trial(tmp_path, [job for job in JOBS if job.name == ("batch --ordered" if kill else "run")])
    disturb(trial, 1, SEED, kill=kill)
    assert trial.done.total() == 1
    assert trial.lost == []


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="a C compiler is needed")
def test_nothing_is_lost_where_the_disk_is_full(tmp_path: Path) -> None:
    trial = Trial(tmp_path, [job for job in JOBS if job.name == "run"])
    fill(trial, every=40)
    assert trial.done["run"] > 1
    assert trial.lost == []


# --- the harness itself ---------------------------------------------------------------------------


def test_what_is_lost_is_told(tmp_path: Path) -> None:
    numbers = itertools.count()
    trial = Trial(tmp_path, [Job("run", ("run", "-m", "fake", "hi"), lambda place: next(numbers))])
    disturb(trial, 2, SEED, kill=True)
    assert len(trial.lost) == 2


def test_all_that_goes_wrong_is_found() -> None:
    outcome = run("broken", "tests.fuzz_broken:BrokenTarget", runs=20)
    kinds = {finding["input"]: finding["kind"] for finding in outcome.first}
    assert kinds.pop("corpus/bug") == "KeyError in the harness"
    assert kinds.pop("corpus/hang").startswith("hang in ")
    assert kinds.pop("corpus/sleep").startswith("hang or abort in ")
    assert kinds.pop("corpus/memory") == "too much memory"
    assert kinds.pop("corpus/code") == "exit code 4 (ModelInvalid)"
    assert kinds.pop("corpus/two-lines") == "not a clear line (UsageError)"
    assert kinds.pop("corpus/invariant") == "broken: invariant"
    assert set(kinds.values()) == {"broken: even"}
    assert "corpus/crash" in outcome.inputs  # a crash and a hang that was ended look alike: one cause
    assert not {"corpus/refused", "corpus/sound"} & set(outcome.inputs)
    assert outcome.runs == len(BrokenTarget.corpus()) + 20
    found_again = run("broken", "tests.fuzz_broken:BrokenTarget", runs=20)
    assert found_again.inputs == outcome.inputs
    other_seed = run("broken", "tests.fuzz_broken:BrokenTarget", seed=5, runs=20)
    assert other_seed.inputs != outcome.inputs


def test_memory_is_the_target_s_own() -> None:
    """Linux counts in a process's peak what its parent had: a large parent hid every finding."""
    large = bytearray(300 * 2**20)
    large[::4096] = b"x" * len(large[::4096])
    outcome = run("broken", "tests.fuzz_broken:BrokenTarget", runs=0)
    assert "corpus/memory" in outcome.inputs


def test_the_command_line() -> None:
    def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fuzz", *arguments]
        return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=100)

    done = fuzz("text", "--runs", "10", "--seed", "3")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    value = json.loads(line)
    assert list(value) == ["target", "runs", "seconds", "findings", "kinds", "first"]
    assert (value["target"], value["findings"], value["first"]) == ("text", 0, [])
    again = fuzz("text", "--again", "3:5")
    assert again.returncode == 0
    assert json.loads(again.stdout) == {"input": "3:5", "fault": None}
    assert fuzz("nothing").returncode == 2
