"""The contract of docs/determinism.md on the real model: tokens equal and logits equal to the byte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_helpers import REPO

pytestmark = pytest.mark.weights


def _replies(model: Path, mode: str, *ways: str) -> dict[str, dict[str, list[object]]]:
    """Replies by way. Ways with several requests at once share beginnings; this is checked too."""
    command = [sys.executable, "-m", "tests.determinism_worker", str(model), mode, *ways]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPO)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines:
        assert (line["cached"] >= 128 * 3) == ("alone" not in line["way"])
    return {line["way"]: line["replies"] for line in lines}


def test_canonical_replies_do_not_depend_on_neighbours_or_order(smollm2: Path) -> None:
    """At W = 4: a full batch, the same in another order, and each request alone beside dummy rows."""
    ways = _replies(smollm2, "canonical", "4:", "4:reversed", "4:alone")
    assert ways["4:reversed"] == ways["4:"]
    assert ways["4:alone"] == ways["4:"]


def test_canonical_replies_repeat_in_another_process(smollm2: Path) -> None:
    first = _replies(smollm2, "canonical", "1:")
    assert _replies(smollm2, "canonical", "1:") == first


def test_invariant_replies_depend_on_nothing_but_the_request(smollm2: Path) -> None:
    """Widths 1, 3 and 8, another order, another thread count: the same bytes."""
    ways = _replies(smollm2, "invariant", "1:", "3:", "8:reversed", "1:1thread", "8:1thread")
    for way, replies in ways.items():
        assert replies == ways["1:"], way


def test_the_bytes_do_depend_on_shapes_that_no_policy_fixes(smollm2: Path) -> None:
    """The tests above can fail: a prompt fed whole gives other logits than in chunks of 64."""
    whole = _replies(smollm2, "fast", "1:")["1:"]
    chunked = _replies(smollm2, "canonical", "1:")["1:"]
    assert whole.keys() == chunked.keys()
    assert any(whole[i][1] != chunked[i][1] for i in whole)
