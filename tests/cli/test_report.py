"""`infer report`, and the page that `infer eval` leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli_helpers import infer, one_error_line
from tests.evaluation.comparing.run_folders import right, write_run
from tests.evaluation.runs.run_helpers import evaluate, write_sums
from tests.integrations.extras import needs


def without_matplotlib(folder: Path) -> dict[str, str]:
    """An environment in which it can't be imported."""
    (folder / "hidden").mkdir()
    (folder / "hidden" / "sitecustomize.py").write_text("import sys\nsys.modules['matplotlib'] = None\n")
    path = [str(folder / "hidden"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path)}


class TestWithMatplotlib:
    pytestmark = needs("matplotlib")

    def test_the_page_that_an_evaluation_leaves_is_made_again(self, tmp_path: Path) -> None:
        task, data = write_sums(tmp_path)
        run = tmp_path / "run"
        assert evaluate(task, "--data", data, "-o", run).code == 0
        page = (run / "report.html").read_bytes()
        assert page.startswith(b"<!doctype html>")
        (run / "report.html").unlink()
        done = infer("report", run)
        assert (done.code, done.out) == (0, b"")
        assert str(run / "report.html") in done.err
        assert (run / "report.html").read_bytes() == page
        assert infer("report", run, "-o", "-").out == page

    def test_rescore_makes_it_again_where_there_is_one(self, tmp_path: Path) -> None:
        task, data = write_sums(tmp_path)
        run = tmp_path / "run"
        assert evaluate(task, "--data", data, "-o", run).code == 0
        before = (run / "report.html").read_bytes()
        copy = run / "task.toml"
        copy.write_text(copy.read_text().replace('kind = "contains"', 'kind = "not_empty"'))
        assert infer("rescore", run).code == 0
        assert (run / "report.html").read_bytes() != before
        (run / "report.html").unlink()
        assert infer("rescore", run).code == 0
        assert not (run / "report.html").exists()

    def test_of_a_folder_of_runs_each_gets_its_own(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            write_run(tmp_path / "runs" / name, right(1.0, 0.0))
        assert infer("report", tmp_path / "runs", "--quiet").err == ""
        for name in ("a", "b"):
            assert (tmp_path / "runs" / name / "report.html").exists()
        one_error_line(infer("report", tmp_path / "runs", "-o", tmp_path / "x"), 2, "has 2 runs")

    def test_two_runs_need_a_place(self, tmp_path: Path) -> None:
        a, b = write_run(tmp_path / "a", right(1.0, 0.0)), write_run(tmp_path / "b", right(1.0, 1.0))
        one_error_line(infer("report", a, b), 2, "-o says where")
        out = tmp_path / "page.html"
        assert infer("report", a, b, "-o", out).code == 0
        assert b"Differences with 95 % intervals" in out.read_bytes()
        assert not (a / "report.html").exists()

    @pytest.mark.parametrize(
        ("lacking", "said"),
        [("results.json", "has no results.json"), ("samples.jsonl", "has no samples.jsonl"),
         ("replies.jsonl", "replies.jsonl can't be read"), ("run.json", "has no run of")],
    )  # fmt: skip
    def test_a_folder_that_is_not_whole_is_one_line(self, tmp_path: Path, lacking: str, said: str) -> None:
        run = write_run(tmp_path / "run", right(1.0))
        (run / lacking).unlink()
        one_error_line(infer("report", run), 2, said)
        assert not (run / "report.html").exists()


def test_without_the_extra_an_evaluation_says_so_and_the_command_fails(tmp_path: Path) -> None:
    task, data = write_sums(tmp_path)
    run, hidden = tmp_path / "run", without_matplotlib(tmp_path)
    done = evaluate(task, "--data", data, "-o", run, env=hidden)
    assert done.code == 0
    assert done.err.count("pip install 'infer-cli[report]'") == 1
    assert not (run / "report.html").exists()
    one_error_line(infer("report", run, env=hidden), 2, "matplotlib", "pip install 'infer-cli[report]'")
    quiet = evaluate(task, "--data", data, "-o", tmp_path / "quiet", "--quiet", env=hidden)
    assert (quiet.code, quiet.err) == (0, "")


def test_an_old_page_does_not_outlive_its_scores(tmp_path: Path) -> None:
    task, data = write_sums(tmp_path)
    run, hidden = tmp_path / "run", without_matplotlib(tmp_path)
    assert evaluate(task, "--data", data, "-o", run, env=hidden).code == 0
    (run / "report.html").write_text("of before")
    assert "no report.html" in infer("rescore", run, env=hidden).err
    assert not (run / "report.html").exists()


def test_flags_that_have_no_meaning_are_refused(tmp_path: Path) -> None:
    one_error_line(infer("report", tmp_path, "--allow-different"), 2, "of two runs")
