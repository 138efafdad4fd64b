"""Which model is suggested in place of the small default one, and that it is told once."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer_cli.cli.screen.suggesting import suggest_once
from infer_cli.cli.screen.terminal import Notices
from infer_cli.models import suggestion
from infer_cli.models.catalogue import load_catalogue
from infer_cli.models.suggestion import suggested_for
from tests.cli_helpers import infer

DEFAULT = "smollm2-135m-instruct"
GB = 10**9


def name_for(free_bytes: int | None, rate: float = 500.0) -> str | None:
    found = suggested_for(load_catalogue(), free_bytes, rate)
    return None if found is None else found.name


def test_the_largest_that_writes_as_fast_as_people_read() -> None:
    assert name_for(64 * GB, 70.0) == "qwen2.5-1.5b-instruct"
    assert name_for(64 * GB, 40.0) == "smollm2-360m-instruct"
    assert name_for(64 * GB, 5.0) is None
    found = suggested_for(load_catalogue(), 64 * GB, 500.0)
    small = load_catalogue().entries[DEFAULT].size
    assert found is not None and small is not None and found.rate == 500.0 * small / found.size


def test_the_largest_that_leaves_half_of_the_memory_to_others() -> None:
    assert name_for(64 * GB) == name_for(8 * GB) == "qwen3-4b-instruct-2507"
    assert name_for(4 * GB) == "qwen2.5-1.5b-instruct"
    assert name_for(2 * GB) == "smollm2-360m-instruct"
    assert name_for(GB) is None
    assert name_for(None) is None, "where the system does not say"


def test_all_that_are_suggested_may_be_used_by_anyone_and_answer() -> None:
    suggested = [entry for entry in load_catalogue().entries.values() if entry.suggested]
    assert len(suggested) == 3
    for entry in suggested:
        assert entry.licence == "Apache-2.0" and "Base model" not in (entry.notes or "")


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the test itself: the streams are others while fixtures are made."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("infer_cli.system.memory.available_memory", lambda: 16 * GB)


def told(
    capsys: pytest.CaptureFixture[str],
    model: str = DEFAULT,
    rate: float | None = 500.0,
    *,
    quiet: bool = False,
) -> str:
    suggest_once(model, rate, Notices(quiet=quiet, stats=None), quiet=quiet)
    return " ".join(capsys.readouterr().err.split())


def test_it_is_told_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    at_a_terminal(monkeypatch)
    first = told(capsys)
    assert "qwen3-4b-instruct-2507 (2.5 GB) too, at about 20 tokens a second" in first
    assert "`infer models default qwen3-4b-instruct-2507` makes it the default" in first
    assert told(capsys) == ""
    command = infer("models", "default", "qwen3-4b-instruct-2507")
    assert command.text == "qwen3-4b-instruct-2507\n", "the command that it names"


def test_who_is_not_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    at_a_terminal(monkeypatch)
    assert told(capsys, quiet=True) == ""
    assert told(capsys, "qwen3-4b") == "", "another model answered"
    assert told(capsys, rate=None) == "", "an answer of one token"
    for stream in ("sys.stdout.isatty", "sys.stderr.isatty"):
        with monkeypatch.context() as patched:
            patched.setattr(stream, lambda: False)
            assert told(capsys) == "", "a pipe"
    assert not suggestion.was_told(), "none of them has used the one time up"
    infer("models", "default", "qwen3-4b")
    assert told(capsys) == "", "the default is another one by now"


def test_what_can_not_be_kept_is_not_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_a_terminal(monkeypatch)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "data").write_text("no directory")
    monkeypatch.setenv("INFER_HOME", str(tmp_path / "home"))
    assert told(capsys) == ""
    (tmp_path / "home" / "config").mkdir()
    (tmp_path / "home" / "config" / "models.toml").write_text("wrong")
    assert told(capsys, "somewhere.gguf") == "", "what is wrong in the catalogue does not end a good answer"
    monkeypatch.setenv("INFER_HOME", str(tmp_path / "other"))
    monkeypatch.setattr("infer_cli.system.memory.available_memory", lambda: None)
    assert told(capsys) == ""
