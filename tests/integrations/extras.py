"""Shared by the tests of optional extras: programs run as a user runs them, but offline."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infer_cli import __version__
from tests.cli_helpers import REPO

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def is_missing(package: str) -> bool:
    """Whether tests of an extra are to be skipped. With `INFER_TEST_EXTRAS=1` none is: they fail then."""
    return importlib.util.find_spec(package) is None and os.environ.get("INFER_TEST_EXTRAS") != "1"


def needs(package: str) -> list[pytest.MarkDecorator]:
    """Marks of a module whose tests need an extra."""
    reason = f"{package} is not installed"
    return [pytest.mark.extras, pytest.mark.skipif(is_missing(package), reason=reason)]


def environment(directory: Path) -> dict[str, str]:
    """Entry points are those of pyproject.toml, whatever is installed; nothing is fetched."""
    metadata = directory / "metadata" / f"infer_cli-{__version__}.dist-info"
    if not metadata.is_dir():
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: infer-cli\nVersion: {__version__}\n"
        )
        project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
        lines = []
        for group, points in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return {
        **os.environ,
        "PYTHONPATH": f"{metadata.parent}{os.pathsep}{REPO}",
        "PYTHONUTF8": "1",
        "HF_HOME": str(directory / "hf"),
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "passive",
    }


def run(
    directory: Path, *command: object, timeout: float = 240, **more: str
) -> subprocess.CompletedProcess[str]:
    """A command with both streams in `stdout`. It has to succeed."""
    done = attempt(directory, *command, timeout=timeout, **more)
    assert done.returncode == 0, done.stdout
    return done


def attempt(
    directory: Path, *command: object, timeout: float = 240, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        env={**environment(directory), **more},
        timeout=timeout,
    )
