"""`infer compare`: what it prints in a pipe and on terminals, what it refuses, and its exit codes."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infer_cli.evaluation.runs.results import Identity
from infer_cli.text.graphemes import cells
from tests.cli_helpers import infer, one_error_line
from tests.evaluation.comparing.foreign_files import harness_sample, write_harness
from tests.evaluation.comparing.run_folders import RESULTS, Answered, right, write_run
from tests.integrations.extras import is_missing

HARD_TO_SHOW = "\x1b]0;owned\x07\x1b[31mred\x1b[0m\u202e\r\nnext \x9b1m日本"


def scores(n: int, n_right: int) -> list[float]:
    """The first items are right."""
    return [1.0] * n_right + [0.0] * (n - n_right)


def shuffled(n: int, share: float, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [float(rng.random() < share) for _ in range(n)]


def model(name: str, **more: Any) -> Any:
    return replace(RESULTS, model=Identity(name, "ab" * 32), **more)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """100 items: B is right on 8 more, and on none less."""
    return (
        write_run(tmp_path / "a", right(*scores(100, 60))),
        write_run(tmp_path / "b", right(*scores(100, 68)), results=model("large")),
    )


def texts(n: int, factor: float) -> list[Answered]:
    rng = random.Random(factor)
    return [
        Answered(
            f"text{i}",
            [{"bits": factor * (900 + 3 * i + rng.random() * 40)}],
            prompt="",
            answer=None,
            sizes={"bytes": 1000.0},
        )
        for i in range(n)
    ]


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Folders of two tasks each."""
    made = []
    for i, name in enumerate("abc"):
        write_run(tmp_path / name / "sums", right(*shuffled(200, 0.5 + 0.1 * i, i)), results=model(f"m{i}"))
        write_run(
            tmp_path / name / "perplexity",
            texts(60, 1 - i / 100),
            task="perplexity",
            metrics=("bits_per_byte", "byte_perplexity"),
            results=model(f"m{i}"),
        )
        made.append(tmp_path / name)
    return made


# --- two runs -------------------------------------------------------------------------------------


def test_two_runs_in_a_pipe(two: tuple[Path, Path]) -> None:
    a, b = two
    done = infer("compare", a, b, "--flips", "2")
    assert (done.code, done.err) == (0, "")
    assert done.text == (
        f"A is {a}: small, invariant\n"
        f"B is {b}: large, invariant\n"
        "\n"
        "task  metric  items        A -> B  B - A  95 % interval       p  better, worse  visible\n"
        "sums  exact     100  60.0 -> 68.0   +8.0  +2.0 to +13.7  0.004*           8, 0      7.8\n"
        "\n"
        "sums, exact: B is better by 8.0 points on 100 items (95 % interval 2.0 to 13.7, p = 0.00391)."
        " 8 items differ: 8 better with B, 0 worse. Test: mid-p McNemar. With so many items, a difference of"
        " 7.8 points would have been found 4 times out of 5.\n"
        "\n"
        "sums, exact, A and B: 2 of 8 items that differ\n"
        "item 60: How much is 60 and 60?\n"
        "  A  0  It is 121.\n"
        "  B  1  It is 120.\n"
        "item 61: How much is 61 and 61?\n"
        "  A  0  It is 123.\n"
        "  B  1  It is 122.\n"
    )


def test_a_run_against_itself(two: tuple[Path, Path]) -> None:
    done = infer("compare", two[0], two[0], "--fail-if-worse", "--margin", "0.5")
    assert done.code == 0
    assert "A and B have the same score on each of 100 items." in done.text
    assert " 0, 0 " in done.text and " differ:" not in done.text and "that differ" not in done.text


