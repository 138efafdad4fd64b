"""The pages of optional extras: what they show is run with the real default model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.integrations.extras import environment, is_missing
from tests.project.test_docs import FILE, blocks, default_model, run_session, sessions

__all__ = ["default_model"]  # a fixture

_PACKAGES = {
    "docs/lm-evaluation-harness.md": "lm_eval",
    "docs/inspect.md": "inspect_ai",
    "docs/report.md": "matplotlib",
}


def test_each_page_needs_an_extra() -> None:
    assert set(sessions("console extras")) == set(_PACKAGES)


@pytest.mark.extras
@pytest.mark.weights
@pytest.mark.usefixtures("default_model")
@pytest.mark.parametrize("page", _PACKAGES)
def test_sessions(page: str, tmp_path: Path) -> None:
    if is_missing(_PACKAGES[page]):
        pytest.skip(f"{_PACKAGES[page]} is not installed")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, arguments in (("python3", ""), ("inspect", "-m inspect_ai "), ("infer", "-m infer_cli ")):
        command = commands / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        command.chmod(0o755)
    directory = tmp_path / "session"
    directory.mkdir()
    for block in blocks(page):
        if file := FILE.fullmatch(block.info):
            (directory / file[1]).write_text(block.body)
    for block in blocks(page):
        if block.info == "console extras":
            path = f"{commands}{os.pathsep}{os.environ['PATH']}"
            run_session(block, directory, {**environment(tmp_path), "PATH": path})
