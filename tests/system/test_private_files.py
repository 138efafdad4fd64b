"""What holds prompts and replies is the user's own to read, whatever the umask; models are not hidden."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infer_cli.system import paths
from infer_cli.system.files import write_atomic
from infer_cli.system.private_files import is_private, make_private_dir
from tests.cli_helpers import infer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _modes(directory: Path) -> dict[str, int]:
    return {str(p.relative_to(directory)): _mode(p) for p in (directory, *directory.rglob("*"))}


@pytest.fixture(params=[0o022, 0o000])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def _use(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("It was the best of times. " * 100)
    assert infer("run", "-m", "fake", "-f", book, "who?").code == 0
    assert infer("chat", "-m", "fake", stdin=b"hello\n").code == 0


def test_what_is_kept_is_the_users_own(umask: int, tmp_path: Path, own_home: Path) -> None:
    _use(tmp_path)
    for directory in (own_home / "data", own_home / "cache"):
        modes = _modes(directory)
        assert len(modes) > 1, directory
        for name, mode in modes.items():
            assert mode == (0o700 if (directory / name).is_dir() else 0o600), name
    assert any(name.endswith(".kv") for name in _modes(own_home / "cache"))
    assert any("records" in name for name in _modes(own_home / "data"))


def test_directories_of_an_older_build_are_made_narrower(tmp_path: Path, own_home: Path) -> None:
    for name in ("data", "cache", "cache/prefixes"):
        (own_home / name).mkdir(parents=True)
        (own_home / name).chmod(0o755)
    _use(tmp_path)
    assert {_mode(own_home / name) for name in ("data", "cache", "cache/prefixes")} == {0o700}


def test_the_file_of_earlier_lines(umask: int, own_home: Path) -> None:
    from infer_cli.cli.chat.line import _history_path

    path = _history_path()
    assert path is not None
    assert (_mode(path), _mode(path.parent)) == (0o600, 0o700)


def test_model_files_and_output_stay_readable(umask: int, tmp_path: Path, own_home: Path) -> None:
    wanted = 0o666 & ~umask
    for path in (paths.models_dir() / "m" / "note.json", paths.config_dir() / "models.toml"):
        assert not is_private(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, [b"x"])
        assert _mode(path) == wanted
    rows, out = tmp_path / "rows.txt", tmp_path / "out.jsonl"
    rows.write_text("hello\n")
    assert infer("batch", "-m", "fake", rows, "-o", out).code == 0
    assert _mode(out) == wanted


def test_models_below_the_data_directory_can_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no INFER_HOME is set: others pass through, and can't list what is there."""
    monkeypatch.setattr("infer_cli.system.private_files.data_dir", lambda: tmp_path / "share" / "infer")
    monkeypatch.setattr(
        "infer_cli.system.private_files.models_dir", lambda: tmp_path / "share" / "infer" / "models"
    )
    make_private_dir(tmp_path / "share" / "infer" / "records")
    assert _mode(tmp_path / "share" / "infer") == 0o711
    assert _mode(tmp_path / "share" / "infer" / "records") == 0o700
    assert _mode(tmp_path / "share") & 0o055 == 0o055
    assert not is_private(tmp_path / "share" / "infer" / "models" / "m.gguf")


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "theirs"
    directory.mkdir(0o755)
    directory.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: directory.stat().st_uid + 1)
    make_private_dir(directory)
    assert _mode(directory) == 0o755
