"""Runs whose answers another model judges: its questions, its replies, and what comes of them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infer_cli.batch.rows import PROMPTS, Input
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.judging import JudgeReplies, judge_model
from infer_cli.evaluation.scorers.judge import MAX_TOKENS, Judge
from infer_cli.evaluation.scorers.registry import make_scorers
from infer_cli.evaluation.tasks.loading import read_task
from tests.cli_helpers import INFER, REPO, Outcome, infer, one_error_line, script

TASK = """
name = "essays"
version = "1"
kind = "generate"
[data]
path = "rows.jsonl"
id = "id"
[prompt]
text = "{{ question }}"
[[scorer]]
kind = "judge"
name = "quality"
prompt = "Rate it from 1 to 10.\\n{{ reply }}"
min = 1
max = 10
max_tokens = 400
"""
QUESTIONS = ["a 3", "b 10", "c eleven", "d 11", "a 3", "e 1"]
# What each question comes to: the fake model says it again, in the answer and in the verdict.
SCORES = [2 / 9, 1.0, 1.0, 0.0, 2 / 9, 0.0]  # of "c eleven" the last number is the 10 of the rubric


def write_task(folder: Path, text: str = TASK, questions: list[str] = QUESTIONS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "task.toml").write_text(text)
    rows = [{"id": f"i{n}", "question": question} for n, question in enumerate(questions)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "task.toml"


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return write_task(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    done = evaluate(write_task(folder), folder / "run")
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A run that was judged, to be changed at will."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def evaluate(task: Path, run: Path, *more: object, judge: object = "fake") -> Outcome:
    return infer("eval", task, "-o", run, "-m", "fake", "--judge", judge, *more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_are_judged(run: Path) -> None:
    samples = lines(run / "samples.jsonl")
    assert [sample["scores"]["quality"] for sample in samples] == pytest.approx(SCORES)
    assert samples[0]["explanations"] == {"quality": "the judge's verdict is 3"}
    assert samples[3]["outcome"] == "scorer_failed"
    assert samples[3]["explanations"] == {"quality": "the judge's verdict 11 is not a number from 1 to 10"}
    results = json.loads((run / "results.json").read_text())
    assert results["rates"]["scorer_failed"] == pytest.approx(1 / 6)
    assert results["scores"][0]["value"] == pytest.approx(sum(SCORES) / 6)
    assert results["config"]["judge"] == {"model": {"name": "fake", "sha256": None}, "mode": "invariant"}


def test_what_the_judge_is_asked_is_a_batch(run: Path, tmp_path: Path) -> None:
    """The same that `infer batch` answers, line by line. What is asked twice is one row."""
    asked = lines(run / "judge_requests.jsonl")
    assert asked[0] == {
        "custom_id": "i0/0/quality",
        "prompt": "Rate it from 1 to 10.\nYou said: a 3",
        "max_tokens": 400,
    }
    assert [row["custom_id"] for row in asked] == [f"i{n}/0/quality" for n in (0, 1, 2, 3, 5)]
    batch = infer(
        "batch", run / "judge_requests.jsonl", "-o", tmp_path / "out.jsonl", "-m", "fake", "--invariant"
    )
    assert batch.code == 0, batch.err

    def digests(path: Path) -> dict[str, str]:
        return {line["custom_id"]: line["digest"] for line in lines(path)}

    assert digests(run / "judge.jsonl") == digests(tmp_path / "out.jsonl")
    assert all(line["params"]["temperature"] == 0 for line in lines(run / "judge.jsonl"))


def test_rescoring_asks_nobody(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    (run / "samples.jsonl").unlink()
    done = infer("rescore", run)
    assert done.code == 0, done.err
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_without_its_replies_nothing_is_scored(task: Path, run: Path) -> None:
    (run / "judge.jsonl").unlink()
    assert infer("rescore", run).code == 0
    samples = lines(run / "samples.jsonl")
    assert {sample["outcome"] for sample in samples} == {"scorer_failed"}
    assert samples[0]["explanations"] == {"quality": "its judge has not been asked"}
    done = evaluate(task, run)  # which goes on
    assert done.code == 0, done.err
    assert [s["scores"]["quality"] for s in lines(run / "samples.jsonl")] == pytest.approx(SCORES)


def test_a_judge_goes_on_where_it_was_stopped(task: Path, run: Path) -> None:
    whole = (run / "judge.jsonl").read_bytes()
    first, rest = whole.split(b"\n", 1)
    (run / "judge.jsonl").write_bytes(first + b"\n" + rest[:40])  # torn, as a power cut leaves it
    (run / "samples.jsonl").unlink()
    done = evaluate(task, run)
    assert done.code == 0, done.err
    assert "4 of 5 replies" not in done.out.decode()
    again = lines(run / "judge.jsonl")
    assert {line["digest"] for line in again} == {json.loads(line)["digest"] for line in whole.splitlines()}
    assert (run / "judge.jsonl").read_bytes().startswith(first + b"\n")  # it was not answered again
    assert [s["scores"]["quality"] for s in lines(run / "samples.jsonl")] == pytest.approx(SCORES)


def test_a_killed_judge_goes_on(task: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    slow = script(tmp_path, token_s=0.002)
    command = [*INFER, "eval", task, "-o", run, "-m", "fake", "--judge", slow]
    with subprocess.Popen(list(map(str, command)), cwd=REPO, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not _n_lines(run / "judge.jsonl"):
            pass
        process.send_signal(signal.SIGKILL)
    n_before = _n_lines(run / "judge.jsonl")
    assert n_before
    done = evaluate(task, run, judge=slow)
    assert done.code == 0, done.err
    assert _n_lines(run / "judge.jsonl") == 5
    assert [s["scores"]["quality"] for s in lines(run / "samples.jsonl")] == pytest.approx(SCORES)


def _n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_error_rows_and_cut_replies_are_no_verdicts(tmp_path: Path) -> None:
    """A judge whose window is too small for one answer, and whose reply to another is cut."""
    task = write_task(
        tmp_path, TASK.replace("max_tokens = 400", "max_tokens = 30"), ["short 5", "x" * 600, "y" * 40 + " 7"]
    )
    run = tmp_path / "run"
    done = evaluate(task, run, judge=script(tmp_path, n_ctx_train=256, default_reply="7"))
    assert done.code == 8, done.err  # as `infer batch` says it
    samples = lines(run / "samples.jsonl")
    assert samples[0]["scores"]["quality"] == pytest.approx(6 / 9)
    assert samples[1]["outcome"] == "scorer_failed"
    assert samples[1]["explanations"]["quality"].startswith("the judge's reply failed: ")
    long = evaluate(task, tmp_path / "long", judge=script(tmp_path, default_reply="so " * 20 + "7"))
    assert long.code == 0, long.err
    assert lines(tmp_path / "long" / "samples.jsonl")[0]["explanations"] == {
        "quality": "the judge's reply was cut: length, max_tokens 30"
    }


def test_an_answer_that_is_another_one_now_is_judged_again(task: Path, run: Path, tmp_path: Path) -> None:
    kept = lines(run / "judge.jsonl")[0]
    write_task(tmp_path, TASK, ["a 3", "b 10", "new 2", *QUESTIONS[3:]])
    refused = evaluate(task, run)
    one_error_line(refused, 2, "was begun with something else")
    done = evaluate(task, run, "--redo")
    assert done.code == 0, done.err
    assert lines(run / "samples.jsonl")[2]["scores"]["quality"] == pytest.approx(1 / 9)
    assert kept in lines(run / "judge.jsonl")  # what is asked again has its answer already


def test_another_judge_is_refused(task: Path, run: Path, tmp_path: Path) -> None:
    other = script(tmp_path, default_reply="10")
    one_error_line(evaluate(task, run, judge=other), 2, "judge.jsonl was begun with other settings", "--redo")
    done = evaluate(task, run, "--redo", judge=other)
    assert done.code == 0, done.err
    assert {s["scores"]["quality"] for s in lines(run / "samples.jsonl")} == {1.0}


def test_each_seed_and_sample_is_judged(task: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = evaluate(task, run, "--seeds", 2, "--samples", 2, "-t", 1, "--limit", 2)
    assert done.code == 0, done.err
    ids = [row["custom_id"] for row in lines(run / "judge_requests.jsonl")]
    assert set(ids) <= {
        f"i{item}@{seed}/{sample}/quality" for item in (0, 1) for seed in (0, 1) for sample in (0, 1)
    }
    assert {"i0@0/0/quality", "i1@0/0/quality"} <= set(ids)
    assert all(sample["explanations"]["quality"] for sample in lines(run / "samples.jsonl"))


def test_an_answer_is_text_to_the_judge(tmp_path: Path) -> None:
    """What looks like the judge's own markup is characters: ten tokens of a byte each, not one."""
    answers = {"a": "<|im_end|>", "b": "1234567890"}
    task = write_task(tmp_path, questions=list(answers))
    run = tmp_path / "run"
    model = tmp_path / "model.json"
    model.write_text(json.dumps({"replies": answers}))
    done = infer("eval", task, "-o", run, "-m", f"fake:{model}", "--judge", "fake")
    assert done.code == 0, done.err
    assert lines(run / "samples.jsonl")[0]["answer"] == "<|im_end|>"
    tokens = [line["usage"]["prompt_tokens"] for line in lines(run / "judge.jsonl")]
    assert tokens[0] == tokens[1]


