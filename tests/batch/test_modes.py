"""Which mode a batch has: the one that was asked for, the one it was begun with, or the default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infer_cli.engine.mode_policy import OF_JOBS, OF_TALKS, ModelTraits, ModePolicy, choose
from infer_cli.types import Mode
from tests.batch_helpers import batch, digests, lines, prompts, write_rows
from tests.cli_helpers import Outcome, infer, lines_of, one_error_line
from tests.tiny_gguf import write_tiny_gguf


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", *prompts(3))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def default_policy(traits: ModelTraits, **more: Any) -> ModePolicy:
    return choose(OF_JOBS.mode, 16, traits, fallback=OF_JOBS.fallback, **more)


def test_the_default_is_the_strongest_promise_that_the_model_keeps() -> None:
    plain = default_policy(ModelTraits())
    assert (plain.mode, plain.promise, plain.passed_over) == ("invariant", "invariant", "")
    moe = default_policy(ModelTraits(moe=True))
    assert (moe.mode, moe.promise) == ("invariant", "invariant")

    own_types = default_policy(ModelTraits(), type_k="q8_0")
    assert (own_types.mode, own_types.promise, own_types.type_k) == ("canonical", "canonical", "q8_0")
    assert own_types.passed_over == "it needs its own KV cache types and flash attention"
    assert own_types.weaker_because == ""

    for traits in (ModelTraits(recurrent=True), ModelTraits(on_gpu=True)):
        none = default_policy(traits)
        assert (none.mode, none.promise) == ("canonical", "seed-only")
        assert none.passed_over and none.weaker_because


def test_a_fallback_is_only_for_the_default() -> None:
    asked = choose("invariant", 16, ModelTraits(on_gpu=True))
    assert (asked.mode, asked.promise, asked.passed_over) == ("invariant", "seed-only", "")
    assert (OF_TALKS.mode, OF_TALKS.fallback) == ("canonical", None)


def said(done: Outcome, out: Path) -> tuple[str, str]:
    """Mode and promise, which all lines have alike."""
    assert done.code == 0, done.err
    ((mode, promise),) = {(line["mode"], line["promise"]) for line in lines(out)}
    return mode, promise


def test_a_batch_is_invariant_and_says_so(rows: Path, out: Path, tmp_path: Path) -> None:
    done = batch(rows, "-o", out, "--summary", tmp_path / "summary.json")
    assert said(done, out) == ("invariant", "invariant")
    assert done.err.startswith("mode invariant, the default: what stands beside a reply does not change it\n")
    assert "\nmode invariant\n" in done.err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["mode"], summary["promise"], summary["quicker"]) == ("invariant", "invariant", [])
    record: Any
    (record,) = [line for line in lines_of(infer("records", "export").out) if line["kind"] == "batch"]
    assert ["invariant", "default"] in [[s["value"], s["origin"]] for s in record["settings"]]


def test_the_number_of_rows_bounds_the_slots(rows: Path, out: Path, tmp_path: Path) -> None:
    done = batch(rows, "-o", out, "--summary", tmp_path / "summary.json", "-n", 5)
    assert said(done, out) == ("invariant", "invariant")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["width"], summary["padding_share"]) == (3, 0)
    # More rows may come: the job is not held to so few slots.
    write_rows(rows, *prompts(30))
    assert batch(rows, "-o", out, "--summary", tmp_path / "summary.json", "-n", 5).code == 0
    assert json.loads((tmp_path / "summary.json").read_text())["width"] == 16


def test_replies_do_not_depend_on_the_number_of_rows(tmp_path: Path) -> None:
    tiny = str(write_tiny_gguf(tmp_path / "tiny.gguf"))
    found = {}
    for n in (1, 3):
        source, out = write_rows(tmp_path / f"{n}.jsonl", *prompts(n)), tmp_path / f"{n}.out"
        assert batch(source, "-o", out, "--raw", "-n", 4, "--quiet", model=tiny).code == 0
        found[n] = digests(out)
    assert found[1].items() <= found[3].items()
    alone = infer("run", "-m", tiny, "--raw", prompts(1)[0], "-n", 4, "--invariant", "--json").json
    assert alone["digest"] == found[1][0, 0]


def test_where_the_model_keeps_another_the_line_says_why(tmp_path: Path, out: Path) -> None:
    tiny = str(write_tiny_gguf(tmp_path / "tiny.gguf"))
    rows = write_rows(tmp_path / "in.jsonl", "one", "two")
    flags = ("--raw", "-n", 2, "--cache-type-k", "bf16")
    done = batch(rows, "-o", out, *flags, model=tiny)
    assert said(done, out) == ("canonical", "canonical")
    why = "it needs its own KV cache types and flash attention"
    assert f"mode canonical, not invariant: {why}\n" in done.err
    assert "warning" not in done.err, "the promise of canonical holds"
    assert done.err.endswith("quicker would be --parallel 2\n")
    again = batch(rows, "-o", out, *flags, model=tiny)
    assert (again.code, "mode canonical, as the job was begun\n" in again.err) == (0, True)


@pytest.mark.parametrize("mode", ["fast", "canonical", "invariant"])
def test_a_job_begun_in_a_mode_goes_on_in_it(rows: Path, out: Path, mode: Mode) -> None:
    done = batch(rows, "-o", out, "-n", 5, f"--{mode}")
    promise = "seed-only" if mode == "fast" else mode
    assert said(done, out) == (mode, promise)
    assert "as the job was begun" not in done.err and "the default" not in done.err
    before = json.loads(Path(f"{out}.job/job.json").read_text())["fingerprint"]
    write_rows(rows, *prompts(6))
    again = batch(rows, "-o", out, "-n", 5)
    assert said(again, out) == (mode, promise)
    assert len(lines(out)) == 6
    assert {line["engine"]["fingerprint"] for line in lines(out)} == {before}
    assert f"mode {mode}, as the job was begun\n" in again.err
    for other in {"fast", "canonical", "invariant"} - {mode}:
        refused = batch(rows, "-o", out, "-n", 5, f"--{other}")
        assert refused.code == 2
        assert f'mode was "{mode}", is "{other}"' in refused.err
    assert infer("verify", out, "--fraction", 1).code == 0


def test_a_job_file_without_a_mode_is_refused(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    path = Path(f"{out}.job/job.json")
    job = json.loads(path.read_text())
    job["engine"]["mode"] = "quick"
    path.write_text(json.dumps(job))
    one_error_line(batch(rows, "-o", out), 2, "job.json is not a batch's job file: engine is", "'quick'")


def test_flags_outdo_variables_and_variables_the_configuration(
    rows: Path, out: Path, tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Path(infer("config", "path").text.strip())
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("canonical = true\n")
    assert said(batch(rows, "-o", tmp_path / "a"), tmp_path / "a")[0] == "canonical"
    assert said(batch(rows, "-o", tmp_path / "b", "--fast"), tmp_path / "b")[0] == "fast"
    config.write_text("")
    monkeypatch.setenv("INFER_CANONICAL", "1")
    assert said(batch(rows, "-o", tmp_path / "c"), tmp_path / "c")[0] == "canonical"
    assert said(batch(rows, "-o", tmp_path / "d", "--invariant"), tmp_path / "d")[0] == "invariant"
    monkeypatch.setenv("INFER_FAST", "1")
    done = batch(rows, "-o", out)
    assert done.code == 2
    assert "INFER_FAST and INFER_CANONICAL exclude each other" in done.err


@pytest.mark.parametrize("command", ["run", "chat", "batch", "cache warm"])
@pytest.mark.parametrize("other", ["--fast", "--invariant"])
def test_modes_exclude_each_other_in_every_command(command: str, other: str, rows: Path, out: Path) -> None:
    more = {"run": ("hi",), "chat": (), "batch": (rows, "-o", out), "cache warm": ("-f", rows)}[command]
    done = infer(*command.split(), "-m", "fake", *more, "--canonical", other, stdin=b"")
    assert done.code == 2
    assert f"{other} and --canonical exclude each other" in done.err or (
        f"--canonical and {other} exclude each other" in done.err
    )


def test_canonical_can_be_asked_for_where_a_variable_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFER_FAST", "1")
    assert infer("run", "-m", "fake", "hi", "--json").json["mode"] == "fast"
    assert infer("run", "-m", "fake", "hi", "--json", "--canonical").json["mode"] == "canonical"


def test_shards_have_one_mode(rows: Path, tmp_path: Path) -> None:
    parts = [tmp_path / "part1", tmp_path / "part2"]
    for i, (part, flags) in enumerate(zip(parts, ([], ["--canonical"]), strict=True), 1):
        assert batch(rows, "-o", part, "--shard", f"{i}/2", *flags).code == 0
    done = infer("merge", *parts, "-o", tmp_path / "merged")
    assert done.code == 2
    assert 'mode was "invariant", is "canonical"' in done.err


def test_a_small_canonical_job_is_told_what_is_quicker(rows: Path, out: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    done = batch(rows, "-o", out, "--canonical", "--summary", summary)
    assert done.err.endswith(
        "each step had 16 rows, however few the replies: quicker would be --invariant or --parallel 3\n"
    )
    assert json.loads(summary.read_text())["quicker"] == ["--invariant", "--parallel 3"]
    for flags in (("--canonical", "--parallel", 3), ("--fast",), ()):
        other = batch(rows, "-o", tmp_path / f"{len(flags)}.out", *flags)
        assert other.code == 0 and "quicker would be" not in other.err
