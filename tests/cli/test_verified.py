"""`infer verify DIR` leaves what it has found in the run's results: where it holds, and never longer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infer_cli import __version__
from tests.cli.test_verify_run import (
    JUDGED,
    change,
    change_object,
    covered_up,
    edited_answer,
    edited_score,
    edited_value,
    removed_sample,
)
from tests.cli_helpers import infer, script, verify
from tests.evaluation.runs.run_helpers import evaluate, results_of, write_sums
from tests.integrations.extras import is_missing


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    task, data = write_sums(folder)
    assert evaluate(task, "--data", data, "-o", folder / "run").code == 0
    (folder / "run" / "report.html").unlink(missing_ok=True)  # drawn again each time, where it is there
    return folder / "run"


@pytest.fixture
def run(scored: Path, tmp_path: Path) -> Path:
    """A copy of a run that was not verified."""
    shutil.copytree(scored, tmp_path / "run")
    return tmp_path / "run"


WHOLE = {
    "fraction": 1.0,
    "check": "answers",
    "rows": 6,
    "rows_in_all": 6,
    "replies": 6,
    "same": 6,
    "challenge": None,
    "data": {"compared": True},
    "judge": None,
    "infer": __version__,
}


def test_what_was_found_is_in_the_results(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert results_of(run)["verified"] is None
    assert verify(run).code == 0
    assert results_of(run)["verified"] == WHOLE
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    change_object(run / "results.json", lambda results: results.update(verified=None))
    assert (run / "results.json").read_bytes() == before[run / "results.json"]
    assert {**after, run / "results.json": before[run / "results.json"]} == before
    assert verify(run).code == 0  # the same check has the same bytes
    assert (run / "results.json").read_bytes() == after[run / "results.json"]


def test_the_last_check_is_told(run: Path) -> None:
    assert verify(run).code == 0
    assert infer("verify", run, "--fraction", 0.3, "--challenge", "mine", "--tokens").code == 0
    changed = {"fraction": 0.3, "check": "tokens", "rows": 2, "replies": 2, "same": 2, "challenge": "mine"}
    assert results_of(run)["verified"] == {**WHOLE, **changed}
    change_object(run / "run.json", lambda facts: facts["data"].update(path="/no/such"))
    assert verify(run).code == 0
    assert results_of(run)["verified"] == {**WHOLE, "data": {"compared": False}}


def test_what_does_not_hold_is_not_marked(run: Path) -> None:
    edited_value(run)
    before = (run / "results.json").read_bytes()
    assert verify(run).code == 9
    assert (run / "results.json").read_bytes() == before


@pytest.mark.parametrize("forge", [edited_value, edited_score, edited_answer], ids=lambda each: each.__name__)
def test_a_check_that_fails_takes_an_earlier_one_back(run: Path, forge) -> None:  # type: ignore[no-untyped-def]
    assert verify(run).code == 0
    forge(run)
    before = results_of(run)
    assert before["verified"] == WHOLE
    assert verify(run).code == 9
    assert results_of(run) == {**before, "verified": None}
    assert verify(run).code == 9  # the forgery is not mended by that


def test_results_that_are_none_are_left(run: Path) -> None:
    (run / "results.json").write_text('{"verified": {"fraction": 1}}')
    assert verify(run).code == 9
    assert (run / "results.json").read_text() == '{"verified": {"fraction": 1}}'


def test_scoring_again_keeps_it_where_all_is_the_same(run: Path) -> None:
    assert verify(run).code == 0
    assert infer("rescore", run).code == 0
    assert results_of(run)["verified"] == WHOLE
    # A forged reply that scores as the one before: the results are the same, what was checked is not.
    change(
        run / "replies.jsonl", 0, lambda line: line.update(text=line["text"].replace("question", "Question"))
    )
    covered_up(run)
    results = results_of(run)
    assert results["verified"] is None
    assert results["scores"][0]["value"] == 0.5


def test_a_folder_that_cannot_be_written_to_is_told(run: Path) -> None:
    """A name that leaves no room for the temporary file beside it: root may write anywhere else."""
    kept = run.parent / ("r" * 250)
    (run / "results.json").rename(kept)
    (run / "results.json").symlink_to(kept)
    before = kept.read_bytes()
    done = verify(run)
    assert done.code == 0
    assert "holds: the score of sums" in done.text
    assert "Traceback" not in done.err
    (line,) = done.err.splitlines()
    assert "what was found is not in the results" in line
    assert "can't be written" in line
    assert kept.read_bytes() == before


def test_a_judge_is_told(tmp_path: Path) -> None:
    task, data = write_sums(tmp_path, 3, task=JUDGED)
    run, judge = tmp_path / "run", script(tmp_path, default_reply="It is worth 7.")
    assert evaluate(task, "--data", data, "-o", run, "--judge", judge).code == 0
    assert verify(run).code == 0
    of_three = {"check": "answers", "rows": 3, "rows_in_all": 3, "replies": 3, "same": 3, "challenge": None}
    assert results_of(run)["verified"] == {**WHOLE, **of_three, "judge": {"checked": True, **of_three}}


@pytest.mark.extras
@pytest.mark.skipif(is_missing("matplotlib"), reason="matplotlib is not installed")
def test_a_report_says_the_same(run: Path) -> None:
    report = run / "report.html"
    assert infer("report", run).code == 0
    before = report.read_bytes()
    assert verify(run).code == 0
    assert b"rows_in_all" in report.read_bytes()
    verified = report.read_bytes()
    assert infer("report", run).code == 0
    assert report.read_bytes() == verified
    edited_score(run)
    assert verify(run).code == 9
    assert b"rows_in_all" not in report.read_bytes()
    assert report.read_bytes() != before  # of the edited sample
    # Where no report can be drawn of damaged files, an old one does not stay.
    covered_up(run)
    assert verify(run).code == 0
    removed_sample(run)
    (run / "samples.jsonl").write_bytes((run / "samples.jsonl").read_bytes() + b"{}\n")
    done = verify(run)
    assert done.code == 9
    assert not report.exists()
    assert "no report.html: " in done.err
