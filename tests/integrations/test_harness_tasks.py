"""`infer eval lm:TASK`: each score of an item, each sum and each group's is what the harness has with a bare
loop over llama.cpp; and the run is one of ours: it goes on, is scored again, and is checked."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infer_cli.errors import ExitStatus, UsageError
from infer_cli.evaluation.runs.folder import RunFolder
from tests.cli_helpers import Outcome, infer, one_error_line
from tests.evaluation.runs.run_helpers import results_of, samples_of
from tests.integrations.extras import needs, run
from tests.integrations.tasks import GROUP_TASKS, TASKS, head_of, write_group, write_tasks

pytestmark = needs("lm_eval")

_ALL = (*TASKS, *GROUP_TASKS)


def evaluate(folder: Path, out: Path, *arguments: object, model: object = "fake", **more: Any) -> Outcome:
    given = [*arguments, "--lm-include", folder, "-m", model, "-o", out, "--offline", "--quiet"]
    return infer("eval", *given, timeout=240, **more)


def task_file(folder: Path, text: str, *, name: str = "own") -> Path:
    """A folder with one task on two rows of its own."""
    folder.mkdir(exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text('{"q": "one", "a": "one"}\n{"q": "two", "a": "2"}\n')
    (folder / f"{name}.yaml").write_text(head_of(name, data) + text)
    return folder


_REPLIES = """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "You said: {{a}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 30
metric_list:
  - metric: exact_match