def test_json(two: tuple[Path, Path]) -> None:
    (found,) = json.loads(infer("compare", *two, "--json", "--flips", "1").out)
    assert json.loads(infer("compare", *two, "--jsonl", "--flips", "1").out) == found
    assert list(found) == [
        "task", "metric", "higher_is_better", "a", "b", "n", "clusters", "difference", "stderr", "ci",
        "method", "note", "test", "p_adjusted", "told_apart", "smallest_visible", "sentence", "better",
        "worse", "flips", "left_out", "other_prompts",
    ]  # fmt: skip
    assert found["a"]["model"] == "small" and found["b"]["value"] == 0.68
    assert found["test"] == {
        "method": "mid-p McNemar",
        "p_value": pytest.approx(2**-8),
        "n_resamples": None,
        "seed": None,
    }
    assert found["better"] == [str(i) for i in range(60, 68)] and found["worse"] == []
    assert found["flips"] == [
        {
            "item": "60",
            "prompt": "How much is 60 and 60?",
            "answer_a": "It is 121.",
            "answer_b": "It is 120.",
            "score_a": 0.0,
            "score_b": 1.0,
        }
    ]


def test_the_seed_of_what_is_drawn_is_told(three: list[Path]) -> None:
    done = infer("compare", *three[:2], "--metric", "bits_per_byte", "--json")
    (found,) = json.loads(done.out)
    assert (found["test"]["method"], found["test"]["seed"], found["test"]["n_resamples"]) == (
        "sign flips", 0, 9999,
    )  # fmt: skip
    assert infer("compare", *three[:2], "--metric", "bits_per_byte", "--json").out == done.out
    assert "sign flips (9,999 drawn, seed 0)" in infer("compare", *three[:2]).text


# --- runs that are not alike ----------------------------------------------------------------------


def test_other_items_are_refused_and_the_first_is_named(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", right(1, 0, 1, 1))
    items = right(1, 0, 1)
    items[1] = replace(items[1], prompt="Another?")
    b = write_run(tmp_path / "b", items)
    one_error_line(infer("compare", a, b), 2, f"item 1 of {a} has another prompt in {b}", "--allow-different")
    done = infer("compare", a, b, "--allow-different")
    assert done.code == 0
    assert done.text.splitlines()[0] == (
        "sums, A and B: 3 items compared; left out as the other has them not: 1 of A, 0 of B;"
        " asked with other prompts: 1"
    )


def test_what_a_run_leaves_out_is_told_first(tmp_path: Path) -> None:
    failed = [replace(item, outcomes=("error",)) for item in right(0, 0)]
    a = write_run(tmp_path / "a", [*failed, *right(1, 1, 1, 0)[2:]], exclude_errors=True)
    b = write_run(tmp_path / "b", right(0, 0, 1, 1))
    # The answers of the first two say something else, the prompts do not.
    first = infer("compare", a, b).text.splitlines()[0]
    assert first == (
        "sums, A and B: 2 items compared; left out as they failed in a run with --exclude-errors: 2"
    )


def test_other_modes_engines_and_versions_are_warned_of_in_one_line(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", right(1, 0))
    engine = {**RESULTS.engine, "llama_cpp": "0.4.0"}
    b = write_run(tmp_path / "b", right(1, 0), version="2", results=model("m", mode="fast", engine=engine))
    done = infer("compare", a, b)
    assert done.err == (
        "warning: the runs were not made alike: mode invariant (A), fast (B); task version 1 (A), 2 (B);"
        " llama.cpp 0.3.36 (A), 0.4.0 (B)\n"
    )
    assert infer("compare", a, b, "--quiet").err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{a}"], ["two runs are needed"]),
        (["{a}", "{none}"], ["no file or folder", "name a folder of `infer eval`"]),
        (["{a}", "{empty}"], ["has no run", "name a folder of `infer eval`"]),
        (["{a}", "{words}"], ["no task in common: sums, and words"]),
        (["{a}", "{both}", "--allow-different"], ["both has several runs of sums"]),
        (["{a}", "{b}", "--metric", "f1", "--all-metrics"], ["exclude each other"]),
        (["{a}", "{b}", "--metric", "f1"], ["no task has a metric 'f1'", "there are: exact"]),
        (["{a}", "{b}", "--margin", "2"], ["--margin", "--fail-if-worse"]),
        (["{a}", "{b}", "--fail-if-worse", "--margin", "0"], ["is not above 0"]),
        (["{a}", "{b}", "--fail-if-worse", "--margin", "nan"], ["is not above 0"]),
        (["{a}", "{b}", "--plot", "x.pdf"], ["neither .svg nor .png"]),
        (["{a}", "{b}", "--plot", "{none}/x.svg"], ["no directory"]),
        (["{a}", "{b}", "--json", "--jsonl"], ["exclude each other"]),
        (["{a}", "{b}", "--flips", "-1"], ["--flips"]),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, two: tuple[Path, Path], arguments: Sequence[str], words: Sequence[str]
) -> None:
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "words", right(1), task="words")
    for name in ("one", "two"):
        write_run(tmp_path / "both" / name, right(1))
    places = {name: tmp_path / name for name in ("a", "b", "none", "empty", "words", "both")}
    done = infer("compare", *(argument.format(**places) for argument in arguments))
    one_error_line(done, 2, *words)
    assert done.out == b""


