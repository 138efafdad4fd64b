"""A command that the tests start as a fork does what one does that a user starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_helpers import INFER, REPO, infer, script, warm_starts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there is a fork started")


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["run", "-m", "fake", "hi"], None),
        (["run", "-m", "fake"], b"caf\xc3\xa9 " * 500),
        (["run", "-m", "fake", "caf\udce9"], None),  # a byte that is no UTF-8
        (["tokens", "-m", "fake", "--ids"], b"one two"),
        (["models", "show", "none"], None),
        (["--version"], None),
        (["no-command"], None),
    ],
)
def test_it_says_what_a_user_would_read(arguments: list[str], stdin: bytes | None) -> None:
    plain = subprocess.run(
        [*INFER, *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        cwd=REPO,
    )
    for _ in range(2):  # by both processes that fork
        warm = warm_starts.run(arguments, stdin, os.environ, 60)
        assert warm is not None
        assert (warm.returncode, warm.stdout, warm.stderr) == (plain.returncode, plain.stdout, plain.stderr)


@pytest.mark.parametrize("name", ["PYTHONUTF8", "LC_ALL", "PATH", "SOMETHING_ELSE"])
def test_another_environment_is_another_start(name: str) -> None:
    assert warm_starts.run(["--version"], None, {**os.environ, name: "1"}, 60) is None
    assert warm_starts.run(["--version"], None, {**os.environ, "INFER_SEED": "1"}, 60) is not None


def test_one_that_hangs_is_killed(tmp_path: Path) -> None:
    slow = script(tmp_path, load_s=60.0)
    with pytest.raises(subprocess.TimeoutExpired):
        infer("run", "-m", slow, "hi", timeout=1)