"""

# --- the harness's own numbers --------------------------------------------------------------------


@pytest.mark.weights
def test_scores_and_sums_are_those_of_the_harness_over_a_bare_loop(smollm2: Path, tmp_path: Path) -> None:
    folder = write_group(tmp_path / "tasks")
    write_tasks(tmp_path / "more")
    for file in (tmp_path / "more").iterdir():
        shutil.copy(file, folder)
    out = tmp_path / "reference.json"
    names = ("g_all", "g_answer", *TASKS)
    run(tmp_path, sys.executable, "-m", "tests.integrations.reference_lm", smollm2, folder, 2048, out, *names)
    theirs = json.loads(out.read_text())
    done = evaluate(folder, tmp_path / "run", *(f"lm:{name}" for name in names), model=smollm2)
    assert done.code == 0, done.err

    n_right = 0
    for task in _ALL:
        samples = samples_of(tmp_path / "run" / f"lm_{task}")
        assert len(theirs["scores"][task]) % len(samples) == 0
        for n, (of_filter, metrics) in enumerate(theirs["scores"][task]):
            sample = samples[n % len(samples)]
            for name, value in metrics.items():
                assert own_value(sample, f"{name},{of_filter}") == value, (task, n, name)
                n_right += value == 1
        check_sums(results_of(tmp_path / "run" / f"lm_{task}")["scores"], theirs["results"][task])
    assert n_right > 10  # so it is no comparison of zeros
    groups = json.loads((tmp_path / "run" / "groups.json").read_text())
    sums = [{"metric": each["metric"], **each["score"]} for each in groups["scores"]]
    assert [each["metric"] for each in sums] == ["acc,none", "acc_norm,none"]
    check_sums(sums, theirs["results"]["g_all"])


def own_value(sample: dict[str, Any], name: str) -> object:
    """What the harness calls the metric of an item: a number, or what its sum is made of."""
    if name in sample["scores"]:
        return sample["scores"][name]
    return json.loads(sample["explanations"][name])


def check_sums(scores: Sequence[dict[str, Any]], theirs: dict[str, Any]) -> None:
    assert scores
    for score in scores:
        assert score["value"] == pytest.approx(theirs[score["metric"]], rel=1e-12, abs=0), score


# --- a run of ours --------------------------------------------------------------------------------


def test_a_run_goes_on_and_is_scored_again_without_its_tasks(tmp_path: Path) -> None:
    folder, out = write_group(tmp_path / "tasks"), tmp_path / "run"
    first = evaluate(folder, out, "lm:g_all", "lm:g_answer")
    assert first.code == 0, first.err
    assert "g_all" in first.text and "exact_match,last-word" in first.text
    names = [f"lm_{task}" for task in GROUP_TASKS]
    before = {name: (out / name / "samples.jsonl").read_bytes() for name in names}
    replies = out / "lm_g_few" / "replies.jsonl"
    replies.write_bytes(b"".join(replies.read_bytes().splitlines(keepends=True)[:5]))
    again = evaluate(folder, out, "lm:g_all", "lm:g_answer")
    assert again.text == first.text
    assert {name: (out / name / "samples.jsonl").read_bytes() for name in names} == before

    groups = (out / "groups.json").read_bytes()
    shutil.rmtree(folder)
    rescored = infer("rescore", out, timeout=120)
    assert rescored.code == 0 and rescored.err.count(": unchanged") == 3, rescored.err
    assert (out / "groups.json").read_bytes() == groups
    verified = infer("verify", out / "lm_g_answer", "-m", "fake", "--fraction", "1", timeout=120)
    assert verified.code == 0, verified.err
    assert "holds: the score of g_answer" in verified.text and "not made again here" in verified.text
    samples = out / "lm_g_answer" / "samples.jsonl"
    samples.write_bytes(
        samples.read_bytes().replace(b'"exact_match,whole": 0.0', b'"exact_match,whole": 1.0')
    )
    forged = infer("verify", out / "lm_g_answer", "-m", "fake", timeout=120)
    assert forged.code == ExitStatus.CHECK_FAILED and "samples.jsonl: line 1" in forged.text


def test_what_decides_the_prompts_must_be_as_it_was(tmp_path: Path) -> None:
    folder, out = write_group(tmp_path / "tasks"), tmp_path / "run"
    evaluate(folder, out, "lm:g_few", "--limit", "2")
    one_error_line(evaluate(folder, out, "lm:g_few"), ExitStatus.USAGE, "limit was 2, is none")
    one_error_line(
        evaluate(folder, out, "lm:g_few", "--limit", "2", "--fewshot", "1"),
        ExitStatus.USAGE,
        "fewshot was 2, is 1",
    )


def test_items_that_are_named_are_asked_as_in_the_whole_run(tmp_path: Path) -> None:
    folder = write_group(tmp_path / "tasks")
    evaluate(folder, tmp_path / "all", "lm:g_few")
    evaluate(folder, tmp_path / "some", "lm:g_few", "--ids", "1,3")
    whole = {sample["item"]: sample["prompt"] for sample in samples_of(tmp_path / "all")}
    some = {sample["item"]: sample["prompt"] for sample in samples_of(tmp_path / "some")}
    assert some == {item: whole[item] for item in ("1", "3")}
    assert len({prompt.count("\n\n") for prompt in whole.values()}) == 1
    wrong = evaluate(folder, tmp_path / "none", "lm:g_few", "--ids", "5")
    one_error_line(wrong, ExitStatus.USAGE, "no item '5'", "0 to 4")


def test_a_chat_goes_through_the_models_template(tmp_path: Path) -> None:
    folder = task_file(tmp_path / "tasks", _REPLIES)
    done = evaluate(folder, tmp_path / "run", "lm:own", "--chat")
    assert done.code == 0, done.err
    first, second = samples_of(tmp_path / "run")
    assert first["prompt"] == [{"role": "user", "content": "one"}]
    assert first["answer"] == "You said: one"
    assert (first["scores"], second["scores"]) == ({"exact_match,none": 1.0}, {"exact_match,none": 0.0})


def test_a_sampled_task_has_its_repeats(tmp_path: Path) -> None:
    text = _REPLIES.replace("max_gen_toks: 30", "max_gen_toks: 8\n  do_sample: true\n  temperature: 1.5")
    filters = "filter_list:\n  - name: first\n    filter:\n      - function: take_first\nrepeats: 3\n"
    folder = task_file(tmp_path / "tasks", text + filters)
    done = evaluate(folder, tmp_path / "run", "lm:own")
    assert done.code == 0, done.err
    rows = RunFolder(tmp_path / "run").requests.read_text().splitlines()
    assert [json.loads(row)["custom_id"] for row in rows] == ["0/0", "0/1", "0/2", "1/0", "1/1", "1/2"]
    assert all(len(sample["digests"]) == 3 for sample in samples_of(tmp_path / "run"))


def test_an_item_that_fails_is_wrong(tmp_path: Path) -> None:
    folder = task_file(tmp_path / "tasks", _REPLIES.replace("max_gen_toks: 30", "max_gen_toks: 999"))
    done = evaluate(folder, tmp_path / "run", "lm:own", "--ctx", "64", "--deadline", "0.000001s")
    assert done.code == ExitStatus.SOME_ROWS_FAILED, done.err
    (score,) = results_of(tmp_path / "run")["scores"]
    assert (score["metric"], score["value"], score["n"]) == ("exact_match,none", 0.0, 2)


# --- code -----------------------------------------------------------------------------------------

_FUNCTIONS = """
import pathlib
pathlib.Path(__file__).with_name("ran").write_text("")


def process_results(doc, results):
    return {"long": float(len(results[0]) > 0)}
"""


def code_task(folder: Path) -> Path:
    """The function is in a file that the task's YAML includes."""
    text = _REPLIES.replace(
        "metric: exact_match", "metric: long\n    aggregation: mean\n    higher_is_better: true"
    )
    task_file(folder, "include: base.yaml\n" + text)
    (folder / "base.yaml").write_text("process_results: !function functions.process_results\n")
    (folder / "functions.py").write_text(_FUNCTIONS)
    return folder


