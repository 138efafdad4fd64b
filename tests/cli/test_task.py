"""`infer task` as its user meets it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli_helpers import REPO, infer, one_error_line, script
from tests.evaluation.runs.run_helpers import write_sums
from tests.terminal import Terminal
from tests.tiny_gguf import write_tiny_gguf

DATA = Path(os.environ.get("INFER_TEST_DATA", REPO.parent / "shared" / "data"))
TASK = """
name = "capitals"
version = "1"
kind = "generate"
[data]
path = "rows.jsonl"
id = "country"
group = "continent"
[prompt]
text = "What is the capital of {{ country }}?"
[answer]
references = ["{{ capital }}"]
[fewshot]
answer = "{{ capital }}"
[[scorer]]
kind = "normalized"
[[scorer]]
kind = "contains"
"""
ROWS = [
    {"country": "France", "capital": "Paris", "continent": "Europe"},
    {"country": "Japan", "capital": "Tokyo", "continent": "Asia"},
    {"country": "Kenya", "capital": "Nairobi", "continent": "Africa"},
    {"country": "Peru", "capital": "Lima", "continent": "America"},
]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    path = tmp_path / "capitals.toml"
    path.write_text(TASK, "utf-8")
    return path


def _json(*arguments: object) -> Any:
    done = infer("task", *arguments, "--json")
    assert (done.code, done.err) == (0, ""), done
    return json.loads(done.out)


def test_the_list_in_a_pipe_and_as_json() -> None:
    lines = [line.split("\t") for line in infer("task", "list").text.splitlines()]
    assert [line[0] for line in lines] == ["blimp", "gsm8k", "mt_bench", "perplexity"]
    assert [line[2] for line in lines] == ["minimal_pairs", "generate", "generate", "perplexity"]
    listed = _json("list")
    assert [each["name"] for each in listed] == [line[0] for line in lines]
    assert "@article{cobbe2021gsm8k" in listed[1]["citation"]


def test_the_list_on_a_terminal() -> None:
    with Terminal("task", "list", columns=80) as terminal:
        terminal.end()
        lines = terminal.text.splitlines()
    assert lines[0].split() == ["task", "version", "kind", "what"]
    assert all(len(line) <= 80 for line in lines)


def test_what_a_check_shows(task: Path) -> None:
    done = infer("task", "check", task, "-m", "fake")
    assert (done.code, done.err) == (0, "")
    assert all(len(line) <= 80 for line in done.text.splitlines() if str(task.parent) not in line)
    for said in (
        "task    capitals, version 1: generate",
        "items   4",
        "--- item France · group Europe ---",
        "--- item Kenya · group Africa ---",
        "--- item Peru · group America ---",
        "What is the capital of Peru?",
        "all items fit",
    ):
        assert said in done.text, done.text
    tables = [line.split() for line in done.text.splitlines() if line.startswith("its reference")]
    assert [line[2:5] for line in tables] == [["Paris", "1", "1"], ["Nairobi", "1", "1"], ["Lima", "1", "1"]]


def test_a_check_as_json(task: Path) -> None:
    found = _json("check", task, "-m", "fake", "--fewshot", 2)
    assert found["task"] == {"name": "capitals", "version": "1", "kind": "generate", "description": ""}
    assert (found["n_items"], found["model"], len(found["data"]["sha256"])) == (4, "fake", 64)
    first, middle, last = found["items"]
    assert [item["id"] for item in (first, middle, last)] == ["France", "Kenya", "Peru"]
    assert middle["fewshot"] == ["France", "Japan"]
    assert "Tokyo" in middle["prompts"][0]["text"] and "Nairobi" not in middle["prompts"][0]["text"]
    answers = {answer["what"]: answer for answer in first["answers"]}
    assert answers["its reference"]["scores"] == {"normalized": 1.0, "contains": 1.0}
    assert answers["as an example"]["text"] == "Paris"
    assert answers["nothing"]["text"] == "" and set(answers["nothing"]["scores"].values()) == {0.0}
    assert answers["another item's"]["text"] == "Nairobi"
    assert set(answers["another item's"]["scores"].values()) == {0.0}
    tokens = found["tokens"]
    assert 0 < tokens["least"] <= tokens["median"] <= tokens["most"]
    assert (tokens["n_rows"], tokens["n_too_long"], tokens["too_long"]) == (4, 0, [])


def test_prompts_are_what_the_model_is_given(task: Path, tmp_path: Path) -> None:
    """Against the tokens that a batch counts, with a model's own template and without."""
    from infer_cli.evaluation.tasks.item_file import write_items
    from infer_cli.evaluation.tasks.items import read_items
    from infer_cli.evaluation.tasks.loading import load_task
    from infer_cli.evaluation.tasks.selection import Selection

    tiny = write_tiny_gguf(tmp_path / "tiny.gguf", n_ctx_train=2048)
    found = _json("check", task, "-m", tiny)
    requests = tmp_path / "requests.jsonl"
    write_items(read_items(load_task(str(task)), Selection()).items(), tmp_path / "items.jsonl", requests)
    done = infer("batch", requests, "-m", tiny, "-n", 1, "-o", "-")
    counted = sorted(json.loads(line)["usage"]["prompt_tokens"] for line in done.out.splitlines())
    tokens = found["tokens"]
    assert (tokens["least"], tokens["median"], tokens["most"]) == (counted[0], counted[2], counted[3])


