"""docs/failures.md: every failure has a test, an exit code of the program, and words that it says."""

from __future__ import annotations

import re
from typing import NamedTuple

from infer_cli.errors import ExitStatus
from tests.cli_helpers import REPO

PAGE = (REPO / "docs" / "failures.md").read_text("utf-8")
_KILLED = 137  # a shell's word for SIGKILL: the command had no say in it

_NAMED_TEST = re.compile(r"(tests/(?:\w+/)*test_\w+\.py)::(test_\w+)")


class Row(NamedTuple):
    failure: str
    shown: str
    codes: tuple[int, ...]
    tests: tuple[tuple[str, str], ...]


def _rows() -> list[Row]:
    found = []
    for line in PAGE.splitlines():
        if line.startswith("| ") and not line.startswith(("| ---", "| Failure ")):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
            assert len(cells) == 5, line
            tests = tuple(_NAMED_TEST.findall(cells[4]))
            found.append(Row(cells[0], cells[2], tuple(map(int, cells[3].split(","))), tests))
    return found


def test_each_failure_has_tests_that_are_there() -> None:
    for row in _rows():
        assert row.tests, row.failure
        for file, name in row.tests:
            assert f"\ndef {name}(" in (REPO / file).read_text("utf-8"), f"{row.failure}: {file}::{name}"


def test_exit_codes_are_those_of_the_program() -> None:
    known = {status.value for status in ExitStatus}
    used = {code for row in _rows() for code in row.codes}
    assert used - known == {_KILLED}
    assert known - used == set()


def test_what_is_shown_is_said() -> None:
    """Words in `code` are the program's own."""
    sources = "\n".join(path.read_text("utf-8") for path in (REPO / "infer_cli").rglob("*.py"))
    for row in _rows():
        for quoted in re.findall(r"`([^`]*)`", row.shown):
            for piece in quoted.split("…"):
                words = piece.strip()
                assert words.startswith("--") or words in sources, f"{row.failure}: {words}"


def test_every_failure_is_there_once() -> None:
    names = [row.failure for row in _rows()]
    assert len(names) >= 30
    assert len(set(names)) == len(names)
