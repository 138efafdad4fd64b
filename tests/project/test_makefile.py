"""The Makefile is what CONTRIBUTING.md says, and what CI calls."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.cli_helpers import REPO

TARGETS = dict(re.findall(r"^([a-z]+):.*## (.+)$", (REPO / "Makefile").read_text("utf-8"), re.MULTILINE))


def test_every_target_is_told() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", (REPO / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert phony is not None and set(phony[1].split()) == set(TARGETS)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", ".ci/run", ".github/workflows/release.yml"])
def test_targets_that_are_named_are_there(page: str) -> None:
    named = re.findall(r"(?:`|^|\n|run: )make ((?:[a-z]+ ?)+)", (REPO / page).read_text("utf-8"))
    words = {word for line in named for word in line.split()}
    assert words and words <= set(TARGETS)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_help_lists_them() -> None:
    done = subprocess.run(["make", "help"], cwd=REPO, capture_output=True, text=True, check=True)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == list(TARGETS)


def test_the_workflow_tests_the_pythons_that_are_promised() -> None:
    workflow = (REPO / ".github" / "workflows" / "release.yml").read_text("utf-8")
    promised = re.findall(r"Python :: (3\.\d+)", (REPO / "pyproject.toml").read_text("utf-8"))
    (tested,) = re.findall(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)
    assert re.findall(r"3\.\d+", tested) == promised
    assert re.findall(r"run: (\.\S+)$", workflow, re.MULTILINE) == [".ci/run"]


def test_contributing_names_files_that_are_there() -> None:
    """In its table of places, a path is one of `infer_cli/`, `docs/` or `fuzz/`."""
    page = (REPO / "CONTRIBUTING.md").read_text("utf-8")
    paths = re.findall(r"`((?:[a-z_]+/)*[a-z_]+(?:\.py|/))`", page)
    missing = [path for path in paths if not any((REPO / top / path).exists() for top in ("", "infer_cli"))]
    assert paths and not missing