def test_items_that_do_not_fit_are_named(task: Path, tmp_path: Path) -> None:
    rows = [{**row, "country": row["country"] + " and" * (300 * i)} for i, row in enumerate(ROWS)]
    (task.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    task.write_text(TASK.replace('id = "country"\n', ""), "utf-8")
    found = _json("check", task, "-m", script(tmp_path, n_ctx_train=800))
    tokens = found["tokens"]
    assert tokens["window"] == 800 and tokens["n_too_long"] == len(tokens["too_long"]) > 0
    assert "0" not in tokens["too_long"] and "3" in tokens["too_long"]
    shown = infer("task", "check", task, "-m", script(tmp_path, n_ctx_train=800)).text
    assert f"window  800: {tokens['n_too_long']} do" in shown and "3)" in shown


@pytest.mark.parametrize(
    ("task_name", "path", "said"),
    [
        ("gsm8k", "gsm8k/train_200.jsonl", "as an example   72                1  Natalia"),
        ("mt_bench", "mt_bench/question.jsonl", "travel blog post"),
        ("blimp", "blimp/wh_island.jsonl", "[right] Who have those men revealed they helped?"),
        ("perplexity", "wikitext2/valid.txt", "more pieces"),
    ],
)
def test_the_shipped_tasks(task_name: str, path: str, said: str) -> None:
    done = infer("task", "check", task_name, "--data", DATA / path, "-m", "fake")
    assert (done.code, done.err) == (0, "") and said in done.text


def test_choices_show_which_is_right(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "Sky?", "c": ["red", "blue"], "g": "B"}\n')
    task = tmp_path / "t.toml"
    task.write_text(
        'name = "t"\nversion = "1"\nkind = "choice"\n[data]\npath = "rows.jsonl"\n[prompt]\n'
        'text = "{{ q }}"\n'
        "[answer]\nchoices = '{{ c | tojson }}'\ngold = '{{ g }}'\n"
    )
    lines = infer("task", "check", task, "-m", "fake").text.splitlines()
    assert lines[-3:] == ["Sky?", "[wrong]  red", "[right]  blue"]


def test_a_python_task(tmp_path: Path) -> None:
    task = tmp_path / "t.py"
    task.write_text(
        'TASK = {"name": "t", "version": "1", "kind": "generate"}\n'
        "def items(): return [{'n': i} for i in range(3)]\n"
        "def prompt(doc): print('aside'); return f'{doc[\"n\"]}?'\n"
        "def references(doc): return str(doc['n'])\n"
        "def score(text, doc): return 1 / (len(text) - 1) if text != '1' else 0.5\n"
    )
    one_error_line(infer("task", "check", task, "-m", "fake"), 2, "is a Python task", "--allow-code")
    done = infer("task", "check", task, "-m", "fake", "--allow-code")
    assert done.code == 0 and "aside" not in done.text and "aside" in done.err
    assert "its reference: a scorer failed: " in done.text and "ZeroDivisionError" in done.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((), ["capitals.toml: [prompt] text: row 0 ('France'): the row has no field 'town'"]),
        (("--data", "none.jsonl"), ["no file none.jsonl"]),
        (("--fewshot", "9"), ["[fewshot] n: 9 examples are asked for"]),
        (("--fewshot-seed", "1"), ["--fewshot-seed has no meaning for capitals"]),
    ],
)
def test_what_is_wrong_is_one_line(task: Path, change: tuple[str, ...], words: list[str]) -> None:
    if not change:
        task.write_text(TASK.replace("of {{ country }}", "of {{ town }}"), "utf-8")
    one_error_line(infer("task", "check", task, "-m", "fake", *change), 2, *words)


def test_a_task_or_a_model_that_is_none(task: Path) -> None:
    one_error_line(infer("task", "check", "none", "-m", "fake"), 2, "there is no task 'none'", "gsm8k")
    one_error_line(infer("task", "check", task, "-m", "none.gguf"), 3, "none.gguf")
    task.write_text(TASK.replace('kind = "contains"', 'kind = "contain"'), "utf-8")
    one_error_line(infer("task", "check", task, "-m", "fake"), 2, "[[scorer]] 2", "did you mean contains?")


def test_a_base_model_and_a_task_that_needs_a_chat_template(task: Path, tmp_path: Path) -> None:
    base = write_tiny_gguf(tmp_path / "base.gguf", overrides={"tokenizer.chat_template": None})
    one_error_line(infer("task", "check", task, "-m", base), 2, "row 'France'", "has no chat template")


def test_a_long_id_is_shortened(tmp_path: Path) -> None:
    task, data = write_sums(tmp_path)
    data.write_text(data.read_text().replace('"q0"', json.dumps("q" * 500)))
    done = infer("task", "check", task, "--data", data, "-m", "fake")
    assert done.code == 0, done
    assert "q" * 39 + "…" in done.text
    assert "q" * 40 not in done.text
    found = infer("task", "check", task, "--data", data, "-m", "fake", "--json").json
    assert found["items"][0]["id"] == "q" * 500  # type: ignore[index]
