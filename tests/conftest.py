"""Fixtures for every test: no test sees the user's own state, settings or models."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_helpers import warm_starts

SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Compiled once, as an installed program is, and not beside the sources: tests start thousands of processes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(__file__).parents[1] / "build" / "pycache"))
# Threads of llama.cpp that wait give their core away: other tests run beside them (OpenMP's own setting).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
USERS_ENVIRONMENT = dict(os.environ)  # before any test changes it


def _attend_to_signals() -> None:
    """Let what the tests start have a user's own signals: `nohup` and background jobs hand down ignored ones.

    A handler of ours is the default again in a new program; that of SIGHUP keeps the tests alive themselves.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda signum, frame: None)


_attend_to_signals()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty INFER_HOME, and no settings or models of infer or of other tools from outside."""
    for name in list(os.environ):
        if name.startswith(("INFER_", "HF_", "OLLAMA_")) and not name.startswith("INFER_TEST_"):
            monkeypatch.delenv(name)
    home = tmp_path / "infer-home"
    monkeypatch.setenv("INFER_HOME", str(home))
    monkeypatch.setenv("HOME", str(tmp_path))  # where other tools' models would be found
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    return home


@pytest.fixture(scope="session", autouse=True)
def end_warm_starts() -> Iterator[None]:
    """What forks for these tests ends with them."""
    yield
    warm_starts.close()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real default model: the file that `INFER_TEST_MODEL` names, or pulled as a user would pull it."""
    path = USERS_ENVIRONMENT.get("INFER_TEST_MODEL")
    if path is None:
        command = [sys.executable, "-m", "infer_cli", "models", "pull", "--quiet"]
        done = subprocess.run(command, env=USERS_ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, f"the default model can't be had here: {done.stderr}"
        path = done.stdout.strip()
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert digest == SMOLLM2_SHA256, f"{path} is not the default model"
    return Path(path)
