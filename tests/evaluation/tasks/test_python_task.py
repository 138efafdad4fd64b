"""Tasks that are Python: run only where that is allowed, and what they raise is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.items import read_items
from infer_cli.evaluation.tasks.loading import load_task, read_task
from infer_cli.evaluation.tasks.selection import Selection
from infer_cli.evaluation.tasks.task import Task, TaskCodeFailed
from tests.evaluation.tasks.examples import write_rows

TABLES = 'TASK = {"name": "sums", "version": "1", "kind": "generate"}\n'
WHOLE = (
    TABLES
    + """
def items():
    for i in range(3):
        yield {"a": i, "b": 2}

def prompt(doc):
    return f"{doc['a']} + {doc['b']}?"

def references(doc):
    return str(doc["a"] + doc["b"])

def extract(text, doc):
    return text.split()[-1] if text.strip() else None

def score(text, doc):
    return text == references(doc)
"""
)


def saying(table: str) -> str:
    """The whole task with one more table."""
    return WHOLE.replace('"generate"}', f'"generate", {table}}}')


def task_of(text: str) -> Task:
    return read_task(text, "/tasks/t.py", allow_code=True)


def test_its_functions_are_used() -> None:
    task = task_of(WHOLE)
    assert task.is_code and task.text == WHOLE
    items = read_items(task, Selection())
    assert (items.n_all, items.data_path) == (3, "/tasks/t.py: items()")
    rows = [(item.rows[0], item.references) for item in items.items()]
    assert rows[1] == ({"custom_id": "1", "prompt": "1 + 2?"}, ("3",))
    assert len({items.data_sha256, read_items(task, Selection()).data_sha256}) == 1
    found = task.functions
    assert found.extract is not None and found.score is not None
    assert (found.extract("it is 3", {}), found.extract(" ", {})) == ("3", None)
    assert found.score("3", {"a": 1, "b": 2}) == 1.0


def test_messages_and_tables(tmp_path: Path) -> None:
    text = (
        'TASK = {"name": "t", "version": "1", "kind": "generate", "scorer": [{"kind": "exact"}],\n'
        '        "answer": {"references": ["{{ a }}"]}, "data": {"id": "q"}}\n'
        "def prompt(doc):\n"
        '    return [{"role": "system", "content": "x"}, {"role": "user", "content": doc["q"]}]\n'
    )
    path = write_rows(tmp_path, [{"q": "why", "a": "so"}])
    (item,) = read_items(task_of(text), Selection(data=path)).items()
    assert item.rows[0]["messages"] == [
        {"role": "system", "content": "x"},
        {"role": "user", "content": "why"},
    ]
    with pytest.raises(UsageError, match=r"prompt\(\): row 0 \('why'\): it gave messages"):
        list(read_items(task_of(text), Selection(data=path, chat=False)).items())


def test_code_runs_only_where_it_is_allowed(tmp_path: Path) -> None:
    path, mark = tmp_path / "t.py", tmp_path / "mark"
    path.write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n" + WHOLE)
    with pytest.raises(
        UsageError, match="is a Python task: code that would run with all that you may do"
    ) as raised:
        load_task(str(path))
    assert "--allow-code" in raised.value.hint
    assert not mark.exists()
    assert load_task(str(path), allow_code=True).name == "sums"
    assert mark.exists()


def test_what_it_prints_is_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    task = task_of(
        "print('one')\n" + WHOLE.replace("def prompt(doc):\n", "def prompt(doc):\n    print('two')\n")
    )
    list(read_items(task, Selection()).items())
    captured = capsys.readouterr()
    assert captured.out == "" and {"one", "two"} <= set(captured.err.split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = ", "the module failed in line 1: SyntaxError"),
        ("\nraise ValueError('two\\nlines')", "the module failed in line 2: ValueError: two lines"),
        ("import sys\nsys.exit(3)", "the module failed in line 2: SystemExit: 3"),
        ("import nothing_like_it", "the module failed in line 1: ModuleNotFoundError"),
        ("def f(): f()\nf()", "the module failed in line 1: RecursionError"),
        ("class E(Exception):\n    def __str__(self): 1 / 0\nraise E", "the module failed in line 3: E"),
        ("x = 1", "has no TASK"),
        ("TASK = [1]", "is an array, not a table"),
        (TABLES + "prompt = 3", "prompt is not a function"),
        (TABLES, "[prompt] is missing"),
        (TABLES + "def prompt(doc): pass", "[[scorer]] is missing"),
        (WHOLE.replace('"generate"', '"choice"'), "references() is for tasks of the kind generate"),
        (saying('"prompt": {"text": "x"}'), "[prompt] text has no place beside prompt()"),
        (saying('"data": {"path": "x"}'), "[data] path has no place beside items()"),
        (saying('"answer": {"references": ["x"]}'), "has no place beside references()"),
        (saying('"extraction": [{"kind": "whole"}]'), "has no place beside extract()"),
        (saying('"scorer": [{"kind": "exact", "name": "score"}]'), "name score, which is that of score()"),
        (saying('"data": {1: 2}'), "[data] 1 is not the name of a key"),
    ],
)  # fmt: skip
def test_a_module_that_is_no_task_is_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        task_of(text)
    assert raised.value.message.startswith("/tasks/t.py") and said in raised.value.message, (
        raised.value.message
    )
    assert "\n" not in raised.value.in_full


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("def items(): return 3", "items() gave 3, not rows"),
        ("def items(): return [3]", "items() gave 3, not rows"),
        (
            "def items():\n    yield {}\n    1 / 0",
            "items() failed in line 20: ZeroDivisionError: division by zero",
        ),
        ("def items(): return []", "items() has no rows"),
        ("def items(): yield {'a': {1, 2}}", "items(): row 0 holds set, which JSON has not"),
        ("def items(): yield {'a': float('nan')}", "items(): row 0 holds nan, which JSON has not"),
        ("def items(): yield {1: 2}", "items(): row 0 has the key 1, which is not a string"),
        ("def prompt(doc): return doc['c']", "prompt() failed in line 18: KeyError: 'c'"),
        ("def prompt(doc): return None", "prompt() gave None, not a string or a list"),
        ("def prompt(doc): return [{'role': 'x', 'content': 'y'}]", "prompt() gave list, not"),
        ("def prompt(doc): return '\\ud800'", "prompt() gave '\\ud800', not a string"),
        ("def references(doc): return [1]", "references() gave list, not a string or a list of strings"),
        ("def references(doc): raise SystemExit", "references() failed in line 18: SystemExit"),
    ],
)
def test_a_function_that_fails_is_one_line(function: str, said: str) -> None:
    task = task_of(WHOLE + function)
    with pytest.raises(UsageError) as raised:
        list(read_items(task, Selection()).items())
    assert said in raised.value.message, raised.value.message
    assert "\n" not in raised.value.in_full


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("def score(text, doc): return float('inf')", "score() gave inf, not a finite number"),
        ("def score(text, doc): return 'x'", "score() gave 'x', not a finite number"),
        ("def score(text, doc): raise MemoryError", "score() failed in line 18: MemoryError"),
        ("def score(text): return 1", "score() failed: TypeError"),
    ],
)
def test_a_score_that_is_none(function: str, said: str) -> None:
    score = task_of(WHOLE + function).functions.score
    assert score is not None
    with pytest.raises(TaskCodeFailed) as raised:
        score("x", {})
    assert said in raised.value.message, raised.value.message


def test_an_interrupt_is_the_user_s() -> None:
    task = task_of(WHOLE + "def prompt(doc): raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        list(read_items(task, Selection()).items())
