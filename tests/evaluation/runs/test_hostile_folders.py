"""The folder of a run may be anyone's: nothing outside it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.formats.writing import write_formats
from infer_cli.evaluation.runs.facts import read_facts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.task_groups import GROUPS_FILE, TaskGroups, forget_groups
from tests.cli_helpers import infer, one_error_line
from tests.evaluation.formats.made_runs import make_run
from tests.evaluation.runs.run_helpers import evaluate


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path, "generate")


def change_task(run: Path, **changed: str) -> None:
    path = run / "run.json"
    facts: dict[str, Any] = json.loads(path.read_bytes())
    facts["task"].update(changed)
    path.write_text(json.dumps(facts))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("source", ["task", "lm_eval"])
@pytest.mark.parametrize("name", ["x/../../../evil", "..\\..\\evil", "", "a\0b"])
def test_a_name_that_leads_elsewhere_is_no_tasks(run: Path, tmp_path: Path, name: str, source: str) -> None:
    change_task(run, name=name, source=source)
    date = next(run.glob("results_*.json")).name[len("results_") : -len(".json")]
    for folder in ("samples_x", f"{date}-00-00_x"):
        (run / folder).mkdir()
    before = contents(tmp_path)
    one_error_line(infer("rescore", run), 2, "run.json: task.name is missing or wrong")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["mmlu.v2_high-school", "leaderboard (math): 3,5", "…ünïcode"])
def test_tasks_of_another_program_have_names_of_their_own(run: Path, name: str) -> None:
    change_task(run, name=name, source="lm_eval")
    assert read_facts(run / "run.json").task.name == name
    written = write_formats(RunFolder(run))
    assert written.harness_samples.name.startswith(f"samples_{name}_2")
    assert all(path.parent == run and path.is_file() for path in written)


def outside(run: Path) -> Path:
    path = run.parent / "outside"
    path.write_text("mine")
    return path


@pytest.mark.parametrize(
    "name_of",
    [
        lambda _: "samples.jsonl",
        lambda _: "results.json",
        lambda run: next(run.glob("results_*.json")).name,
        lambda run: next(run.glob("samples_*.jsonl")).name,
        lambda run: next(run.glob("*.eval")).name,
    ],
)
def test_a_link_that_leads_out_is_refused(run: Path, name_of: Callable[[Path], str]) -> None:
    mine, link = outside(run), run / name_of(run)
    link.unlink()
    link.symlink_to(mine)
    done = infer("rescore", run)
    assert done.code == 2 and f"{link} leads out of {run}" in done.err
    assert mine.read_text() == "mine"


def test_a_link_in_place_of_a_file_that_is_being_written_is_not_followed(run: Path) -> None:
    mine = outside(run)
    for path in list(run.iterdir()):
        if path.is_file():
            (run / f".{path.name}.new").symlink_to(mine)
    for pattern in ("samples*.jsonl", "results*.json", "*.eval"):
        for path in run.glob(pattern):
            path.unlink()
    assert infer("rescore", run).code == 0
    task = run.parent / "sums.toml"
    task.write_text(task.read_text() + "# changed\n")
    done = evaluate(task, "--data", run.parent / "sums.jsonl", "-o", run, "--redo")
    assert done.code == 0, done.err
    assert mine.read_text() == "mine"


def test_groups_that_are_not_of_an_evaluation_stay(tmp_path: Path) -> None:
    path = tmp_path / GROUPS_FILE
    path.write_text('{"admins": ["me"]}')
    with pytest.raises(UsageError, match="not what `infer eval` wrote"):
        TaskGroups({}, ()).write(tmp_path)
    with pytest.raises(UsageError, match="not what `infer eval` wrote"):
        forget_groups(tmp_path)
    assert path.read_text() == '{"admins": ["me"]}'
    path.unlink()
    TaskGroups({}, ()).write(tmp_path)
    forget_groups(tmp_path)
    assert not path.exists()
    path.symlink_to(tmp_path / "elsewhere" / "x")
    with pytest.raises(UsageError, match="leads out"):
        TaskGroups({}, ()).write(tmp_path)


@pytest.mark.parametrize("name", ["task.toml", "run.json", "replies.jsonl"])
def test_no_run_goes_on_in_a_link(run: Path, name: str) -> None:
    mine, link = outside(run), run / name
    link.rename(run / "moved")
    mine.write_bytes((run / "moved").read_bytes())
    link.symlink_to(mine)
    before = mine.read_bytes()
    arguments = (run.parent / "sums.toml", "--data", run.parent / "sums.jsonl", "-o", run)
    one_error_line(evaluate(*arguments, "--limit", 2, "--redo"), 2, f"{link} leads out of {run}")
    assert mine.read_bytes() == before
