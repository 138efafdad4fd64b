"""Weights as F16 in place of stored ones: when, with what room, what is said, and that it lasts for a job."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from infer_cli.backend.base import DecodeStatus
from infer_cli.batch.job import job_path
from infer_cli.batch.scanned import Scan
from infer_cli.errors import ExitStatus, OutOfMemory, UnexpectedFailure
from infer_cli.models.gguf.reading import read_model_header
from infer_cli.runtime import f16_weights as expansion
from infer_cli.runtime import llama_loading
from infer_cli.runtime.llama_environment import ProcessSwitches
from infer_cli.runtime.llama_loaded import LlamaLoaded
from infer_cli.runtime.llama_loading import LlamaLoader
from infer_cli.runtime.options import EngineOptions
from infer_cli.system import memory
from infer_cli.types import Mode
from tests.batch_helpers import batch, lines, write_rows
from tests.cli_helpers import INFER, REPO, infer, one_error_line
from tests.tiny_gguf import write_tiny_gguf

N_ROWS, N_TOKENS = 12, 400  # of text: a token a byte, more or less; together they are worth the look
FLAGS = ("--fast", "--raw", "-n", 2, "--parallel", 2)

Load = Callable[..., LlamaLoaded]


@pytest.fixture(autouse=True)
def _own_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modes may mix here: what they compute is not compared."""
    monkeypatch.setattr(llama_loading, "PROCESS_SWITCHES", ProcessSwitches())


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf", weight_type="Q4_1", n_ctx_train=1024)


