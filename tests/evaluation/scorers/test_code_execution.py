"""The scorer `code`: from a task's table and an answer to a score."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.scorers import code_execution
from infer_cli.evaluation.scorers.code_sandbox import CodeLimits, Ran, SandboxFailed
from infer_cli.evaluation.scorers.registry import make_scorers
from infer_cli.evaluation.scorers.scorer import Answer, Score, Scorer, ScorerFailed
from infer_cli.evaluation.tasks.loading import read_task
from tests.cli_helpers import infer, one_error_line, script
from tests.evaluation.scorers.test_code_sandbox import WORKING

HUMAN_EVAL = "{{ prompt }}{{ extracted }}\n{{ test }}\ncheck({{ entry_point }})"
ROW = {
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3",
    "entry_point": "add",
}

needs_sandbox = pytest.mark.skipif(not WORKING, reason="this system has no sandbox: code is refused here")


class Sandbox:
    """One that only notes what it is told to run."""

    def __init__(self) -> None:
        self.programs: list[tuple[str, CodeLimits]] = []

    def run(self, program: str, limits: CodeLimits) -> Ran:
        self.programs.append((program, limits))
        if "break" in program:
            raise SandboxFailed("out of namespaces")
        return Ran("wrong" not in program, "because" if "wrong" in program else "")


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    sandbox = Sandbox()
    monkeypatch.setattr(code_execution, "find_sandbox", lambda: sandbox)
    return sandbox


def scorer(options: str = "", program: str = HUMAN_EVAL) -> Scorer:
    text = (
        'name = "t"\nversion = "1"\nkind = "generate"\n[prompt]\ntext = "{{ prompt }}"\n'
        f'[[scorer]]\nkind = "code"\nname = "passes"\nprogram = {json.dumps(program)}\n{options}\n'
    )
    (made,) = make_scorers(read_task(text, "t.toml"), allow_code=True)
    return made


def answer(extracted: str, doc: Mapping[str, object] = ROW, reply: str = "") -> Answer:
    return Answer(reply or extracted, extracted, (), doc)


def test_the_program_is_the_row_and_the_answer(sandbox: Sandbox) -> None:
    scorer().score(answer("    return a + b"))
    ((program, limits),) = sandbox.programs
    assert program == (
        'def add(a, b):\n    """The sum."""\n    return a + b\n'
        "def check(candidate):\n    assert candidate(1, 2) == 3\ncheck(add)"
    )
    assert limits == CodeLimits()


def test_scores_are_0_or_1_and_say_why(sandbox: Sandbox) -> None:
    one = scorer()
    assert (one.is_code, one.is_proportion, one.worst, one.name) == (True, True, 0.0, "passes")
    assert one.score(answer("right")) == Score(1.0)
    assert one.score(answer("wrong")) == Score(0.0, "because")


def test_a_sandbox_that_fails_is_no_wrong_answer(sandbox: Sandbox) -> None:
    with pytest.raises(ScorerFailed, match="the sandbox failed: out of namespaces"):
        scorer().score(answer("break"))


def test_an_answer_is_no_template(sandbox: Sandbox) -> None:
    scorer(program="{{ extracted }}|{{ reply }}").score(answer("{{ 7 * 7 }}", reply="{% raw %}"))
    assert sandbox.programs[0][0] == "{{ 7 * 7 }}|{% raw %}"


def test_a_field_that_the_row_has_not_fails_its_item(sandbox: Sandbox) -> None:
    with pytest.raises(ScorerFailed, match="program: 'test' is undefined"):
        scorer().score(answer("x", doc={"prompt": ""}))


def test_a_field_of_the_row_may_have_a_name_of_ours(sandbox: Sandbox) -> None:
    one = scorer(program="{{ reply }} {{ doc.reply }}")
    one.score(answer("mine", doc={"reply": "the row's"}))
    assert sandbox.programs[0][0] == "mine the row's"


def test_limits_are_the_task_s(sandbox: Sandbox) -> None:
    scorer("seconds = 2.5\nmemory_mib = 100\nfiles_mib = 2\nthreads = 3").score(answer("x"))
    assert sandbox.programs[0][1] == CodeLimits(2.5, 100 << 20, 2 << 20, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("seconds = 0", "seconds must be above 0 and at most 600"),
        ("seconds = 601", "seconds must be above 0 and at most 600"),
        ("memory_mib = 1", "memory_mib must be a whole number between 64"),
        ("threads = true", "threads must be a whole number"),
        ("network = true", "network is no key that there is"),
    ],
)
def test_bad_options_are_one_line(sandbox: Sandbox, options: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        scorer(options)
    assert f"t.toml: [[scorer]] 1 {said}" in caught.value.message


def test_a_broken_template_is_told_before_the_run(sandbox: Sandbox) -> None:
    with pytest.raises(UsageError, match=r"t.toml: \[\[scorer\]\] 1 program fails"):
        scorer(program="x\n{{ if")


@needs_sandbox
@pytest.mark.parametrize(
    ("body", "score"),
    [
        ("    return a + b", Score(1.0)),
        ("    return a - b", Score(0.0, "AssertionError (line 5)")),
        ("    import os; os._exit(0)", Score(0.0, "it ended before the program's end")),
        ("    return c", Score(0.0, "NameError: name 'c' is not defined (line 3)")),
        ("return 1", Score(0.0, "SyntaxError: 'return' outside function (line 3)")),
    ],
)
def test_answers_are_run(body: str, score: Score) -> None:
    assert scorer().score(answer(body)) == score


TASK = """
name = "adding"
version = "1"
kind = "generate"
[data]
path = "rows.jsonl"
id = "id"
[prompt]
text = "{{ question }}"
[[extraction]]
kind = "code_block"
[[scorer]]
kind = "code"
name = "passes"
program = "{{ extracted }}\\n{{ tests }}"
seconds = 2
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "adding.toml"
    path.write_text(TASK)
    rows = [{"id": f"i{n}", "question": f"add {n}", "tests": f"assert add(1) == {n}"} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _model(folder: Path) -> str:
    replies = {f"add {n}": f"It is\n```python\ndef add(x): return {n}\n```\n" for n in range(4)}
    replies["add 4"] = "```python\nwhile True: pass\n```"
    return script(folder, replies=replies, default_reply="no code")


def test_without_allow_code_nothing_is_run(task: Path, tmp_path: Path) -> None:
    done = infer("eval", task, "-o", tmp_path / "run", "-m", _model(tmp_path))
    one_error_line(done, 2, "adding.toml", "[[scorer]] 1 kind is code, which runs code", "--allow-code")


@needs_sandbox
def test_a_run_is_scored_and_rescored_to_the_same_bytes(task: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = infer("eval", task, "-o", run, "-m", _model(tmp_path), "--allow-code", "--json")
    assert done.code == 0, done.err
    ((result,),) = [results["scores"] for results in json.loads(done.out)]
    assert (result["metric"], result["value"], result["n"]) == ("passes", 4 / 6, 6)
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert [sample["scores"]["passes"] for sample in samples] == [1, 1, 1, 1, 0, 0]
    assert samples[4]["explanations"] == {"passes": "it was not done in 2 s"}
    assert samples[5]["outcome"] == "not_extracted"
    before = [(run / name).read_bytes() for name in ("samples.jsonl", "results.json")]
    refused = infer("rescore", run)
    one_error_line(refused, 2, "kind is code, which runs code", "--allow-code")
    again = infer("rescore", run, "--allow-code")
    assert again.code == 0, again.err
    assert "ran code again: passes" in again.err
    assert before == [(run / name).read_bytes() for name in ("samples.jsonl", "results.json")]