def test_a_judge_that_nobody_names_is_told_before_the_first_answer(task: Path, tmp_path: Path) -> None:
    done = infer("eval", task, "-o", tmp_path / "run", "-m", "fake")
    one_error_line(done, 2, "a scorer needs a model that judges", "--judge MODEL")
    assert not (tmp_path / "run").exists()
    missing = evaluate(task, tmp_path / "run", judge="/nowhere/judge.gguf")
    one_error_line(missing, 3, "/nowhere/judge.gguf")
    assert not (tmp_path / "run").exists()


def test_a_shard_is_not_judged_alone(task: Path, tmp_path: Path) -> None:
    done = evaluate(task, tmp_path / "run", "--shard", "1/2")
    assert done.code == 0, done.err
    assert not (tmp_path / "run" / "judge.jsonl").exists()


def _judges(*models: str | None) -> list[Judge]:
    tables = [TASK]
    for n, model in enumerate(models):
        named = "" if model is None else f'model = "{model}"\n'
        tables.append(f'[[scorer]]\nkind = "judge"\nname = "j{n}"\nprompt = "x"\nmin = 0\nmax = 1\n{named}')
    made = make_scorers(read_task("".join(tables), "t.toml"), allow_code=False)
    return [judge for judge in made if isinstance(judge, Judge)]


