"""A batch that is killed at random moments: nothing is lost, nothing is answered twice, the digests stay."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.batch_helpers import batch, by_unit, digests, lines, prompts, write_rows
from tests.cli_helpers import INFER, REPO, script

N_KILLS = int(os.environ.get("BATCH_KILLS", "10"))
ARGUMENTS = ("-t", "1", "--seed", "3", "--samples", "2", "-n", "20", "--parallel", "4", "--quiet")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ordered", [(), ("--ordered",)], ids=["as they end", "ordered"])
def test_killed_at_random_moments(tmp_path: Path, ordered: tuple[str, ...]) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *prompts(40))
    model = script(tmp_path, step_s=0.004)
    reference = tmp_path / "reference.jsonl"
    assert batch(rows, "-o", reference, *ARGUMENTS, *ordered).code == 0
    seed = random.SystemRandom().randrange(2**32)
    moments = random.Random(seed)
    out = tmp_path / "out.jsonl"
    n_kills = 0
    command = [*INFER, "batch", "-m", model, str(rows), "-o", str(out), *ARGUMENTS, *ordered]
    while n_kills < N_KILLS:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=REPO)
        try:
            _, err = process.communicate(timeout=moments.uniform(0.2, 0.9))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            n_kills += 1
            continue
        finally:
            process.kill()
        assert process.returncode == 0, f"seed {seed}: {err.decode()}"
        assert digests(out) == digests(reference), f"seed {seed}"
        out.unlink()  # once more
    done = batch(rows, "-o", out, *ARGUMENTS, *ordered, model=model)
    assert done.code == 0, f"seed {seed}: {done.err}"
    assert digests(out) == digests(reference), f"seed {seed}"
    if ordered:
        assert [(v["row"], v["sample"]) for v in lines(out)] == sorted(by_unit(out))