@pytest.fixture
def load(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    def load(path: Path = tiny, *, mode: Mode = "fast", expand: bool = False) -> LlamaLoaded:
        options = EngineOptions(threads=1, mode=mode, expand=expand)
        loaded = LlamaLoader(path, options, 1, os.open(os.devnull, os.O_WRONLY)).loaded()
        assert not list(folder.iterdir())  # nothing is left
        return loaded

    return load


@pytest.mark.parametrize("descriptors", ["/proc/self/fd", "/nowhere"])
def test_the_same_weights_in_another_type(
    load: Load, monkeypatch: pytest.MonkeyPatch, descriptors: str
) -> None:
    monkeypatch.setattr(expansion, "_DESCRIPTORS", Path(descriptors))
    facts, logits = [], []
    for expand in (False, True):
        loaded = load(expand=expand)
        context = loaded.context(loaded.policy, 256)
        backend = loaded.open(context)
        ids = loaded.vocab.tokenize(b"the word and the world")
        n = len(ids)
        assert backend.decode(ids, list(range(n)), [0] * n, [True] * n) is DecodeStatus.OK
        logits.append(backend.logits(n).copy())
        facts.append(loaded.facts(loaded.policy, context))
        backend.close()
        loaded.close()
    stored, expanded = logits
    assert not np.array_equal(stored, expanded)
    assert np.corrcoef(stored.ravel(), expanded.ravel())[0, 1] > 0.99
    assert facts[1].as_json() == {**facts[0].as_json(), "weights": "f16"}
    options = EngineOptions.of_facts(facts[1], threads=1, ctx=None, loras=())
    assert options.expand and not EngineOptions.of_facts(facts[0], threads=1, ctx=None, loras=()).expand


@pytest.mark.parametrize("mode", ["canonical", "invariant"])
def test_a_promise_keeps_the_stored_weights(load: Load, mode: Mode) -> None:
    loaded = load(mode=mode, expand=True)
    assert "weights" not in loaded.facts(loaded.policy, loaded.context(loaded.policy, 256)).as_json()
    assert not loaded.may_expand(256)
    loaded.close()


def test_only_types_without_matrix_kernels_may_gain(load: Load, tmp_path: Path) -> None:
    loaded = load()
    assert loaded.may_expand(256)
    loaded.close()
    for weight_type in ("F16", "Q8_0"):
        loaded = load(write_tiny_gguf(tmp_path / "other.gguf", weight_type=weight_type))
        assert not loaded.may_expand(256)
        loaded.close()


def test_only_with_room_in_memory_and_on_disk(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load()
    monkeypatch.setattr(memory, "available_memory", lambda: 2**20)
    assert not loaded.may_expand(256)
    with pytest.raises(OutOfMemory, match="1 kB is available"):
        monkeypatch.setattr(memory, "available_memory", lambda: 1000)
        load(expand=True)
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    assert loaded.may_expand(256)
    full = SimpleNamespace(total=2**40, used=2**40 - 1000, free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: full)
    assert not loaded.may_expand(256)
    loaded.close()


def test_what_cannot_be_written(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = read_model_header(tiny)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UnexpectedFailure, match="nowhere"), expansion.expanded_copy(header, 1):
        pass
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tiny.unlink()
    with pytest.raises(UnexpectedFailure, match="could not write"), expansion.expanded_copy(header, 1):
        pass


def test_no_temporary_folder_at_all(load: Load, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose file system is read-only: the job does without."""
    loaded = load()

    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert not loaded.may_expand(256)
    loaded.close()
    header = read_model_header(tiny)
    with pytest.raises(UnexpectedFailure, match="No usable temporary"), expansion.expanded_copy(header, 1):
        pass


@pytest.mark.parametrize(
    ("n_beside", "n_prompt", "n_reply", "worth"),
    [
        (15, 4096, 0, True),
        (15, 4095, 0, False),
        (15, 10_000, 5000, True),
        (15, 10_000, 5001, False),
        (15, 100, 99_999, False),
        (16, 4096, 0, True),
        (16, 4095, 0, False),
        (16, 10_000, 50_000, True),
        (16, 0, 16_384, True),
        (16, 0, 16_383, False),
        (16, 1024, 12_288, True),  # a quarter, and three quarters
        (16, 1023, 12_288, False),
    ],
)
def test_jobs_that_are_worth_a_trial(n_beside: int, n_prompt: int, n_reply: int, worth: bool) -> None:
    scanned = Scan(
        n_prompt_tokens=3 * n_prompt, n_distinct_tokens=n_prompt, n_reply_tokens=n_reply, n_to_answer=1000
    )
    assert scanned.is_worth_trying_f16(n_beside) == worth


@pytest.mark.parametrize(("n_replies", "worth"), [(63, False), (64, True)])
def test_replies_may_end_long_before_they_must(n_replies: int, worth: bool) -> None:
    scanned = Scan(n_reply_tokens=1024 * n_replies, n_to_answer=n_replies)
    assert scanned.is_worth_trying_f16(16) == worth


# --- a batch ---------------------------------------------------------------------------------------


def _rows(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(97, 123, N_TOKENS))) for _ in range(N_ROWS)]
    return write_rows(tmp_path / "in.jsonl", *texts)


def _weights(out: Path) -> set[object]:
    return {line["engine"]["facts"].get("weights") for line in lines(out)}


def test_what_is_quicker_is_said_and_taken(tiny: Path, tmp_path: Path) -> None:
    """Which one it is depends on the machine."""
    rows, out = _rows(tmp_path), tmp_path / "out.jsonl"
    done = batch(rows, "-o", out, *FLAGS, model=str(tiny))
    assert done.code == 0, done.err
    (note,) = [line for line in done.err.splitlines() if "as F16 prompts are read" in line]
    taken = note.startswith("weights are F16 in memory")
    assert _weights(out) == {"f16" if taken else None}
    # Its engine has the same weights; without shared memory, digits still differ.
    checked = infer("verify", out, "-m", tiny, "--fraction", 1)
    assert checked.code in (ExitStatus.OK, ExitStatus.CHECK_FAILED), checked.err
    assert "weights" not in checked.text


@pytest.mark.parametrize("flags", [("--shard", "1/1"), ("--shard", "1/2"), ("-n", 512)])
def test_where_it_is_tried(tiny: Path, tmp_path: Path, flags: tuple[object, ...]) -> None:
    """A shard has the engine of the others; long replies leave reading too small a part."""
    rows, out = _rows(tmp_path), tmp_path / "out.jsonl"
    done = batch(rows, "-o", out, *FLAGS, *flags, model=str(tiny))
    assert done.code == 0, done.err
    tried = "as F16" in done.err
    assert tried == (flags == ("--shard", "1/1"))


@pytest.mark.parametrize("weights", ["f16", None])
def test_a_job_keeps_its_weights(tiny: Path, tmp_path: Path, weights: str | None) -> None:
    """Whatever would be quicker here, and though what is left alone would not call for it."""
    rows, out = _rows(tmp_path), tmp_path / "out.jsonl"
    assert batch(rows, "-o", out, *FLAGS, model=str(tiny)).code == 0
    _as_if_begun_with(weights, out)
    *kept, last = out.read_text().splitlines(keepends=True)
    out.write_text("".join(kept))
    done = batch(rows, "-o", out, *FLAGS, model=str(tiny))
    assert done.code == 0, done.err
    assert "as F16" not in done.err
    *_, again = lines(out)
    assert again["row"] == json.loads(last)["row"]
    assert again["engine"]["facts"].get("weights") == weights
    refused = batch(rows, "-o", out, *FLAGS[1:], "--canonical", model=str(tiny))
    one_error_line(refused, 2, "mode was", *(["weights was"] if weights else []))


def _as_if_begun_with(weights: str | None, out: Path) -> None:
    path = job_path(out)
    job = json.loads(path.read_text())
    job["engine"].pop("weights", None)
    if weights is not None:
        job["engine"]["weights"] = weights
    path.write_text(json.dumps(job))


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
def test_a_copy_that_cannot_be_written_leaves_the_stored_weights(tiny: Path, tmp_path: Path) -> None:
    rows, out = _rows(tmp_path), tmp_path / "out.jsonl"
    command = [*INFER, "batch", "-m", tiny, rows, "-o", out, *FLAGS]
    limited = ["bash", "-c", 'ulimit -f 256; exec "$@"', "-", *map(str, command)]  # KiB
    done = subprocess.run(limited, capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "weights are as they are stored: llama.cpp could not write" in warning
    assert _weights(out) == {None}
    assert "weights" not in json.loads(job_path(out).read_text())["engine"]
