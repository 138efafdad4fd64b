"""A run is begun in a folder of its own: what a user has there stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from infer_cli.evaluation.runs.beginning import Invocation, begin_run
from infer_cli.evaluation.runs.facts import RunFacts, Scoring
from infer_cli.evaluation.runs.folder import COPIES, RunFolder
from infer_cli.evaluation.runs.task_source import open_task
from infer_cli.evaluation.tasks.selection import Selection
from infer_cli.prompt.renderer import closed_at_end
from tests.cli_helpers import one_error_line
from tests.evaluation.runs.run_helpers import evaluate, write_sums

NAMES = (*COPIES, "items.jsonl", "fewshot.jsonl", "requests.jsonl", "replies.jsonl", "results.json")


@pytest.fixture
def sums(tmp_path: Path) -> list[object]:
    task, data = write_sums(tmp_path)
    return [task, "--data", data]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("name", NAMES)
def test_a_users_own_files_are_not_written_over(sums: list[object], tmp_path: Path, name: str) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / name).write_text("mine")
    (own / "notes.txt").write_text("mine too")
    done = evaluate(*sums, "-o", own)
    one_error_line(done, 2, f"{own / name} was not written by `infer eval`", "name a new folder after -o")
    assert contents(own) == {name: b"mine", "notes.txt": b"mine too"}


def test_the_data_may_be_called_as_a_file_of_the_run(tmp_path: Path) -> None:
    task, data = write_sums(tmp_path)
    items = data.rename(tmp_path / "items.jsonl")
    before = contents(tmp_path)
    done = evaluate(task, "--data", items, "-o", tmp_path)
    one_error_line(done, 2, "items.jsonl was not written by")
    assert contents(tmp_path) == before


def test_a_folder_with_other_files_may_hold_a_run(sums: list[object], tmp_path: Path) -> None:
    """That of the task and its data."""
    before = contents(tmp_path)
    assert evaluate(*sums, "-o", tmp_path).code == 0
    assert before.items() <= contents(tmp_path).items()
    assert not RunFolder(tmp_path).beginning.exists()


def test_a_beginning_that_fails_leaves_nothing_that_could_be_a_runs(
    sums: list[object], tmp_path: Path
) -> None:
    run, data = tmp_path / "run", Path(str(sums[2]))
    text = data.read_text()
    data.write_text(text.replace('"question": "question 5', '"questions": "question 5'))
    assert evaluate(*sums, "-o", run).code == 2
    assert list(run.iterdir()) == []
    (run / "task.py").write_text("mine")
    data.write_text(text)
    one_error_line(evaluate(*sums, "-o", run), 2, "task.py was not written by")
    assert contents(run) == {"task.py": b"mine"}


def test_a_file_beside_the_copy_stays_when_a_run_begins_again(sums: list[object], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert evaluate(*sums, "-o", run).code == 0
    (run / "task.py").write_text("mine")
    before = contents(run)
    one_error_line(evaluate(*sums, "-o", run, "--limit", 2, "--redo"), 2, "task.py was not written by")
    assert contents(run) == before


def begin(folder: Path, task: Path, data: Path, *, limit: int | None = None, redo: bool = False) -> RunFacts:
    selection = Selection(str(data), limit, (), None, None, (), None)
    with closed_at_end():
        source = open_task(str(task), selection, allow_code=False)
        return begin_run(RunFolder(folder), source, Scoring(), Invocation(("infer",), "1"), redo=redo)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that is killed is a fork")
@pytest.mark.parametrize("begins_again", [False, True])
def test_a_beginning_that_is_killed_at_any_step_goes_on(tmp_path: Path, *, begins_again: bool) -> None:
    """A step is a file that is made, put in its place or removed."""
    task, data = write_sums(tmp_path)
    n_killed = 0
    for step in range(1, 40):
        run = tmp_path / f"run{step}"
        if begins_again:
            begin(run, task, data, limit=2)
            RunFolder(run).replies.write_text("")
        process = os.fork()
        if not process:
            die_at(step)
            begin(run, task, data, redo=begins_again)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0:
            break
        n_killed += 1
        facts = begin(run, task, data, redo=begins_again)
        assert facts.n_items == 6, step
        assert RunFolder(run).requests.read_bytes().count(b"\n") == 6, step
        assert {path.name for path in run.iterdir()} - {"replies.jsonl", "replies.jsonl.job"} == {
            "run.json", "task.toml", "items.jsonl", "fewshot.jsonl", "requests.jsonl"
        }, step  # fmt: skip
    assert n_killed > 8


def die_at(step: int) -> None:
    """End this process before it does its nth step."""
    left = step

    def dying(of: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if not left:
                os._exit(9)
            return of(*arguments, **named)

        return call

    for name in ("mkdir", "touch", "replace", "unlink"):
        setattr(Path, name, dying(getattr(Path, name)))