def test_samples_without_a_metric_do_not_pass_as_not_worse(tmp_path: Path) -> None:
    for name in "ab":
        write_harness(tmp_path / name, [harness_sample(i, 1, metrics=[]) for i in range(3)])
    done = infer("compare", tmp_path / "a", tmp_path / "b", "--fail-if-worse")
    one_error_line(done, 2, "has no metric")


# --- three and more -------------------------------------------------------------------------------


def test_three_runs_of_two_tasks(three: list[Path]) -> None:
    done = infer("compare", *three)
    assert (done.code, done.err) == (0, "")
    rows = [line.split()[:4] for line in done.text.splitlines() if " -> " in line][1:]
    assert rows == [
        ["perplexity", "bits_per_byte", "A", "B"],
        ["perplexity", "bits_per_byte", "A", "C"],
        ["sums", "exact", "A", "B"],
        ["sums", "exact", "A", "C"],
    ]
    assert "p is adjusted for 4 tests (Holm). * told apart: p < 0.05" in done.text
    assert "difference in bits_per_byte, 95 % intervals; to the left is better\nB - A " in done.text
    assert "difference in points, 95 % intervals; to the right is better\nB - A " in done.text
    assert done.text.isascii() or set(done.text) - set(map(chr, range(128))) <= {"±", "…"}
    assert "that differ" not in done.text
    pairs = json.loads(infer("compare", *three, "--all-pairs", "--json").out)
    assert [each["a"]["label"] + each["b"]["label"] for each in pairs] == ["AB", "AC", "BC"] * 2
    assert [each["flips"] for each in pairs] == [[]] * 6