def test_code_is_not_run_before_it_is_allowed(tmp_path: Path) -> None:
    folder, out = code_task(tmp_path / "tasks"), tmp_path / "run"
    one_error_line(
        evaluate(folder, out, "lm:own"),
        ExitStatus.USAGE,
        "own is code",
        "functions.process_results",
        "base.yaml",
    )
    assert not (folder / "ran").exists() and not out.exists()
    done = evaluate(folder, out, "lm:own", "--allow-code")
    assert done.code == 0, done.err
    assert [sample["scores"] for sample in samples_of(out)] == [{"long,none": 1.0}] * 2
    assert results_of(out)["code_scorers"] == ["process_results"]

    (folder / "ran").unlink()
    one_error_line(infer("rescore", out, timeout=120), ExitStatus.USAGE, "is code", "--allow-code")
    assert not (folder / "ran").exists()
    assert "unchanged" in infer("rescore", out, "--allow-code", timeout=120).err
    (folder / "functions.py").write_text(_FUNCTIONS.replace("> 0", "> 999"))
    changed = infer("rescore", out, "--allow-code", timeout=120)
    assert "have changed" in changed.err and "was changed since the run began" in changed.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_REPLIES + "unsafe_code: true\n", "unsafe_code"),
        (_REPLIES.replace("exact_match", "of_the_hub"), "the metric of_the_hub"),
    ],
)
def test_other_code_is_refused_too(text: str, said: str, tmp_path: Path) -> None:
    folder = task_file(tmp_path / "tasks", text)
    done = evaluate(folder, tmp_path / "run", "lm:own")
    one_error_line(done, ExitStatus.USAGE, "own is code", said)


def test_tags_of_python_are_code(tmp_path: Path) -> None:
    from infer_cli.integrations.lm_eval.code_in_tasks import code_of_file

    (tmp_path / "a.yaml").write_text("include: [b.yaml]\ndescription: '!function in a text'\n")
    (tmp_path / "b.yaml").write_text("include: a.yaml\nrepeats: 2\n")
    assert code_of_file(tmp_path / "a.yaml") is None
    (tmp_path / "b.yaml").write_text("include: a.yaml\nmetric_list: [{x: !!python/name:os.system }]\n")
    assert "python/name:os.system" in (code_of_file(tmp_path / "a.yaml") or "")


def test_a_template_has_no_python_behind_it(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    reach = f"cycler.__init__.__globals__.os.mkdir('{mark}')"
    folder = task_file(tmp_path / "tasks", _REPLIES.replace("{{q}}", f"{{{{ {reach} }}}}"))
    one_error_line(evaluate(folder, tmp_path / "run", "lm:own"), ExitStatus.USAGE, "can't load lm:own")
    assert not mark.exists()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lm:own", "--samples", "2", "-t", "1"], "--samples has no meaning for lm:own"),
        (["lm:own", "--system", "Be brief."], "--system has no meaning for lm:own"),
        (["lm:own", "--data", "x"], "--data has no meaning for lm:own"),
        (["lm:own", "--fail-under", "acc=1"], "no metric 'acc'"),
    ],
)
def test_flags_that_are_the_tasks(arguments: list[str], said: str, tmp_path: Path) -> None:
    folder = task_file(tmp_path / "tasks", _REPLIES)
    one_error_line(evaluate(folder, tmp_path / "run", *arguments), ExitStatus.USAGE, said)
    assert not (tmp_path / "run" / "run.json").exists() or "fail" in said or "metric" in said


def test_a_name_that_the_harness_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its own tasks, which take long to read."""
    from lm_eval.tasks import TaskManager

    from infer_cli.integrations.lm_eval import harness

    few = partial(TaskManager, include_defaults=False)
    monkeypatch.setattr(harness, "TaskManager", few)
    folder = task_file(tmp_path / "tasks", _REPLIES)
    with pytest.raises(UsageError, match="no task 'nothere'"):
        harness.Harness(["lm:nothere"], [str(folder)], allow_code=False)


def test_a_number_of_examples_that_the_task_fixes(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    for flags, said in ((["--fewshot", "2"], "num_fewshot: 0"), (["--chat"], "--chat for lm:t_choice")):
        done = evaluate(folder, tmp_path / "run", "lm:t_choice", *flags)
        one_error_line(done, ExitStatus.USAGE, said)


_WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "lm_eval":
            raise ModuleNotFoundError("No module named 'lm_eval'", name=name)

sys.meta_path.insert(0, Missing())
from infer_cli.errors import UsageError
from infer_cli.integrations.lm_eval.evaluation import open_harness
try:
    open_harness(["lm:x"], [], allow_code=False, offline=True)
except UsageError as e:
    print(e.message, e.hint, sep="; ")
"""


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path) -> None:
    done = run(tmp_path, sys.executable, "-c", _WITHOUT)
    assert done.stdout == ("lm-evaluation-harness is not installed; pip install 'infer-cli[lm-eval]'\n")
