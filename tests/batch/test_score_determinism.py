"""Likelihoods of a job on the real default model: the same bytes in any order, number and after a kill."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.batch_helpers import digests, lines, write_rows
from tests.cli_helpers import INFER, REPO, Outcome, infer

pytestmark = [pytest.mark.weights, pytest.mark.timeout(300)]

CONTEXTS = ("The capital of France is", "Rain is", "The sky at night is", "")
PAIRS: list[dict[str, object]] = [
    {"context": context, "continuation": continuation, "custom_id": f"{context}|{continuation}"}
    for context in CONTEXTS
    for continuation in (" Paris.", " water that falls from clouds.", " dark and full of stars.")
]


def score(smollm2: Path, *arguments: object, **more: Any) -> Outcome:
    return infer("score", "-m", smollm2, *arguments, **more)


def by_id(path: Path) -> dict[str, str]:
    return {line["custom_id"]: line["digest"] for line in lines(path)}


@pytest.mark.parametrize("mode", [(), ("--canonical",)], ids=["invariant", "canonical"])
def test_order_shards_and_kills_change_nothing(smollm2: Path, tmp_path: Path, mode: tuple[str, ...]) -> None:
    straight = write_rows(tmp_path / "straight.jsonl", *PAIRS)
    whole = tmp_path / "whole"
    assert score(smollm2, straight, "-o", whole, *mode).code == 0
    assert all(line["error"] is None for line in lines(whole))
    back = tmp_path / "back"
    assert score(smollm2, write_rows(tmp_path / "b.jsonl", *reversed(PAIRS)), "-o", back, *mode).code == 0
    assert by_id(back) == by_id(whole)

    parts = [tmp_path / "part1", tmp_path / "part2"]
    for i, part in enumerate(parts, 1):
        assert score(smollm2, straight, "-o", part, "--shard", f"{i}/2", *mode).code == 0
    assert infer("merge", *parts, "-o", tmp_path / "merged").code == 0
    assert digests(tmp_path / "merged") == digests(whole)
    assert infer("verify", tmp_path / "merged", "-m", smollm2, "--fraction", 1).code == 0

    one = score(smollm2, CONTEXTS[0], " Paris.", "--json", *mode).json
    assert one["digest"] == by_id(whole)[f"{CONTEXTS[0]}| Paris."]


def test_threads_and_a_kill_change_nothing(smollm2: Path, tmp_path: Path) -> None:
    long = [{**pair, "context": f"{i} {pair['context']}"} for i in range(40) for pair in PAIRS]
    rows = write_rows(tmp_path / "in.jsonl", *({**p, "custom_id": str(i)} for i, p in enumerate(long)))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert score(smollm2, rows, "-o", whole, "--threads", 1).code == 0
    command = [*INFER, "score", "-m", str(smollm2), str(rows), "-o", str(killed), "--quiet"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=REPO)
    while process.poll() is None and (not killed.exists() or not killed.stat().st_size):
        time.sleep(0.01)  # until the first line is out
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(lines(killed)) < len(long)
    assert score(smollm2, rows, "-o", killed).code == 0
    assert digests(killed) == digests(whole)


def test_a_likelihood_is_that_of_the_tokens_that_a_reply_has(smollm2: Path) -> None:
    context = "The capital of France is"
    reply = infer(
        "run", "-m", smollm2, "--raw", context, "-n", 6, "--invariant", "--json", "--logprobs", 0
    ).json
    found = score(smollm2, context, reply["text"], "--json").json
    assert found["tokens"] == reply["tokens"] and found["greedy"] is True
    logprobs: Any = reply["logprobs"]
    assert found["token_logprobs"] == pytest.approx([item["logprob"] for item in logprobs], abs=1e-5)


def test_choices_are_continuations(smollm2: Path, tmp_path: Path) -> None:
    choices = [" Paris", " London", " a large"]
    row: dict[str, object] = {"prompt": CONTEXTS[0], "choices": choices}
    out = tmp_path / "out"
    done = infer("batch", "-m", smollm2, write_rows(tmp_path / "in.jsonl", row), "-o", out, "--raw")
    assert done.code == 0
    (line,) = lines(out)
    alone = {choice: score(smollm2, CONTEXTS[0], choice, "--json").json["logprob"] for choice in choices}
    assert {choice["text"]: choice["logprob"] for choice in line["choices"]} == alone
    assert line["text"] == max(alone, key=lambda text: float(str(alone[text])))
