"""The harness that loads damaged GGUF files: what it makes, and that a short run finds nothing."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from fuzz import gguf_load
from fuzz.gguf_mutations import mutated, read_parts, shrunk, write_parts
from infer_cli.models.gguf.check import check_model
from infer_cli.models.gguf.reading import read_header
from infer_cli.models.gguf.shape import ModelShape
from tests.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it waits for a pipe with select")


def test_a_file_comes_together_as_it_was(tmp_path: Path) -> None:
    source = write_tiny_gguf(tmp_path / "source.gguf")
    write_parts(read_parts(source), tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == source.read_bytes()


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    base = read_parts(write_tiny_gguf(tmp_path / "source.gguf"))
    files = []
    for seed in ("a", "a", "b"):
        write_parts(mutated(base, seed), tmp_path / "mutated.gguf")
        files.append((tmp_path / "mutated.gguf").read_bytes())
    assert files[0] == files[1] != files[2]


def test_a_shrunk_model_is_whole(tmp_path: Path) -> None:
    write_parts(shrunk(read_parts(write_tiny_gguf(tmp_path / "a.gguf"))), tmp_path / "small.gguf")
    header = read_header(tmp_path / "small.gguf")
    check_model(header)
    assert ModelShape(header).n_embd == 64


def test_a_short_run_finds_nothing() -> None:
    tally = gguf_load.fuzz(60, 7, [], io.StringIO())
    assert tally.bad == []
    assert sum(tally.outcomes.values()) == 60
    assert tally.outcomes["loaded"] > 5
    assert tally.outcomes["exit 4"] > 5


def test_a_death_is_noticed_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The child is a shell that dies of the first file."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nread line && kill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    tally = gguf_load.fuzz(2, 0, [], io.StringIO())
    assert tally.outcomes == {"crash": 2}
    assert [bad["seed"] for bad in tally.bad] == ["tiny:0:0", "window:0:1"]
    assert tally.bad[0]["what"].startswith("SIGSEGV")
