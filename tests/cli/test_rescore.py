"""`infer rescore`: the same files again, or those of an edited task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from infer_cli.system.hashing import sha256_hex
from tests.cli_helpers import infer, one_error_line
from tests.evaluation.runs.run_helpers import evaluate, results_of, samples_of, write_sums


@pytest.fixture
def run(tmp_path: Path) -> Path:
    task, data = write_sums(tmp_path)
    folder = tmp_path / "run"
    assert evaluate(task, "--data", data, "-o", folder).code == 0
    return folder


def test_nothing_changes_where_nothing_was_changed(run: Path) -> None:
    before = {name: (run / name).read_bytes() for name in ("samples.jsonl", "results.json")}
    done = infer("rescore", run)
    assert done.code == 0
    assert "unchanged" in done.err
    assert {name: (run / name).read_bytes() for name in before} == before
    assert "promise invariant" in done.text


def test_files_that_are_lost_or_forged_are_made_again(run: Path) -> None:
    wanted = (run / "samples.jsonl").read_bytes()
    (run / "samples.jsonl").write_bytes(wanted.replace(b'"has": 0.0', b'"has": 1.0'))
    results = json.loads((run / "results.json").read_bytes())
    results["scores"][0]["value"] = 1.0
    (run / "results.json").write_text(json.dumps(results))
    done = infer("rescore", run)
    assert "have changed" in done.err
    assert (run / "samples.jsonl").read_bytes() == wanted
    assert results_of(run)["scores"][0]["value"] == 0.5
    (run / "results.json").unlink()
    assert infer("rescore", run, "--quiet").code == 0
    assert results_of(run)["scores"][0]["value"] == 0.5


def test_an_edited_task_gives_new_scores_and_its_hash(run: Path) -> None:
    before = results_of(run)
    task = run / "task.toml"
    task.write_text(task.read_text().replace('kind = "contains"', 'kind = "not_empty"'))
    done = infer("rescore", run)
    assert done.code == 0
    assert "the task's copy in the folder was changed" in done.err
    results = results_of(run)
    assert results["scores"][0]["value"] == 1.0
    assert results["hashes"]["task"] == sha256_hex(task.read_bytes()) != before["hashes"]["task"]
    assert results["hashes"]["template"] == before["hashes"]["template"]


def test_an_edited_reply_is_scored_as_it_is_now(run: Path) -> None:
    replies = run / "replies.jsonl"
    replies.write_bytes(replies.read_bytes().replace(b"You said: question 0 of 6", b"is 0! right, isn't it"))
    assert "have changed" in infer("rescore", run).err
    assert [sample["scores"]["has"] for sample in samples_of(run)] == [1, 1, 0, 1, 0, 1]


def test_several_runs_and_folders_of_runs(run: Path, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    run.rename(shelf / "one")
    done = infer("rescore", shelf, "--json")
    assert done.code == 0
    assert [value["task"]["name"] for value in json.loads(done.out)] == ["sums"]


def test_what_is_no_run_is_named(run: Path, tmp_path: Path) -> None:
    one_error_line(infer("rescore", tmp_path / "nowhere"), 2, "has no run")
    (run / "replies.jsonl.job" / "job.json").unlink()
    one_error_line(infer("rescore", run), 2, "replies.jsonl.job is missing")
    (run / "run.json").write_text("{}")
    one_error_line(infer("rescore", run), 2, "run.json")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("task.toml", "name = 3", ("task.toml",)),
        ("items.jsonl", "{}\n", ("items.jsonl: line 1",)),
        ("requests.jsonl", "", ("requests.jsonl",)),
        ("replies.jsonl", "nonsense\n{}\n", ("replies.jsonl",)),
    ],
)
def test_a_damaged_file_is_one_line(run: Path, name: str, text: str, words: tuple[str, ...]) -> None:
    (run / name).write_text(text)
    one_error_line(infer("rescore", run), 2, *words)


def test_a_reply_that_is_there_twice_is_refused(run: Path) -> None:
    replies = run / "replies.jsonl"
    first, *rest = replies.read_bytes().splitlines(keepends=True)
    replies.write_bytes(b"".join([first, first, *rest]))
    one_error_line(infer("rescore", run), 2, "answered twice")


def test_a_run_of_a_python_task_may_lie_elsewhere(tmp_path: Path) -> None:
    """What its code raises stands in the samples, which don't depend on where the folder is."""
    task = tmp_path / "own.py"
    task.write_text(
        'TASK = {"name": "own", "version": "1", "kind": "generate", "scorer": [{"kind": "function"}]}\n'
        'def items(): return [{"i": 0}, {"i": 1}]\n'
        "def prompt(doc): return f\"hello {doc['i']}\"\n"
        "def score(text, doc):\n"
        '    if doc["i"]: raise ValueError("no \\x1b[31mway")\n'
        "    return 1\n"
    )
    run = tmp_path / "run"
    done = evaluate(task, "-o", run, "--allow-code")
    assert done.code == 0, done.err
    said = "own, fake: 50.0% of the answers could not be scored; the first is 1: score() failed in line 5"
    assert said in done.err and "\x1b" not in done.err
    assert str(tmp_path) not in (run / "samples.jsonl").read_text()
    elsewhere = shutil.copytree(run, tmp_path / "elsewhere")
    done = infer("rescore", elsewhere, "--allow-code")
    assert f"{elsewhere}: unchanged" in done.err, done.err
    assert infer("verify", elsewhere, "--allow-code", "--fraction", "1", "-m", "fake").code == 0


def test_the_scores_come_before_the_files_of_other_programs(run: Path) -> None:
    (harness,) = run.glob("results_*.json")
    harness.unlink()
    harness.mkdir()
    done = infer("rescore", run)
    assert "promise invariant" in done.text
    assert done.code == 1 and harness.name in done.err