def test_metrics_that_are_left_out_are_named(three: list[Path]) -> None:
    done = infer("compare", *three, "--all-metrics")
    assert done.err == (
        "warning: metrics that are left out: byte_perplexity: it is not a mean over items;"
        " bits_per_byte tells the same\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="a pty is needed")
@pytest.mark.parametrize("columns", [40, 80, 100, 160])
def test_on_a_terminal_lines_fit_and_words_are_whole(three: list[Path], columns: int) -> None:
    from tests.terminal import Terminal

    with Terminal("compare", *map(str, three), "--flips", "1", columns=columns, lines=100) as terminal:
        assert terminal.end() == 0
        text = terminal.text
    in_a_pipe = infer("compare", *three, "--flips", "1").text
    sentences = [line for line in in_a_pipe.splitlines() if "Test: " in line]
    assert len(sentences) == 4
    joined = " ".join(text.split())
    for sentence in sentences:
        assert sentence in joined
    plots = [line for line in text.splitlines() if line.startswith(("B - A", "C - A"))]
    assert len(plots) == 4 and all("│" in line and cells(line) <= columns for line in plots)
    headings = next(line for line in text.splitlines() if line.startswith("task "))
    assert ("95 % interval" in headings) == (columns > 40) and ("visible" in headings) == (columns == 160)


@pytest.mark.skipif(sys.platform == "win32", reason="a pty is needed")
def test_long_names_stand_above_their_rows(tmp_path: Path) -> None:
    from tests.terminal import Terminal

    task = "a_task_with_a_name_that_is_long"
    runs = [write_run(tmp_path / name, right(1, 0, 1, 0), task=task) for name in "abc"]
    with Terminal("compare", *map(str, runs), columns=40, lines=60) as terminal:
        assert terminal.end() == 0
        lines = terminal.text.splitlines()
    at = lines.index(f"{task}, exact")
    assert [line.split()[:3] for line in lines[at + 1 : at + 4]] == [
        ["runs", "difference", "95"], ["A", "B", "+0.0"], ["A", "C", "+0.0"],
    ]  # fmt: skip
    assert [line.split()[-1] for line in lines[at + 1 : at + 4]] == ["p", "1.000", "1.000"]


# --- what models wrote ----------------------------------------------------------------------------


def test_what_models_wrote_steers_nothing(tmp_path: Path) -> None:
    for name, score in (("a", 1.0), ("b", 0.0)):
        item = Answered(
            f"i{HARD_TO_SHOW}", [{"exact": score}], prompt=f"Q {HARD_TO_SHOW}", answer=f"A {HARD_TO_SHOW}"
        )
        write_run(tmp_path / name, [item], results=model(f"m{HARD_TO_SHOW}"))
    done = infer("compare", tmp_path / "a", tmp_path / "b")
    assert done.code == 0
    assert "item ired next 日本: Q red next 日本\n  A  1  A red next 日本\n" in done.text
    assert all(char.isprintable() or char == "\n" for char in done.text)


def test_what_all_prompts_begin_with_is_not_repeated(tmp_path: Path) -> None:
    examples = (
        "Question: How much is 1 and 1? Answer: 2. Question: How much is 2 and 2? Answer: 4. Question: "
    )
    for name, score in (("a", 1.0), ("b", 0.0)):
        items = [
            replace(item, prompt=examples + f"How much is {i} and {i}?")
            for i, item in enumerate(right(score, score))
        ]
        write_run(tmp_path / name, items)
    text = infer("compare", tmp_path / "a", tmp_path / "b").text
    assert "item 0: … 0 and 0?\n" in text and "item 1: … 1 and 1?\n" in text


# --- exit codes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_a", "n_b", "flags", "code"),
    [
        (60, 68, [], 0),
        (68, 60, [], 0),
        (60, 68, ["--fail-if-worse"], 0),
        (68, 60, ["--fail-if-worse"], 9),
        (61, 60, ["--fail-if-worse"], 0),  # cannot be told apart
        (61, 60, ["--fail-if-worse", "--margin", "3"], 9),  # 3.9 points less are not ruled out
        (61, 60, ["--fail-if-worse", "--margin", "5"], 0),
        (68, 60, ["--fail-if-worse", "--margin", "14"], 0),  # worse, by less than 14 points
    ],
)
def test_the_exit_code_says_whether_b_is_worse(
    tmp_path: Path, n_a: int, n_b: int, flags: Sequence[str], code: int
) -> None:
    a = write_run(tmp_path / "a", right(*scores(100, n_a)))
    b = write_run(tmp_path / "b", right(*scores(100, n_b)))
    # The texts of answers differ, the prompts do not.
    done = infer("compare", a, b, *flags, "--json")
    if code:
        what = "is not shown to be less than 3 worse than" if "--margin" in flags else "is worse than"
        one_error_line(done, code, f"error: B {what} A (sums, exact)")
    assert (done.code, len(json.loads(done.out))) == (code, 1)


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.extras
@pytest.mark.skipif(is_missing("matplotlib"), reason="matplotlib is not installed")
@pytest.mark.parametrize("name", ["x.svg", "x.PNG"])
def test_a_picture(tmp_path: Path, three: list[Path], name: str) -> None:
    done = infer("compare", *three, "--plot", tmp_path / name)
    assert (done.code, done.err) == (0, "")
    picture = (tmp_path / name).read_bytes()
    assert picture.startswith(b"<?xml" if name.endswith("svg") else b"\x89PNG")
    assert infer("compare", *three, "--plot", tmp_path / f"2{name}").code == 0
    assert (tmp_path / f"2{name}").read_bytes() == picture


