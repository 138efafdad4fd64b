"""A run that is killed at random moments: nothing is lost or there twice, and the scores are the same."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.batch_helpers import digests
from tests.cli_helpers import INFER, REPO, infer
from tests.evaluation.runs.long_runs import N_KILLS, TASKS, TIMEOUT_S, long_run
from tests.evaluation.runs.run_helpers import results_of


def results_but_for_the_date(run: Path) -> dict[str, object]:
    return {k: v for k, v in results_of(run).items() if k not in ("began_at", "command")}


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("name", TASKS)
def test_killed_at_random_moments(name: str, tmp_path: Path) -> None:
    task, data, arguments, kill_s = long_run(name, tmp_path)
    reference, run = tmp_path / "reference", tmp_path / "run"
    asked = [task, "--data", str(data), *arguments, "--quiet", "-o"]
    done = infer("eval", *asked, reference, timeout=TIMEOUT_S)
    assert done.code == 0, done.err
    seed = random.SystemRandom().randrange(2**32)
    moments = random.Random(seed)

    def check() -> None:
        assert digests(run / "replies.jsonl") == digests(reference / "replies.jsonl"), f"seed {seed}"
        assert (run / "samples.jsonl").read_bytes() == (reference / "samples.jsonl").read_bytes()
        assert results_but_for_the_date(run) == results_but_for_the_date(reference)
        assert not list(run.glob(".*.new")), f"seed {seed}"

    n_kills = 0
    while n_kills < N_KILLS:
        process = subprocess.Popen(
            [*INFER, "eval", *asked, str(run)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=REPO
        )
        try:
            _, err = process.communicate(timeout=moments.uniform(*kill_s))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            n_kills += 1
            continue
        finally:
            process.kill()
        assert process.returncode == 0, f"seed {seed}: {err.decode()}"
        check()
        shutil.rmtree(run)  # once more
    done = infer("eval", *asked, run, timeout=TIMEOUT_S)
    assert done.code == 0, f"seed {seed}: {done.err}"
    check()
