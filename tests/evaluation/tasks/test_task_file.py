"""Tasks from TOML: what each table may hold, and what is said of one that holds something else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.loading import load_task, read_task, shipped_tasks
from infer_cli.evaluation.tasks.task import Extraction, MessageTemplate, ScorerSpec
from infer_cli.settings.sampling import SAMPLING_NAMES
from tests.cli_helpers import REPO
from tests.evaluation.tasks.examples import CHOICE, GENERATE, HEAD, task_of


def test_every_table_is_read() -> None:
    task = task_of("""
name = "capitals"
version = "1.2"
kind = "generate"
description = "Capitals of countries"
licence = "CC0"
citation = "@misc{capitals}"

[data]
path = "capitals.jsonl"
format = "jsonl"
id = ["set", "number"]
group = "continent"
cluster = "country"

[prompt]
system = "Answer in one word."
messages = [{ role = "user", content = "{{ country }}?" }]

[answer]
references = ["{{ capital }}", "{{ other }}"]

[fewshot]
n = 2
draw = "seeded"
seed = 7
path = "shots.jsonl"
answer = "{{ capital }}"
separator = "---"

[generation]
temperature = 0.7
top_k = 20
max_tokens = 30
stop = ["\\n"]
cut_is_wrong = false

[[extraction]]
kind = "regex"
pattern = "is (.*)"
group = 0
first = true

[[extraction]]
kind = "letter"
letters = "XY"

[[scorer]]
kind = "exact"