def test_a_picture_without_matplotlib(tmp_path: Path, two: tuple[Path, Path]) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['matplotlib'] = None\n")
    path = os.pathsep.join([str(hidden), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = infer("compare", *two, "--plot", tmp_path / "x.svg", env={"PYTHONPATH": path})
    one_error_line(done, 2, "matplotlib", "pip install 'infer-cli[report]'")
    assert not (tmp_path / "x.svg").exists()


# --- from the model on ----------------------------------------------------------------------------


def test_runs_of_infer_eval(tmp_path: Path) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text(
        "".join(
            json.dumps({"question": f"What is left of {i} by 7?", "answer": f"#### {i % 7}"}) + "\n"
            for i in range(21)
        )
    )
    for n in (1, 6):
        (tmp_path / f"{n}.json").write_text(json.dumps({"default_reply": f"#### {n}"}))
        done = infer(
            "eval", "gsm8k", "--data", data, "-m", f"fake:{tmp_path}/{n}.json", "-o", tmp_path / f"run{n}"
        )
        assert done.code == 0, done.err
    (found,) = json.loads(infer("compare", tmp_path / "run1", tmp_path / "run6", "--json").out)
    assert (found["n"], found["a"]["value"], found["b"]["value"]) == (21, 3 / 21, 3 / 21)
    assert (found["better"], found["worse"]) == (["6", "13", "20"], ["1", "8", "15"])
    assert found["flips"][0]["answer_a"] == "#### 1" and found["flips"][0]["prompt"].startswith(
        "What is left"
    )


@pytest.mark.parametrize(
    ("task", "line", "flags", "metrics"),
    [
        (
            "gsm8k",
            {"question": "How much?", "answer": "#### 7"},
            ["-t", "0.8", "--seed", "1", "--samples", "3", "--seeds", "2"],
            ["accuracy", "accuracy pass@1", "accuracy pass@3", "accuracy majority"],
        ),
        (
            "blimp",
            {"UID": "", "pairID": "", "sentence_good": "The cats sleep.", "sentence_bad": "The cats sleeps."},
            [],
            ["acc"],
        ),
        ("perplexity", {"text": "The cat sat on the mat. It slept."}, [], ["bits_per_byte"]),
    ],
)
def test_values_are_those_of_the_results(
    tmp_path: Path, task: str, line: dict[str, str], flags: Sequence[str], metrics: Sequence[str]
) -> None:
    """Both are made of the samples, by different modules."""
    data = tmp_path / "data.jsonl"
    lines = [{name: f"{i} {text}" for name, text in line.items()} for i in range(6)]
    if task == "gsm8k":
        lines = [{**each, "answer": f"#### {i}"} for i, each in enumerate(lines)]
    data.write_text("".join(json.dumps(each) + "\n" for each in lines))
    fake = tmp_path / "fake.json"
    fake.write_text(json.dumps({"default_reply": "#### 3"}))
    run = tmp_path / "run"
    done = infer("eval", task, "--data", data, "-m", f"fake:{fake}", "-o", run, *flags)
    assert done.code == 0, done.err
    values = {
        score["metric"]: score["value"] for score in json.loads((run / "results.json").read_text())["scores"]
    }
    found = json.loads(infer("compare", run, run, "--all-metrics", "--json").out)
    assert [each["metric"] for each in found] == metrics
    assert {each["metric"]: each["a"]["value"] for each in found} == pytest.approx(
        {name: values[name] for name in metrics}
    )


def test_one_item_differs(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, right(*scores(20, n))) for name, n in (("a", 10), ("b", 11)))
    text = infer("compare", a, b, "--flips", "1").text
    assert " 1 item differs: 1 better with B, 0 worse." in text
    assert "A and B: 1 of 1 item that differs\n" in text
