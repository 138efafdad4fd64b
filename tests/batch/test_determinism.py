"""Replies of a batch on the real default model: the same bytes in any order, in shards, and after a kill."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.batch_helpers import batch, digests, lines, write_rows
from tests.cli_helpers import INFER, REPO, infer

pytestmark = [pytest.mark.weights, pytest.mark.timeout(300)]

QUESTIONS = [
    f"{q} ({n})" for n in range(2) for q in ("Name a colour.", "What is rain?", "Tell a joke.", "2+2?")
]
ARGUMENTS = ("-n", 16, "-t", 1, "--seed", 11, "--quiet")


def texts(path: Path) -> dict[str, str]:
    """Digest by question, however the rows were numbered."""
    return {line["custom_id"]: line["digest"] for line in lines(path)}


@pytest.mark.parametrize("mode", [("--canonical",), ()])
def test_order_shards_and_kills_change_nothing(
    smollm2: Path, tmp_path: Path, mode: tuple[object, ...]
) -> None:
    arguments = (*ARGUMENTS, "--parallel", 4, *mode)
    rows: list[dict[str, object]] = [{"prompt": text, "custom_id": text} for text in QUESTIONS]
    straight = write_rows(tmp_path / "straight.jsonl", *rows)
    reverse = write_rows(tmp_path / "reverse.jsonl", *reversed(rows))
    model = str(smollm2)
    whole = tmp_path / "whole"
    assert batch(straight, "-o", whole, *arguments, model=model).code == 0
    assert batch(reverse, "-o", tmp_path / "back", *arguments, model=model).code == 0
    assert texts(tmp_path / "back") == texts(whole)

    parts = [tmp_path / "part1", tmp_path / "part2"]
    for i, part in enumerate(parts, 1):
        assert batch(straight, "-o", part, "--shard", f"{i}/2", *arguments, model=model).code == 0
    assert infer("merge", *parts, "-o", tmp_path / "merged").code == 0
    assert digests(tmp_path / "merged") == digests(whole)

    killed = tmp_path / "killed"
    command = [*INFER, "batch", "-m", model, str(straight), "-o", str(killed), *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=REPO)
    while process.poll() is None and (not killed.exists() or not killed.stat().st_size):
        time.sleep(0.01)  # until the first reply is out
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_kept = len(lines(killed))
    assert 0 < n_kept < len(rows)
    assert batch(straight, "-o", killed, *arguments, model=model).code == 0
    assert digests(killed) == digests(whole)


def test_one_slot_is_run(smollm2: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", QUESTIONS[0])
    done = batch(rows, "-o", "-", "-n", 12, "--parallel", 1, "--canonical", "--quiet", model=str(smollm2))
    alone = infer("run", "-m", smollm2, QUESTIONS[0], "-n", 12, "--json")
    assert done.json["digest"] == alone.json["digest"]
