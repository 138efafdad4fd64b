"""The store under processes that write and are killed at random: benchmarks/records_stress.py, short."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.cli_helpers import REPO

ROOT = REPO
# processes, records of each, kills; the long form is 8,1000,40.
PROCESSES, RECORDS, KILLS = (int(n) for n in os.environ.get("TEST_RECORDS_STRESS", "4,100,8").split(","))


def test_nothing_acknowledged_is_lost() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "records_stress.py"), "--processes", str(PROCESSES),
         "--records", str(RECORDS), "--kills", str(KILLS)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    result = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, (result, done.stderr)
    assert result["acknowledged"] == PROCESSES * RECORDS
    assert result["killed"] > 0
    assert (result["lost"], result["broken"], result["locked"], result["errors"]) == (0, 0, 0, [])
    # A record may be written and its writer killed before it could say so, but no more than that.
    assert 0 <= result["stored"] - result["acknowledged"] <= result["killed"]