[[scorer]]
kind = "number"
name = "close"
tolerance = 0.1
""")
    assert (task.name, task.version, task.kind, task.licence) == ("capitals", "1.2", "generate", "CC0")
    assert (task.data.id, task.data.group, task.data.cluster) == (("set", "number"), "continent", "country")
    assert task.prompt.messages == (MessageTemplate("user", "{{ country }}?"),)
    assert task.answer.references == ("{{ capital }}", "{{ other }}")
    assert task.fewshot is not None
    assert (task.fewshot.n, task.fewshot.draw, task.fewshot.seed, task.fewshot.separator) == (
        2,
        "seeded",
        7,
        "---",
    )
    assert task.generation.sampling == {"temperature": 0.7, "top_k": 20}
    assert (task.generation.max_tokens, task.generation.stop) == (30, ("\n",))
    assert not task.generation.cut_is_wrong
    assert task.extractions == (
        Extraction("regex", pattern="is (.*)", group=0, first=True),
        Extraction("letter", letters="XY"),
    )
    assert task.scorers == (
        ScorerSpec("exact", "exact"),
        ScorerSpec("number", "close", {"tolerance": 0.1}),
    )
    assert not task.is_code


def test_what_a_task_does_not_say() -> None:
    task = task_of(GENERATE)
    assert (task.data.path, task.data.id, task.fewshot, task.extractions) == (None, (), None, ())
    assert task.prompt.chat and task.answer.delimiter == " "
    choice = task_of(CHOICE + 'choices = ["a", "b"]\ngold = "0"\n')
    assert not choice.prompt.chat and choice.answer.delimiter == " "
    likelihood = task_of(HEAD.format(kind="likelihood") + '[answer]\ncontinuation = "{{ x }}"\n')
    assert likelihood.answer.delimiter == ""


SCORER = '[[scorer]]\nkind = "exact"\n'
PROMPT = '[prompt]\ntext = "{{ q }}"\n'
PAIRS = HEAD.format(kind="minimal_pairs") + '[answer]\ngood = "{{ g }}"\nbad = "{{ b }}"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "kind is missing"),
        (
            'kind = "guess"',
            "kind must be generate, choice, likelihood, minimal_pairs or perplexity, not 'guess'",
        ),
        ('kind = "generate"', "name is missing"),
        ('kind = "generate"\nname = "a/b"', "name can't be 'a/b'"),
        ('kind = "generate"\nname = "t"', "version is missing"),
        ('kind = "generate"\nname = "t"\nversion = 1', "version must be a string, not 1"),
        (HEAD.format(kind="generate") + SCORER, "[prompt] is missing"),
        (HEAD.format(kind="generate") + "[prompt]\n" + SCORER, "[prompt] text is missing"),
        (HEAD.format(kind="generate") + "prompt = 3\n", "[prompt] is a number, not a table"),
        (
            HEAD.format(kind="generate") + '[prompt]\ntext = ["a"]\n' + SCORER,
            "[prompt] text must be a string",
        ),
        (HEAD.format(kind="generate") + PROMPT, "[[scorer]] is missing"),
        (HEAD.format(kind="generate") + PROMPT + "[[scorers]]\n", "scorers is no key that there is"),
        (GENERATE.replace("[prompt]", "color = 1\n[prompt]"), "color is no key that there is"),
        (GENERATE.replace("[answer]", "txt = 1\n[answer]"), "[prompt] txt is no key that there is"),
        (GENERATE + "[data]\nid = 3\n", "[data] id must be a string, not 3"),
        (GENERATE + "[data]\nid = []\n", "[data] id is empty"),
        (GENERATE + '[data]\nformat = "xls"\n', "[data] format must be jsonl, csv, tsv or text, not 'xls'"),
        (GENERATE + "[prompt.more]\n", "[prompt] more is no key"),
        (GENERATE + "[generation]\ntop_p = 2\n", "[generation]: top_p must be between 0 and 1, not 2"),
        (
            GENERATE + "[generation]\nmax_tokens = 0\n",
            "[generation] max_tokens must be a whole number between 1",
        ),
        (GENERATE + '[generation]\nstop = [""]\n', "[generation] stop has an empty string"),
        (
            GENERATE + "[generation]\ncut_is_wrong = 1\n",
            "[generation] cut_is_wrong must be true or false, not 1",
        ),
        (GENERATE + "[generation]\nseed = 1\n", "[generation] seed is no key"),
        (GENERATE + "[fewshot]\nn = 2\n", "[fewshot] answer is missing"),
        (
            GENERATE + '[fewshot]\nanswer = "x"\nn = -1\n',
            "[fewshot] n must be a whole number between 0 and 100",
        ),
        (
            GENERATE + '[fewshot]\nanswer = "x"\ndraw = "any"\n',
            "[fewshot] draw must be fixed or seeded, not 'any'",
        ),
        (GENERATE + '[[extraction]]\nkind = "magic"\n', "[[extraction]] 1 kind must be whole, regex"),
        (GENERATE + '[[extraction]]\nkind = "regex"\n', "[[extraction]] 1 pattern is missing"),
        (GENERATE + '[[extraction]]\nkind = "whole"\npattern = "x"\n', "[[extraction]] 1 pattern is no key"),
        (
            GENERATE + '[extraction]\nkind = "whole"\n',
            "extraction must be an array of tables, as in [[extraction]]",
        ),
        (GENERATE + SCORER, "[[scorer]] 2 name 'exact' is another score's too"),
        (GENERATE.replace('kind = "exact"', 'name = "x"'), "[[scorer]] 1 kind is missing"),
        (
            GENERATE.replace('kind = "exact"', 'kind = "exact"\nwhen = 1979-05-27'),
            "[[scorer]] 1 when can't be date",
        ),
        (
            GENERATE.replace('text = "{{ q }}"', 'text = "x"\nchat = false\nsystem = "y"'),
            "[prompt] system needs the",
        ),
        (
            GENERATE.replace('text = "{{ q }}"', 'text = "x"\nmessages = [{role = "user", content = "y"}]'),
            "[prompt] messages has no place beside text",
        ),
        (
            GENERATE.replace('text = "{{ q }}"', 'messages = [{role = "boss", content = "y"}]'),
            "[[prompt.messages]] 1 role must be assistant",
        ),
        (PAIRS + SCORER, "[[scorer]] has no place in a task of the kind minimal_pairs"),
        (PAIRS + PROMPT, "[prompt] has no place in a task of the kind minimal_pairs"),
        (PAIRS + '[fewshot]\nanswer = "x"\n', "[fewshot] has no place"),
        (PAIRS + "[generation]\n", "[generation] has no place"),
        (PAIRS + '[[extraction]]\nkind = "whole"\n', "[[extraction]] has no place"),
        (HEAD.format(kind="perplexity"), "[answer] is missing"),
        (HEAD.format(kind="perplexity") + "[answer]\n", "[answer] text is missing"),
        (HEAD.format(kind="perplexity") + '[answer]\ntext = ""\n', "[answer] text is empty"),
        (CHOICE + 'gold = "0"\n', "[answer] choices is missing"),
        (CHOICE + 'choices = ["a"]\ngold = "0"\n', "[answer] choices has one template"),
        (CHOICE + 'choices = ["a", "b"]\n', "[answer] gold is missing"),
        (CHOICE + 'choices = ["a", 3]\n', "[answer] choices must be an array of strings"),
        (CHOICE + 'choices = ["a", "b"]\ngold = "0"\nreferences = ["x"]\n', "[answer] references is no key"),
        ("name = ", "is not valid TOML"),
        ("a = " + "[" * 2000 + "]" * 2000, "is not valid TOML: it is nested too deeply"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_table_and_key(text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        task_of(text)
    assert raised.value.message.startswith("/tasks/t.toml")
    assert said in raised.value.message, raised.value.message
    assert "\n" not in raised.value.in_full


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3)))
def test_no_value_of_a_key_is_more_than_an_error(value: object) -> None:
    """As a Python task may have them, for which TOML has no form."""
    from infer_cli.evaluation.tasks.task_file import TaskSource
    from infer_cli.evaluation.tasks.task_file import task_of as from_tables

    source = TaskSource("t.py", "t.py", "")
    for key in ("name", "kind", "data", "prompt", "answer", "generation", "extraction", "scorer", "citation"):
        tables = {
            "name": "t", "version": "1", "kind": "generate", "prompt": {"text": "x"},
            "scorer": [{"kind": "exact"}], key: value,
        }  # fmt: skip
        try:
            from_tables(tables, source)
        except UsageError as e:
            assert "t.py" in e.message and "\n" not in e.message


def test_tasks_are_found_by_name_and_path(tmp_path: object) -> None:
    assert [task.name for task in shipped_tasks()] == ["blimp", "gsm8k", "mt_bench", "perplexity"]
    assert load_task("gsm8k").kind == "generate"
    with pytest.raises(UsageError, match="there is no task 'gsm9k'"):
        load_task("gsm9k")
    with pytest.raises(UsageError, match=r"no file \S+/none.toml"):
        load_task(f"{tmp_path}/none.toml")
    with pytest.raises(UsageError, match="it is a directory, not a file"):
        load_task(_folder(f"{tmp_path}/dir.toml"))


def _folder(path: str) -> str:
    from pathlib import Path

    Path(path).mkdir()
    return path


@pytest.mark.parametrize("task", shipped_tasks(), ids=lambda task: task.name)
def test_shipped_tasks_say_what_they_are(task: object) -> None:
    from infer_cli.evaluation.scorers.extraction import Extractor
    from infer_cli.evaluation.scorers.registry import make_scorers
    from infer_cli.evaluation.tasks.task import Task

    assert isinstance(task, Task)
    assert task.data.path is None, "no data ships"
    assert task.description and task.version
    assert not task.citation or task.citation.strip().startswith("@")
    Extractor(task.extractions, task.path)
    assert bool(make_scorers(task, allow_code=False)) == (task.kind == "generate")
    assert read_task(task.text, task.path) == task


_TABLES = {
    "[data]": GENERATE + "[data]\nzzz = 1\n",
    "[prompt]": GENERATE.replace("[answer]", "zzz = 1\n[answer]"),
    "[fewshot]": GENERATE + '[fewshot]\nanswer = "x"\nzzz = 1\n',
}
_ANSWERS = {
    "generate": GENERATE.replace("[[scorer]]", "zzz = 1\n[[scorer]]"),
    "choice": CHOICE + 'choices = ["a", "b"]\ngold = "0"\nzzz = 1\n',
    "likelihood": HEAD.format(kind="likelihood") + '[answer]\ncontinuation = "x"\nzzz = 1\n',
    "minimal_pairs": PAIRS + "zzz = 1\n",
    "perplexity": HEAD.format(kind="perplexity") + '[answer]\ntext = "x"\nzzz = 1\n',
}


def _keys(text: str) -> set[str]:
    """The keys that an error about an unknown one names."""
    with pytest.raises(UsageError) as raised:
        task_of(text)
    return set(raised.value.hint.removeprefix("keys are ").split(", "))


def _listed(heading: str) -> list[tuple[set[str], str]]:
    """Of the tables of a section of the docs: keys, and the second cell."""
    section = (REPO / "docs" / "tasks.md").read_text("utf-8").split(f"\n### {heading}\n")[1].split("\n#")[0]
    rows = [row.split(" | ") for row in section.splitlines() if row.startswith("| `")]
    return [(set(re.findall(r"`(\w+)`", row[0])), row[1]) for row in rows]


@pytest.mark.parametrize("heading", list(_TABLES))
def test_the_docs_list_every_key(heading: str) -> None:
    listed = {key for keys, _ in _listed(heading) for key in keys}
    assert listed - {"jsonl", "csv", "tsv", "text"} == _keys(_TABLES[heading]) - {"text"}


def test_the_docs_list_every_key_of_an_answer() -> None:
    rows = _listed("[answer]")
    for kind, text in _ANSWERS.items():
        ours = {key for keys, kinds in rows if f"`{kind}`" in kinds for key in keys}
        assert ours - {"delimiter"} == _keys(text) - {"delimiter"}
    assert {"delimiter"} <= _keys(_ANSWERS["choice"]) & {key for keys, _ in rows for key in keys}


def test_the_docs_list_every_key_of_generation_and_of_the_top() -> None:
    listed = {key for keys, _ in _listed("[generation]") for key in keys}
    known = _keys(GENERATE + "[generation]\nzzz = 1\n")
    assert listed - {"temperature", "top_p"} == known - set(SAMPLING_NAMES)
    page = (REPO / "docs" / "tasks.md").read_text("utf-8").split("## The file")[1].split("###")[0]
    top = set(
        re.findall(r"`(\w+)`", "".join(row.split(" | ")[0] for row in page.splitlines() if row[:3] == "| `"))
    )
    tables = {"data", "prompt", "answer", "fewshot", "generation", "extraction", "scorer"}
    assert top == _keys(GENERATE.replace("[prompt]", "zzz = 1\n[prompt]")) - tables
