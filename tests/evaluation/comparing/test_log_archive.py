"""Archives that may be anyone's: what is beyond bounds is one line, and soon."""

from __future__ import annotations

import struct
import time
import zipfile
from pathlib import Path

import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing import log_archive
from infer_cli.evaluation.comparing.any_runs import read_runs
from infer_cli.evaluation.comparing.log_archive import LogArchive
from tests.evaluation.comparing.foreign_files import inspect_sample, write_log
from tests.integrations.extras import needs


def write(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members(method: int, tmp_path: Path) -> None:
    archive = LogArchive(write(tmp_path / "a.eval", {"x": b"1" * 1000, "../../y": b"", "ä": b"2"}, method))
    assert list(archive.names) == ["x", "../../y", "ä"]
    assert archive.read("x") == b"1" * 1000 and archive.read("../../y") == b""
    with pytest.raises(UsageError, match="it has no z"):
        archive.read("z")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.eval", {"header.json": b"0" * 10**7})
    assert path.stat().st_size < 20_000
    before = time.monotonic()
    with pytest.raises(UsageError, match=r"header.json would have 10000000 bytes, of \d+"):
        read_runs(path)
    assert time.monotonic() - before < 5


def test_a_bomb_that_says_it_is_small(tmp_path: Path) -> None:
    path = write(tmp_path / "a.eval", {"header.json": b"0" * 10**7})
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 10**7), struct.pack("<I", 1000)))
    with pytest.raises(UsageError, match=r"header\.json is damaged"):
        read_runs(path)


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.eval", {f"{i}": b"" for i in range(11)})
    monkeypatch.setattr(log_archive, "MOST_ITEMS", 10)
    with pytest.raises(UsageError, match="it has 11 members: more than 10"):
        LogArchive(path)


def test_members_that_are_too_large_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.eval", {"x": b"1" * 60, "y": b"2" * 60})
    monkeypatch.setattr(log_archive, "_MOST_ALL", 100)
    with pytest.raises(UsageError, match="its members would have more than"):
        LogArchive(path)


def test_a_name_that_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.eval"
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x", b"1")
        archive.writestr("x", b"2")
    with pytest.raises(UsageError, match="it has x twice"):
        LogArchive(path)


def test_each_way_to_cut_a_log_is_one_line(tmp_path: Path) -> None:
    """And each byte of its directory that is another."""
    whole = write_log(tmp_path / "whole.eval", [inspect_sample(0, "C")]).read_bytes()
    path = tmp_path / "cut.eval"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError):
            read_runs(path)
    for place in range(len(whole) - 150, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_runs(path)
        except UsageError:
            continue


@pytest.mark.parametrize("offset", [2**64 - 1, 2**63, 10**6])
def test_a_member_that_lies_behind_the_end(offset: int, tmp_path: Path) -> None:
    path = tmp_path / "a.eval"
    info = zipfile.ZipInfo("header.json")
    info.extra = struct.pack("<HHQ", 1, 8, offset)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, b"{}")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2") + 42
    data[at : at + 4] = b"\xff" * 4  # the offset is in the extra field
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"header\.json would end behind the end of the file"):
        read_runs(path)


def test_ways_to_pack_that_are_not_known(tmp_path: Path) -> None:
    path = write(tmp_path / "a.eval", {"header.json": b"1" * 100}, zipfile.ZIP_BZIP2)
    with pytest.raises(UsageError, match="packed in a way that is not known"):
        read_runs(path)


@pytest.mark.parametrize("name", ["a.eval", "a.json"])
def test_json_that_is_deep(name: str, tmp_path: Path) -> None:
    deep = b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    path = tmp_path / name
    if path.suffix == ".eval":
        write(path, {"header.json": deep}, zipfile.ZIP_STORED)
    else:
        path.write_bytes(deep)
    with pytest.raises(UsageError, match=r"is not JSON|nested too deeply"):
        read_runs(path)


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.eval"
    for data in (b"", b"PK\5\6", b"text", b"PK\5\6" + b"\xff" * 18):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=r"zip file|damaged"):
            read_runs(path)


@pytest.mark.parametrize("_", [pytest.param(0, marks=needs("inspect_ai"))])
def test_logs_as_inspect_packs_them(_: int, tmp_path: Path) -> None:
    import zstandard

    packed = zstandard.ZstdCompressor().compress(b"1" * 1000)
    path = write(tmp_path / "a.eval", {"x": packed}, zipfile.ZIP_STORED)
    archive = LogArchive(path)
    member = archive._members["x"]
    unpack = archive._unpacked
    assert unpack("x", member._replace(method=93, size=1000), packed) == b"1" * 1000
    assert len(unpack("x", member._replace(method=93, size=10), packed)) == 11  # no more is unpacked
    with pytest.raises(UsageError, match="x is damaged"):
        unpack("x", member._replace(method=93, size=1000), b"nothing")
