"""Lengths of time as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer_cli.errors import UsageError
from infer_cli.settings.durations import parse_duration
from tests.batch_helpers import batch, lines, write_rows
from tests.cli_helpers import infer, one_error_line


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3", 3.0), ("3s", 3.0), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0), ("1e3s", 1e3)],
)
def test_units(text: str, seconds: float) -> None:
    assert parse_duration(text, "--deadline") == seconds


@pytest.mark.parametrize("text", ["", "s", "0", "-1s", "nan", "inf", "1e999h", "3 days", "--"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(UsageError, match=r"--deadline .* is not a length of time"):
        parse_duration(text, "--deadline")


@pytest.mark.parametrize("text", ["99999999999s", "877000h", "1e300s", "9" * 300])
def test_what_no_timer_takes(text: str) -> None:
    with pytest.raises(UsageError, match=r"--deadline .* is more than 100 years") as e:
        parse_duration(text, "--deadline")
    assert len(e.value.message) < 120


def test_a_deadline_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    one_error_line(infer("run", "-m", "fake", "hi", "--deadline", "99999999999s"), 2, "more than 100 years")
    rows = write_rows(tmp_path / "in.jsonl", {"prompt": "a", "deadline": 99999999999}, "good")
    out = tmp_path / "out"
    one_error_line(batch(rows, "-o", out, "--deadline", "99999999999s"), 2, "more than 100 years")
    assert batch(rows, "-o", out).code == 8
    errors = {line["row"]: line["error"] for line in lines(out)}
    assert errors[0]["message"].startswith("deadline '99999999999' is more than 100 years")
    assert errors[1] is None