def test_which_model_judges() -> None:
    assert judge_model(_judges("m"), None) == "m"
    assert judge_model(_judges("m", "m"), None) == "m"
    assert judge_model(_judges("m", "n"), "given") == "given"
    with pytest.raises(UsageError, match="several models that judge: m, n"):
        judge_model(_judges("m", "n"), None)
    with pytest.raises(UsageError, match="needs a model that judges"):
        judge_model(_judges(None), None)


def test_replies_are_found_by_what_was_asked(run: Path) -> None:
    folder = RunFolder(run)
    replies = JudgeReplies(folder)
    question = "Rate it from 1 to 10.\nYou said: a 3"
    found = replies.find(question, 400)
    assert found is not None and found["text"] == f"You said: {question}"
    assert replies.find(question, MAX_TOKENS) is None
    assert replies.find("another", 400) is None
    # An edited question does not get the reply to the one that was there.
    text = folder.judge_requests.read_text().replace("said: a 3", "said: a 4")
    folder.judge_requests.write_text(text)
    assert JudgeReplies(folder).find(question, 400) is None
    assert JudgeReplies(folder).find(question.replace("a 3", "a 4"), 400) is None
    assert (
        sum(row.asked is not None for row in Input(str(folder.judge_requests), "jsonl", shape=PROMPTS).rows())
        == 5
    )


def test_a_run_without_a_judge_has_none_of_its_files(tmp_path: Path) -> None:
    text = TASK.split("[[scorer]]")[0] + '[[scorer]]\nkind = "not_empty"\n'
    task = write_task(tmp_path, text)
    assert evaluate(task, tmp_path / "run").code == 0
    assert not list((tmp_path / "run").glob("judge*"))
    shutil.rmtree(tmp_path / "run")
