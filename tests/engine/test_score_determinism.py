"""Likelihoods of the real model: equal to the byte, however they are computed (docs/determinism.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_helpers import REPO

pytestmark = pytest.mark.weights


def _ways(model: Path, mode: str, *ways: str) -> tuple[dict[str, list[list[str]]], dict[str, int]]:
    """Likelihoods by way, and how many tokens were evaluated."""
    command = [sys.executable, "-m", "tests.score_worker", str(model), mode, *ways]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPO)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["way"]: line["likelihoods"] for line in lines}, {
        line["way"]: line["evaluated"] for line in lines
    }


def test_invariant_likelihoods_depend_on_nothing_but_the_text(smollm2: Path) -> None:
    """Beside others and alone, in another order, with few rows a call, with another thread count."""
    ways, n_evaluated = _ways(smollm2, "invariant", "sorted", "shuffled,few", "alone", "1thread")
    for way, likelihoods in ways.items():
        assert likelihoods == ways["sorted"], way
    assert n_evaluated["sorted"] < 0.45 * n_evaluated["alone"]


def test_canonical_likelihoods_do_not_depend_on_what_is_held(smollm2: Path) -> None:
    ways, n_evaluated = _ways(smollm2, "canonical", "sorted", "shuffled", "alone")
    for way, likelihoods in ways.items():
        assert likelihoods == ways["sorted"], way
    assert n_evaluated["sorted"] < n_evaluated["alone"]


def test_the_bytes_do_depend_on_shapes_in_fast(smollm2: Path) -> None:
    """The tests above can fail."""
    ways, _ = _ways(smollm2, "fast", "sorted", "alone")
    assert ways["sorted"] != ways["alone"]
