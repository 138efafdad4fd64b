"""`infer eval` as a user calls it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from infer_cli.backend.fake import CHAT_TEMPLATE
from infer_cli.batch.job import lock_path
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.system.files import lock
from tests.cli_helpers import INFER, REPO, infer, one_error_line, script
from tests.evaluation.runs.run_helpers import (
    SUMS,
    evaluate,
    results_of,
    samples_of,
    scores_of,
    write_lines,
    write_pairs,
    write_sums,
)
from tests.terminal import Terminal


@pytest.fixture
def sums(tmp_path: Path) -> list[object]:
    """A task whose score is 0.5 with the fake model, and its data."""
    task, data = write_sums(tmp_path)
    return [task, "--data", data]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


# --- what comes of it -----------------------------------------------------------------------------


def test_the_table_is_the_answer_and_its_first_line_says_what_it_is_worth(
    sums: list[object], run: Path
) -> None:
    done = evaluate(*sums, "-o", run)
    first, heading, row, *more = done.text.splitlines()
    assert (done.code, first) == (0, "promise invariant, what failed counts as wrong")
    assert heading.split() == ["task", "model", "metric", "value", "95", "%", "interval", "n"]
    assert row.split() == ["sums", "fake", "has", "0.5", "0.1876", "to", "0.8124", "6"]
    assert [line.split()[0] for line in more] == ["mean", "even", "odd"]
    assert "6 of 6 replies" in done.err


def written_formats(run: Path) -> list[str]:
    """Names of the files of other programs."""
    found = [
        sorted(run.glob(pattern)) for pattern in ("results_*.json", "samples_sums_*.jsonl", "*_sums_*.eval")
    ]
    return [path.name for (path,) in found]


def test_the_folder_has_all_that_the_score_came_of(sums: list[object], run: Path) -> None:
    evaluate(*sums, "-o", run)
    names = {path.name for path in run.iterdir()} - {"report.html"}  # which needs an extra
    assert names == {
        "run.json", "task.toml", "items.jsonl", "fewshot.jsonl", "requests.jsonl", "replies.jsonl",
        "replies.jsonl.job", "samples.jsonl", "results.json", *written_formats(run),
    }  # fmt: skip
    assert (run / "task.toml").read_bytes() == Path(str(sums[0])).read_bytes()
    samples = samples_of(run)
    assert [sample["scores"]["has"] for sample in samples] == [0, 1, 0, 1, 0, 1]
    assert [sample["item"] for sample in samples] == [f"q{i}" for i in range(6)]
    replies = [json.loads(line) for line in (run / "replies.jsonl").read_bytes().splitlines()]
    assert {reply["digest"] for reply in replies} == {s["digests"][0] for s in samples}
    results = results_of(run)
    assert (results["n"], results["n_asked"], results["limit"]) == (6, 6, None)
    assert results["command"][:2] == ["infer", "eval"]
    assert "began_at" in results and results["promise"] == "invariant"


def test_replies_are_those_of_batch(sums: list[object], run: Path, tmp_path: Path) -> None:
    evaluate(*sums, "-o", run)
    out = tmp_path / "out.jsonl"
    assert infer("batch", "-m", "fake", run / "requests.jsonl", "-o", out, "-n", 40).code == 0
    there, here = (
        {line["custom_id"]: line["digest"] for line in map(json.loads, path.read_bytes().splitlines())}
        for path in (out, run / "replies.jsonl")
    )
    assert there == here


def test_likelihoods_are_those_of_score(tmp_path: Path, run: Path) -> None:
    task, data = write_pairs(tmp_path)
    assert evaluate(task, "--data", data, "-o", run).code == 0
    out = tmp_path / "out.jsonl"
    assert infer("score", "-m", "fake", run / "requests.jsonl", "-o", out).code == 0
    there, here = (
        {line["custom_id"]: line["digest"] for line in map(json.loads, path.read_bytes().splitlines())}
        for path in (out, run / "replies.jsonl")
    )
    assert there == here
    assert results_of(run)["scores"][0]["value"] == 1.0  # the shorter sentence is likelier


def test_json_is_one_array_of_all_results(sums: list[object], run: Path) -> None:
    done = evaluate(*sums, "-o", run, "--json", "--quiet")
    assert json.loads(done.out) == [results_of(run)]
    assert done.err == ""


def test_several_tasks_and_models_have_one_table(sums: list[object], run: Path, tmp_path: Path) -> None:
    task, data = write_pairs(tmp_path)
    other = script(tmp_path, default_reply="nothing")
    done = evaluate(
        sums[0], task, "--data", f"sums={sums[2]}", "--data", f"pairs={data}", "-o", run, "-m", other
    )
    assert done.code == 0, done.err
    folders = sorted(str(path.parent.relative_to(run)) for path in run.glob("*/*/run.json"))
    assert len(folders) == 4 and folders[:2] == ["fake/pairs", "fake/sums"]
    rows = [line.split() for line in done.text.splitlines()[2:] if not line.startswith((" ", "note"))]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("sums", "has", "0.5"), ("pairs", "acc", "1"), ("sums", "has", "0"), ("pairs", "acc", "1"),
    ]  # fmt: skip
    assert results_of(run / "fake" / "sums")["scores"][0]["value"] == 0.5


def test_tasks_that_would_share_a_folder_are_refused(sums: list[object], run: Path) -> None:
    done = evaluate(sums[0], sums[0], "--data", sums[2], "-o", run)
    one_error_line(done, 2, "would have one folder")
    assert not run.exists()


# --- what is chosen -------------------------------------------------------------------------------


def test_a_limit_is_said_first_and_in_the_results(sums: list[object], run: Path) -> None:
    done = evaluate(*sums, "-o", run, "--limit", 4)
    assert done.text.startswith("promise invariant, 4 of 6 items (--limit 4), what failed counts as wrong\n")
    assert (results_of(run)["limit"], results_of(run)["n"]) == (4, 4)


def test_ids_choose_items(sums: list[object], run: Path, tmp_path: Path) -> None:
    done = evaluate(*sums, "-o", run, "--ids", "q1,q3")
    assert done.text.startswith("promise invariant, 2 of 6 items (--ids), ")
    (tmp_path / "ids").write_text("q1\nq3\n")
    again = evaluate(*sums, "-o", tmp_path / "again", "--ids", f"@{tmp_path / 'ids'}")
    assert again.code == 0
    assert scores_of(run) == scores_of(tmp_path / "again")
    one_error_line(evaluate(*sums, "-o", tmp_path / "r", "--ids", "q1,zz"), 2, "zz")
    one_error_line(evaluate(*sums, "-o", tmp_path / "r", "--ids", "@nowhere"), 2, "nowhere")


def test_seeds_and_samples(sums: list[object], run: Path) -> None:
    done = evaluate(*sums, "-o", run, "--seeds", 3, "--samples", 2, "-t", "0.5", "--seed", 5)
    assert done.code == 0, done.err
    samples = samples_of(run)
    assert [(s["item"], s["seed"], s["sample"]) for s in samples[:7]] == [
        ("q0", 5, 0), ("q0", 5, 1), ("q0", 6, 0), ("q0", 6, 1), ("q0", 7, 0), ("q0", 7, 1), ("q1", 5, 0),
    ]  # fmt: skip
    results = results_of(run)
    assert [score["metric"] for score in results["scores"]] == [
        "has", "has pass@1", "has pass@2", "has majority",
    ]  # fmt: skip
    assert len(results["scores"][0]["seeds"]["values"]) == 3
    assert "standard deviation" in done.text


@pytest.mark.parametrize("flag", ["--seeds", "--samples"])
def test_greedy_replies_are_not_asked_for_several_times(sums: list[object], run: Path, flag: str) -> None:
    one_error_line(evaluate(*sums, "-o", run, flag, 2), 2, flag, "greedy")
    assert not run.exists()


def test_a_seed_that_nobody_gave_is_the_same_each_time(sums: list[object], run: Path, tmp_path: Path) -> None:
    for folder in (run, tmp_path / "again"):
        assert evaluate(*sums, "-o", folder, "-t", "1").code == 0
    assert scores_of(run) == scores_of(tmp_path / "again")


def test_flags_of_replies_have_no_meaning_for_likelihoods(tmp_path: Path, run: Path) -> None:
    task, data = write_pairs(tmp_path)
    for flag, value in (("-t", "1"), ("-n", 5), ("--stop", "x"), ("--samples", 2), ("--system", "Hi")):
        done = evaluate(task, "--data", data, "-o", tmp_path / "x", flag, value)
        one_error_line(done, 2, "has no meaning for pairs")
        assert not (tmp_path / "x").exists()


def test_what_failed_counts_or_is_left_out(sums: list[object], run: Path, tmp_path: Path) -> None:
    done = evaluate(*sums, "-o", run, "-n", 29)  # too few tokens for the longer replies
    assert "50.0%" in done.text and "cut" in done.text.splitlines()[1]
    assert results_of(run)["scores"][0]["value"] == 0.0
    again = evaluate(*sums, "-o", run, "-n", 29, "--exclude-errors")
    assert again.text.startswith("promise invariant, what failed is left out (--exclude-errors)\n")
    assert (results_of(run)["scores"][0]["n"], results_of(run)["rates"]["cut"]) == (3, 0.5)


def test_a_cut_reply_counts_as_wrong(sums: list[object], run: Path) -> None:
    done = evaluate(*sums, "-o", run, "-n", 20)
    assert results_of(run)["rates"]["cut"] == 1.0
    assert "100% of the answers were cut" in done.err


def test_an_extraction_that_never_matches_is_a_warning_with_its_rate(tmp_path: Path, run: Path) -> None:
    task, data = write_sums(tmp_path, task=SUMS + "\n[[extraction]]\nkind = 'regex'\npattern = '#### (.+)'\n")
    done = evaluate(task, "--data", data, "-o", run)
    assert "found nothing in 100% of the answers" in done.err
    assert "none found" in done.text
    assert results_of(run)["rates"]["not_extracted"] == 1.0


@pytest.mark.parametrize(("bound", "code"), [("has=0.5", 0), ("has=0.6", 9)])
def test_a_score_may_not_fall_below_a_bound(sums: list[object], run: Path, bound: str, code: int) -> None:
    done = evaluate(*sums, "-o", run, "--fail-under", bound)
    assert done.code == code
    assert "0.1876" in done.text  # the table is there in any case
    if code:
        one_error_line(done, 9, "has of fake on sums is 0.5, 0.1 below 0.6")


def test_a_bound_must_name_a_metric(sums: list[object], run: Path) -> None:
    one_error_line(evaluate(*sums, "-o", run, "--fail-under", "acc=0.4"), 2, "no metric 'acc'", "has")
    assert not run.exists()
    one_error_line(evaluate(*sums, "-o", run, "--fail-under", "high"), 2, "METRIC=VALUE")


def test_clopper_pearson(sums: list[object], run: Path) -> None:
    evaluate(*sums, "-o", run, "--interval", "clopper-pearson")
    assert results_of(run)["scores"][0]["method"] == "clopper-pearson"
    one_error_line(evaluate(*sums, "-o", run, "--interval", "wald"), 2, "--interval")


def test_cite_needs_the_results_alone(sums: list[object], run: Path, tmp_path: Path) -> None:
    evaluate(*sums, "-o", run, "--limit", 4)
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("results.json", "run.json"):
        (alone / name).write_bytes((run / name).read_bytes())
    done = infer("eval", "--cite", alone)
    assert done.code == 0
    assert re.search(r"^fake \(.*\) was evaluated on 4 of 6 items \(the first of them\) of sums", done.text)
    assert "under the promise `invariant`" in done.text
    assert "95 % interval" in done.text and "@software{infer_cli," in done.text
    one_error_line(infer("eval", "--cite", tmp_path / "nowhere"), 2, "has no run")


# --- going on -------------------------------------------------------------------------------------


def test_the_same_command_line_goes_on(sums: list[object], run: Path) -> None:
    evaluate(*sums, "-o", run)
    before = scores_of(run)
    lines = (run / "replies.jsonl").read_bytes().splitlines(keepends=True)
    (run / "replies.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:40])
    done = evaluate(*sums, "-o", run)
    assert done.code == 0
    assert "2 of them were there" in done.err
    assert scores_of(run) == before


def test_what_has_changed_since_is_named(sums: list[object], run: Path, tmp_path: Path) -> None:
    evaluate(*sums, "-o", run, "--limit", 4)
    one_error_line(evaluate(*sums, "-o", run, "--limit", 5), 2, "limit was 4, is 5", "--redo")
    one_error_line(evaluate(*sums, "-o", run, "--limit", 4, "-n", 7), 2, "max_tokens was 40, is 7")
    data = Path(str(sums[2]))
    text = data.read_text()
    data.write_text(text.replace("question 1", "Question 1"))
    one_error_line(evaluate(*sums, "-o", run, "--limit", 4), 2, "data in", "have changed")
    data.write_text(text)
    task = Path(str(sums[0]))
    task.write_text(task.read_text().replace("{{ question }}", "{{ question }}?"))
    one_error_line(evaluate(*sums, "-o", run, "--limit", 4), 2, "the file of task sums has changed")
    done = evaluate(*sums, "-o", run, "--limit", 4, "--redo")
    assert done.code == 0, done.err
    assert samples_of(run)[0]["prompt"].endswith("?")


def test_redo_keeps_what_is_the_same(sums: list[object], run: Path) -> None:
    evaluate(*sums, "-o", run, "--limit", 4)
    done = evaluate(*sums, "-o", run, "--redo")
    assert done.code == 0, done.err
    assert "4 of them were there" in done.err
    assert results_of(run)["n"] == 6


def test_a_damaged_file_of_a_run_is_named(sums: list[object], run: Path) -> None:
    evaluate(*sums, "-o", run)
    items = run / "items.jsonl"
    items.write_bytes(items.read_bytes().replace(b"question 1", b"question X"))
    one_error_line(evaluate(*sums, "-o", run), 2, "items.jsonl has changed", "--redo")


def test_errors_are_asked_again(tmp_path: Path, run: Path) -> None:
    task, data = write_sums(tmp_path)
    narrow = script(tmp_path, n_ctx_train=64)
    done = evaluate(task, "--data", data, "-o", run, "--chat", "--system", "x" * 80, model=narrow)
    assert done.code == 8
    assert results_of(run)["rates"]["error"] == 1.0
    assert "100.0%" in done.text
    (tmp_path / "script.json").write_text("{}")
    again = evaluate(
        task, "--data", data, "-o", run, "--chat", "--system", "x" * 80, "--retry-errors", "--redo",
        model=narrow,
    )  # fmt: skip
    assert again.code == 0, again.err
    assert results_of(run)["rates"]["error"] == 0.0


def test_a_crash_costs_the_item_that_caused_it(tmp_path: Path, run: Path) -> None:
    task, data = write_sums(tmp_path)
    crashing = script(tmp_path, crash_signal="SIGSEGV", crash_on="question 3")
    done = evaluate(task, "--data", data, "-o", run, "--parallel", 2, model=crashing)
    assert done.code == 8, done.err
    assert "Traceback" not in done.err
    outcomes = {s["item"]: (s["outcome"], s["scores"]["has"]) for s in samples_of(run)}
    assert outcomes["q3"] == ("error", 0.0)
    assert outcomes["q5"] == ("ok", 1.0)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on a file's size")
def test_a_full_disk_is_one_line_and_the_run_goes_on(sums: list[object], run: Path) -> None:
    command = shlex.join([*INFER, "eval", "-m", "fake", *map(str, sums), "-o", str(run), "--quiet"])
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 5; exec {command}"], capture_output=True, text=True, cwd=REPO
    )
    assert done.returncode == 1
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1
    assert "replies.jsonl" in done.stderr and "Traceback" not in done.stderr
    assert not (run / "results.json").exists()
    assert evaluate(*sums, "-o", run).code == 0
    assert results_of(run)["scores"][0]["value"] == 0.5


def test_shards_are_merged_to_the_same_scores(sums: list[object], run: Path, tmp_path: Path) -> None:
    assert evaluate(*sums, "-o", run).code == 0
    parts = [tmp_path / f"part{i}" for i in (1, 2, 3)]
    for i, part in enumerate(parts, 1):
        done = evaluate(*sums, "-o", part, "--shard", f"{i}/3")
        assert done.code == 0, done.err
        assert "`infer merge`" in done.err and done.text == ""
    all_of = tmp_path / "all"
    merged = infer("merge", *reversed(parts), "-o", all_of)
    assert merged.code == 0, merged.err
    assert scores_of(all_of) == scores_of(run)
    assert merged.text.splitlines()[0] == "promise invariant, what failed counts as wrong"
    one_error_line(infer("rescore", parts[0]), 2, "is part 1/3 of a run", "infer merge")
    some = infer("merge", *parts[:2], "-o", tmp_path / "some")
    assert some.code == 8
    assert results_of(tmp_path / "some")["rates"]["error"] == pytest.approx(1 / 3)


def test_only_parts_of_one_run_are_merged(sums: list[object], tmp_path: Path) -> None:
    for name, limit in (("a", 4), ("b", 6)):
        evaluate(*sums, "-o", tmp_path / name, "--limit", limit)
    done = infer("merge", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "all")
    one_error_line(done, 2, "is not of one run", "limit was 4, is 6")
    assert not (tmp_path / "all").exists()
    one_error_line(infer("merge", tmp_path / "a", tmp_path / "a", "-o", tmp_path / "all"), 2, "twice")


def test_the_order_of_the_data_does_not_decide_a_score(sums: list[object], run: Path, tmp_path: Path) -> None:
    data = Path(str(sums[2]))
    evaluate(*sums, "-o", run, "-t", "0.7")
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    write_lines(data, [rows[i] for i in (3, 0, 5, 1, 4, 2)])
    evaluate(*sums, "-o", tmp_path / "other", "-t", "0.7", "--parallel", 3)
    assert scores_of(run) == scores_of(tmp_path / "other")


# --- what is wrong --------------------------------------------------------------------------------


def test_bad_command_lines_are_one_line(sums: list[object], run: Path, tmp_path: Path) -> None:
    one_error_line(infer("eval"), 2, "which task?")
    one_error_line(evaluate(*sums), 2, "where does the run go?", "-o DIR")
    one_error_line(evaluate("nosuchtask", "-o", run), 2, "nosuchtask")
    one_error_line(evaluate(*sums, "-o", run, "--chat", "--raw"), 2, "exclude each other")
    one_error_line(evaluate(*sums, "-o", run, "--shard", "4/3"), 2, "--shard")
    one_error_line(evaluate(*sums, "-o", run, "--limit", 0), 2, "--limit")
    one_error_line(evaluate(sums[0], "-o", run), 2, "--data")
    one_error_line(evaluate(*sums, "--data", "other", "-o", run), 2, "TASK=PATH")
    one_error_line(evaluate(*sums, "-o", run, model="nosuchmodel"), 3, "nosuchmodel")
    one_error_line(evaluate(*sums, "-o", sums[0]), 2, "is not a folder")
    assert not run.exists()


def test_the_model_of_the_variable_and_of_the_settings(
    sums: list[object], run: Path, own_home: Path, tmp_path: Path
) -> None:
    done = infer("eval", *sums, "-o", run, env={"INFER_MODEL": "fake"})
    assert done.code == 0, done.err
    (own_home / "config").mkdir(parents=True)
    (own_home / "config" / "config.toml").write_text('model = "fake"\n')
    assert infer("eval", *sums, "-o", tmp_path / "again").code == 0


def test_a_python_task_is_code(tmp_path: Path, run: Path) -> None:
    _, data = write_sums(tmp_path)
    task = tmp_path / "coded.py"
    task.write_text(
        "TASK = {'name': 'coded', 'version': '1', 'kind': 'generate',\n"
        "        'data': {'id': 'id'}, 'prompt': {'text': '{{ question }}'}}\n"
        "def score(answer, doc):\n"
        "    return len(answer) / 100\n"
    )
    one_error_line(evaluate(task, "--data", data, "-o", run), 2, "--allow-code")
    done = evaluate(task, "--data", data, "-o", run, "--allow-code", "-n", 99)
    assert done.code == 0, done.err
    assert results_of(run)["scores"][0]["value"] == pytest.approx(0.28)
    one_error_line(infer("rescore", run), 2, "--allow-code")
    again = infer("rescore", run, "--allow-code")
    assert again.code == 0 and "ran code again" in again.err and "unchanged" in again.err


# --- what is shown --------------------------------------------------------------------------------


def test_a_terminal_shows_the_score_so_far(tmp_path: Path, run: Path) -> None:
    task, data = write_sums(tmp_path, 30)
    slow = script(tmp_path, step_s=0.01)
    with Terminal(
        "eval", str(task), "--data", str(data), "-o", str(run), "-m", slow, "--parallel", "2", columns=100
    ) as t:
        t.wait_for(lambda text: re.search(r"/30 .* left, has 0\.\d+ \(.* to .*\)", text) is not None)
        t.wait_for("promise invariant")
        assert t.end() == 0
    assert "/30 " not in t.text  # the bar is gone


def test_an_interrupted_run_goes_on(tmp_path: Path, run: Path) -> None:
    task, data = write_sums(tmp_path, 30)
    slow = script(tmp_path, step_s=0.01)
    with Terminal(
        "eval", str(task), "--data", str(data), "-o", str(run), "-m", slow, "--parallel", "2", columns=100
    ) as t:
        t.wait_for(lambda text: re.search(r"[2-9]/30 ", text) is not None)
        t.send("\x03")
        t.wait_for("the same command line goes on")
        assert t.end() == 130
    assert not RunFolder(run).results.exists()
    (tmp_path / "script.json").write_text("{}")
    done = evaluate(task, "--data", data, "-o", run, model=slow)
    assert done.code == 0 and "of them were there" in done.err
    assert results_of(run)["scores"][0]["value"] == 0.5


@pytest.mark.weights
def test_the_real_model_on_pairs_of_sentences(tmp_path: Path, run: Path, smollm2: Path) -> None:
    data = os.environ.get("INFER_TEST_DATA")
    if data is None:
        pytest.skip("INFER_TEST_DATA names no folder of data")
    pairs = Path(data) / "blimp" / "regular_plural_subject_verb_agreement_1.jsonl"
    done = evaluate("blimp", "--data", pairs, "--limit", 40, "-o", run, model=str(smollm2), timeout=300)
    assert done.code == 0, done.err
    score = results_of(run)["scores"][0]
    assert score["metric"] == "acc" and score["value"] > 0.8
    again = evaluate(
        "blimp", "--data", pairs, "--limit", 40, "-o", tmp_path / "again", "--threads", 1,
        model=str(smollm2), timeout=300,
    )  # fmt: skip
    assert again.code == 0
    assert scores_of(run) == scores_of(tmp_path / "again")


# --- thinking -------------------------------------------------------------------------------------


@pytest.fixture
def thinker(tmp_path: Path) -> str:
    """Its template closes the reasoning where thinking is off, and it reasons."""
    opening = "assistant\n{% endif %}"
    template = CHAT_TEMPLATE.replace(
        opening,
        "assistant\n{% if enable_thinking is defined and enable_thinking is false %}<think></think>"
        "{% endif %}{% endif %}",
    )
    assert template != CHAT_TEMPLATE
    return script(tmp_path, template=template, default_reply="<think>one and one</think>is 1!")


def test_thinking_is_as_the_command_line_says(
    sums: list[object], run: Path, tmp_path: Path, thinker: str
) -> None:
    assert evaluate(*sums, "-o", run, "--no-think", model=thinker).code == 0
    assert evaluate(*sums, "-o", tmp_path / "on", model=thinker).code == 0
    prompts = [sample["n_prompt_tokens"] for sample in samples_of(run)]
    longer = [sample["n_prompt_tokens"] for sample in samples_of(tmp_path / "on")]
    assert [a - b for a, b in zip(prompts, longer, strict=True)] == [len("<think></think>")] * 6
    assert results_of(run)["config"]["think"] is False
    assert "think" not in results_of(tmp_path / "on")["config"]
    assert "The chat template's thinking was turned off." in infer("eval", "--cite", run).text
    done = evaluate(*sums, "-o", run, model=thinker)
    assert done.code == 2 and "think" in done.err, "another setting is no resume"
    assert infer("verify", run, "-m", thinker, "--fraction", "1").code == 0


def test_a_reasoning_budget_ends_the_reasoning(sums: list[object], run: Path, thinker: str) -> None:
    assert evaluate(*sums, "-o", run, "--reasoning-budget", 0, model=thinker).code == 0
    assert _reasoning_of(run) == {None}
    assert results_of(run)["config"]["reasoning_budget"] == 0
    assert "Reasoning was ended after 0 tokens." in infer("eval", "--cite", run).text
    free = run.with_name("free")
    assert evaluate(*sums, "-o", free, model=thinker).code == 0
    assert _reasoning_of(free) == {"one and one"}


def _reasoning_of(run: Path) -> set[object]:
    lines = RunFolder(run).replies.read_bytes().splitlines()
    return {json.loads(line)["reasoning"] for line in lines}


def test_thinking_is_refused_where_it_has_no_meaning(tmp_path: Path, run: Path, sums: list[object]) -> None:
    task, data = write_pairs(tmp_path)
    done = evaluate(task, "--data", data, "-o", run, "--no-think")
    one_error_line(done, 2, "--no-think has no meaning for pairs")
    done = evaluate(*sums, "-o", run, "--raw", "--think")
    one_error_line(done, 2, "--raw and --think exclude each other")
    Path(str(sums[0])).write_text(SUMS.replace("[answer]", "chat = false\n\n[answer]"))
    done = evaluate(*sums, "-o", tmp_path / "texts", "--reasoning-budget", 5)
    one_error_line(done, 2, "--reasoning-budget has no meaning for sums", "--chat")
    assert not (tmp_path / "texts").exists()


# --- what is said ---------------------------------------------------------------------------------


def test_a_bound_is_of_the_tasks_that_have_its_metric(sums: list[object], run: Path, tmp_path: Path) -> None:
    task, data = write_pairs(tmp_path)
    both = [sums[0], task, "--data", f"sums={sums[2]}", "--data", f"pairs={data}", "-o", run, "--quiet"]
    one_error_line(evaluate(*both, "--fail-under", "f1=1"), 2, "sums, pairs have no metric 'f1'", "has, acc")
    assert not run.exists()
    one_error_line(evaluate(*both, "--fail-under", "acc=2"), 9, "acc of fake on pairs is 1, 1 below 2")


def test_ids_and_a_limit_are_both_said(sums: list[object], run: Path) -> None:
    done = evaluate(*sums, "-o", run, "--ids", "q1,q3", "--limit", 1)
    assert done.text.startswith("promise invariant, 1 of 6 items (--ids, --limit 1), ")


def test_what_failed_first_is_said(sums: list[object], run: Path) -> None:
    rows = [{"id": "long", "question": "x" * 9000, "answer": "x", "kind": "odd"}]
    write_lines(Path(str(sums[2])), rows)
    done = evaluate(*sums, "-o", run)
    assert done.code == 8
    assert "warning: sums, fake: 100.0% of the answers are errors; the first is long: " in done.err
    (warning,) = results_of(run)["warnings"]
    assert samples_of(run)[0]["error"]["message"] in warning


def test_a_note_of_several_metrics_is_one_line(tmp_path: Path, run: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one word")
    done = evaluate("perplexity", "--data", text, "-o", run)
    assert [line for line in done.text.splitlines() if line.startswith("note: ")] == [
        "note: bits_per_byte, byte_perplexity, word_perplexity, token_perplexity: one item says nothing of"
        " the spread between several"
    ]


def test_a_row_of_a_folder_is_named_with_its_file(tmp_path: Path, run: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("a text")
    (folder / "b.txt").write_text("")
    done = evaluate("perplexity", "--data", folder, "-o", run)
    one_error_line(done, 2, "[answer] text: ", f"{folder}/b.txt: row 1: the text is empty")


def test_a_run_that_is_being_answered_is_not_begun_again(sums: list[object], run: Path) -> None:
    assert evaluate(*sums, "-o", run).code == 0
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    held = lock(lock_path(run / "replies.jsonl"), run)
    try:
        done = evaluate(*sums, "-o", run, "--limit", 2, "--redo")
    finally:
        held.release()
    one_error_line(done, 2, f"another process is writing {run}")
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    assert evaluate(*sums, "-o", run, "--limit", 2, "--redo").code == 0


def test_a_pattern_that_is_none_begins_no_run(sums: list[object], run: Path) -> None:
    task = Path(str(sums[0]))
    task.write_text(SUMS + '[[extraction]]\nkind = "regex"\npattern = "(?=x)"\n')
    one_error_line(evaluate(*sums, "-o", run), 2, f"{task}: [[extraction]] 1 pattern has look-ahead")
    assert not run.exists()


def test_cite_runs_no_task(sums: list[object], run: Path) -> None:
    one_error_line(infer("eval", sums[0], "--cite", run), 2, "--cite", "runs no task")


def test_a_model_that_is_named_twice_is_told(sums: list[object], run: Path) -> None:
    done = evaluate(*sums, "-o", run, "-m", "fake")
    one_error_line(done, 2, "the model fake is named twice", "name each model once")
    assert not run.exists()


def test_texts_without_words_are_said_to_have_none(tmp_path: Path, run: Path) -> None:
    (tmp_path / "blank.jsonl").write_text('{"text": "   "}\n')
    done = evaluate("perplexity", "--data", tmp_path / "blank.jsonl", "-o", run)
    assert done.code == 0, done
    assert "note: word_perplexity: the items have no words" in done.text
    assert {score["metric"]: score["n"] for score in results_of(run)["scores"]}["word_perplexity"] == 1


def test_an_interval_stays_longer_than_a_rate(sums: list[object], run: Path) -> None:
    from tests.terminal import Terminal

    assert evaluate(*sums, "-o", run, "-n", 29).code == 0
    for width, heading in ((80, "n"), (44, "95 % interval")):
        with Terminal("rescore", str(run), columns=width) as terminal:
            assert terminal.end() == 0
            head = next(line for line in terminal.text.split("\n") if line.startswith("task "))
        assert heading in head
        assert ("cut" in head) == (width == 80)


def test_a_flag_without_its_value_is_shown_with_one() -> None:
    one_error_line(infer("eval", "--cite"), 2, "'--cite' requires an argument", "`infer eval --cite DIR`")
    one_error_line(infer("models", "add", "--sha256"), 2, "infer models add --help")
