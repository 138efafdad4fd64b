"""Tables on terminals of several widths: what is left out, and that nothing else is cut."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from infer_cli.cli.screen.table import Column, short_ids, table_lines, when_in_short
from infer_cli.text.graphemes import cells, shortened, wrapped
from tests.cli_helpers import infer

COLUMNS = (
    Column("id"),
    Column("model", rank=1),
    Column("tokens", rank=2, right=True),
    Column("prompt", is_text=True),
)
ROWS = [("a1", "smollm2-135m", "7", "Why is the sky blue? " * 9), ("b2", "qwen", "1024", "hi")]


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (100, ["id", "model", "tokens", "prompt"]),
        (50, ["id", "model", "tokens", "prompt"]),
        (49, ["id", "model", "prompt"]),
        (42, ["id", "model", "prompt"]),
        (41, ["id", "prompt"]),
        (20, ["id", "prompt"]),
    ],
)
def test_columns_that_find_no_room_are_left_out_whole(width: int, headings: list[str]) -> None:
    lines = table_lines(COLUMNS, ROWS, width)
    assert lines[0].split() == headings
    assert all(len(line) <= width for line in lines)
    assert lines[1].endswith("…") and lines[2].endswith("  hi")
    assert ("smollm2-135m" in lines[1]) == ("model" in headings)


def test_a_cell_that_stays_is_never_cut() -> None:
    path = "/models/" + "a" * 60
    heading, row = table_lines((Column("path"), Column("size", rank=1)), [(path, "1 GB")], 40)
    assert (heading, row) == ("path", path)


def test_numbers_stand_on_the_right_and_wide_characters_are_two_columns() -> None:
    lines = table_lines((Column("name"), Column("n", right=True)), [("日本", "7"), ("abcde", "1024")], 80)
    assert lines == ["name      n", "日本      7", "abcde  1024"]


def test_a_text_is_cut_between_characters_of_its_reader() -> None:
    assert shortened("日本語", 5) == "日本…" and cells("日本…") == 5
    assert shortened("日本語", 6) == "日本語"
    assert shortened("e\u0301e\u0301e\u0301", 2) == "e\u0301…"


def test_control_sequences_of_a_cell_are_not_shown() -> None:
    assert table_lines((Column("name"),), [("a\x1b]0;owned\x07",)], 80)[1] == "a\ufffd]0;owned\ufffd"


def test_a_value_goes_on_between_words() -> None:
    assert wrapped("one two three", 6, 14) == ["      one two", "      three"]
    assert wrapped("/a/path/that/is/long", 6, 22) == ["", "  /a/path/that/is/long"]
    assert wrapped("", 6, 22) == ["      "]


def test_ids_are_as_short_as_they_may_be() -> None:
    assert short_ids(["0123456789abcdef", "0123456799abcdef", "ab"]) == ["012345678", "012345679", "ab"]
    assert short_ids(["0123456789abcdef"]) == ["01234567"]
    assert short_ids([]) == []


@pytest.mark.parametrize(
    ("ago", "shown"),
    [
        (timedelta(minutes=5), "11:55"),
        (timedelta(hours=12), "00:00"),
        (timedelta(hours=13), "13h"),
        (timedelta(hours=47), "1d"),
        (timedelta(days=400), "400d"),
    ],
)
def test_a_moment_is_a_time_of_today_or_an_age(ago: timedelta, shown: str) -> None:
    noon = datetime(2026, 3, 9, 12, tzinfo=timezone.utc)
    assert when_in_short(noon - ago, noon) == shown


def test_lists_fit_the_terminal(tmp_path: Path) -> None:
    from tests.terminal import Terminal

    for words in (["run", "-m", "fake", "Why is the sky blue? " * 9], ["run", "-m", "fake", "hi"]):
        assert infer(*words).code == 0
    for width in (40, 80, 160):
        with Terminal("records", "list", columns=width) as terminal:
            assert terminal.end() == 0
            heading, last, first = terminal.text.split("\n")[:3]
        assert heading.split()[:1] == ["id"] and heading.split()[-1] == "prompt"
        assert last.endswith("  hi") and first.endswith("…")
        record = last.split()[0]
        assert len(record) == 8
        shown = infer("records", "show", record + "…")
        assert shown.text.startswith(f"id            {record}"), shown
    with Terminal("template", "show", "--list", "-m", "fake", columns=40) as terminal:
        assert terminal.end() == 0
        assert terminal.text.split() == ["template", "characters", "default", "167"]
    with Terminal("doctor", columns=40) as terminal:
        assert terminal.end() == 0
        between_words = r"^ok    llama-cpp-python .*,.*\n      \S"
        assert re.search(between_words, terminal.text, re.MULTILINE), terminal.text
    with Terminal("devices", columns=80) as terminal:
        assert terminal.end() == 0
        assert terminal.text.split()[:3] == ["device", "kind", "memory"]
