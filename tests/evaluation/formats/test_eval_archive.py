"""Zip files that are written member by member: what the standard library reads, the same bytes each time."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO

import pytest

from infer_cli.evaluation.formats.eval_archive import EvalArchive

MEMBERS: dict[str, list[IO[bytes] | bytes]] = {
    "a.json": [b"{}"],
    "ä/…/b.json": [b"[", io.BytesIO(b"1," * 10**6), b"2]"],
    "empty": [],
}


def write(path: Path) -> None:
    with EvalArchive(path) as archive:
        for name, pieces in MEMBERS.items():
            for piece in pieces:
                if not isinstance(piece, bytes):
                    piece.seek(0)
            archive.add(name, pieces)


def test_the_standard_library_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "log.eval"
    write(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == list(MEMBERS) and archive.testzip() is None
        assert archive.read("ä/…/b.json") == b"[" + b"1," * 10**6 + b"2]"
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    before = path.read_bytes()
    write(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["log.eval"]


def test_more_members_than_a_plain_directory_counts(tmp_path: Path) -> None:
    with EvalArchive(tmp_path / "log.eval") as archive:
        for i in range(70_000):
            archive.add(str(i), [b"1"])
    with zipfile.ZipFile(tmp_path / "log.eval") as read:
        assert len(read.namelist()) == 70_000 and read.read("69999") == b"1"


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "log.eval"
    path.write_bytes(b"before")
    with pytest.raises(KeyError), EvalArchive(path) as archive:
        archive.add("a", [b"1"])
        raise KeyError
    assert path.read_bytes() == b"before" and [each.name for each in tmp_path.iterdir()] == ["log.eval"]
