"""What a batch shows while it runs: a bar on a terminal, lines elsewhere, a summary at the end."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

import pytest

from infer_cli.batch.summary import ReplyTally
from infer_cli.cli.batch import display as batch_display
from infer_cli.cli.batch.display import LINE_INTERVAL_S, Display, fitting
from infer_cli.settings.durations import duration
from infer_cli.types import Timings, Usage
from tests.batch_helpers import by_unit, prompts, write_rows
from tests.cli_helpers import script
from tests.replies import reply
from tests.terminal import Terminal


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    rows, out = write_rows(tmp_path / "in.jsonl", *prompts(20)), tmp_path / "out"
    slow = script(tmp_path, step_s=0.02)
    with Terminal("batch", "-m", slow, str(rows), "-o", str(out), "--parallel", "4", columns=100) as t:
        text = t.wait_for(
            lambda text: (
                re.search(r"[1-9]\d*/20 .* tok/s in, \d+ out, \d/4 slots, [\d.]+ MB", text) is not None
            )
        )
        assert "left" in text
        text = t.wait_for("20 of 20 replies (20 stop)")
        assert t.end() == 0
    assert "/20 " not in t.text  # the bar is gone


def test_ctrl_c_at_a_terminal(tmp_path: Path) -> None:
    rows, out = write_rows(tmp_path / "in.jsonl", *prompts(20)), tmp_path / "out"
    slow = script(tmp_path, step_s=0.02)
    with Terminal("batch", "-m", slow, str(rows), "-o", str(out), "--parallel", "4", columns=100) as t:
        t.wait_for("4/20 ")
        t.send("\x03")
        t.wait_for("the same command line goes on")
        assert t.end() == 130
        assert "/20 " not in t.text  # the bar is gone, beside the ^C too
        assert not t.screen.cursor.hidden
        assert "Traceback" not in t.text
    assert 4 <= len(by_unit(out)) < 20


def test_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(batch_display, "peak_memory", lambda: 64 * 10**6)
    tally = ReplyTally(n_rows=40, n_replies=40, width=4)
    display = Display(tally, quiet=False)
    for _ in range(20):
        now[0] += 1.0
        tally.n_done += 1
        tally.n_read += 10
        tally.n_written += 5
        display.update(9)
    display.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "10 of 40 replies, 10 tok/s in, 5 out, 4/4 slots, 64 MB, 30s left",
        "20 of 40 replies, 10 tok/s in, 5 out, 4/4 slots, 64 MB, 20s left",
    ]
    silent = Display(tally, quiet=True)
    now[0] += 2 * LINE_INTERVAL_S
    silent.update(1)
    assert capsys.readouterr().err == ""


def test_a_narrow_terminal_has_the_time_that_is_left() -> None:
    parts = ["3 failed", "10 tok/s in, 5 out", "4/4 slots", "64 MB", "30s left"]
    assert fitting(parts, 80) == "3 failed, 10 tok/s in, 5 out, 4/4 slots, 64 MB, 30s left"
    assert fitting(parts, 50) == "3 failed, 10 tok/s in, 5 out, 4/4 slots, 30s left"
    assert fitting(parts, 40) == "3 failed, 10 tok/s in, 5 out, 30s left"
    assert fitting(parts, 30) == "3 failed, 30s left"
    assert fitting(parts, 10) == "30s left"
    assert fitting(parts, 5) == ""


def test_lengths_of_time() -> None:
    assert [duration(s) for s in (0.4, 59, 61, 3600, 7265)] == ["0s", "59s", "1m01s", "1h00m", "2h01m"]


def test_the_summary_counts() -> None:
    tally = ReplyTally(n_rows=100, n_replies=100, width=2)
    for i in range(1, 101):
        timings = Timings(0.0, 0.5, 0.7, float(i), None, 10.0)
        tally.add(dataclasses.replace(reply(), usage=Usage(10, 4, 5), timings=timings))
    found = tally.as_json(wall_s=5000.0)
    assert found["latency_s"] == {
        "queue": {"p50": 0.5, "p90": 0.5, "p95": 0.5, "p99": 0.5},
        "ttft": {"p50": 0.7, "p90": 0.7, "p95": 0.7, "p99": 0.7},
        "inter_token": {"p50": 0.1, "p90": 0.1, "p95": 0.1, "p99": 0.1},
        "total": {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0},
    }
    assert found["tokens"] == {"prompt": 1000, "cached": 400, "generated": 500}
    assert found["prompt_tokens_per_s"] == 600 / 5000
    assert found["slot_occupancy"] == (sum(range(1, 101)) - 50) / 10_000
    assert "100 of 100 replies (100 stop)" in tally.in_words(5000.0)[0]
    assert ReplyTally(0, 0, 1).as_json(0.0)["replies_per_s"] is None
    words = tally.in_words(5000.0)
    assert words[2:7] == [
        "seconds              p50      p90      p95      p99",
        "queue              0.500    0.500    0.500    0.500",
        "first token        0.700    0.700    0.700    0.700",
        "between tokens     0.100    0.100    0.100    0.100",
        "in all            50.000   90.000   95.000   99.000",
    ]
