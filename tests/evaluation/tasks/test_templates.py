"""Templates of tasks: what fails names file, table, key and row, and hostile ones end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.templates import TaskTemplate, Templates
from infer_cli.prompt.renderer import TemplateSource, shared
from tests.evaluation.tasks.examples import CHOICE, GENERATE, HEAD, items_of, task_of

ROWS = [{"q": "one", "a": "1"}, {"q": "two", "a": "2"}, {"q": "three"}]


def wrong(text: str, folder: Path, rows: list[dict[str, object]] | None = None) -> UsageError:
    with pytest.raises(UsageError) as raised:
        items_of(text, folder, ROWS if rows is None else rows)
    assert "\n" not in raised.value.in_full
    return raised.value


def asking(template: str) -> str:
    return GENERATE.replace("'", '"').replace('"{{ q }}"', f"'''{template}'''")


def test_a_missing_field_names_file_table_key_and_row(tmp_path: Path) -> None:
    error = wrong(GENERATE, tmp_path)
    assert error.message == (
        f"{tmp_path}/data.jsonl: row 2 has no field 'a',"
        f" which is needed by {tmp_path}/t.toml: [answer] references"
    )
    assert error.hint == "it has q"
    error = wrong(GENERATE + '[data]\nid = "q"\n', tmp_path)
    assert "row 2 ('three')" in error.message


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ q", "[prompt] text: the template fails in line 1: unexpected end of template"),
        ("{% for x in %}", "[prompt] text: the template fails in line 1"),
        ("x\n{{ q.x.y }}", "[prompt] text: row 0: the template fails in line 2"),
        ("{{ q[5] + 1 }}", "row 0: the template fails"),
        ("{{ raise_exception(q) }}", "row 0: it raised: one"),
        ("{% if false %}{{ q }}{% endif %}", "row 0: a message is empty"),
        ("{{ '\\ud800' }}", "row 0: it gives half a surrogate pair"),
        ("{{ q.__class__.__mro__ }}", "row 0: the template fails"),
        (
            "{% for i in range(10**9) %}{% for j in range(10**9) %}x{% endfor %}{% endfor %}",
            "row 0: the template",
        ),
        ("{{ 'x' * 10**10 }}", "row 0: the template fails"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "row 0: the template fails"),
        (
            "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
            "row 0: the",
        ),
        ("{{ 9 ** (10 ** 9) }}", "row 0: the template fails"),
    ],
)
def test_what_fails_is_one_line_and_soon(template: str, said: str, tmp_path: Path) -> None:
    began = time.monotonic()
    error = wrong(asking(template), tmp_path)
    assert said in error.message, error.message
    assert error.message.startswith(f"{tmp_path}/t.toml: [prompt]")
    assert time.monotonic() - began < 30


def test_a_template_has_fields_and_the_whole_row(tmp_path: Path) -> None:
    rows = [{"q": "x", "two words": [1, {"k": "é"}], "a": ""}]
    text = GENERATE.replace("{{ q }}", "{{ q }} {{ doc['two words'][1].k }} {{ doc | length }}")
    assert items_of(text, tmp_path, rows)[0].rows[0]["prompt"] == "x é 3"


@pytest.mark.parametrize("text", ["", " x ", "<b> & {{ a }}\n\n", "\r\n{% raw %}", "é\u2028\U0001f600"])
def test_a_field_alone_is_what_the_renderer_makes_of_it(text: str) -> None:
    task = task_of(GENERATE)
    doc = {"q": text, "true": "y", "n": 1}
    for field, plain in (("{{ q }}", True), ("{{q}}", True), ("{{ n }}", False), ("{{ true }}", False)):
        found = Templates(task).text(TaskTemplate("k", field), doc, "row 0")
        asked = shared().render(TemplateSource(field, strict=True), doc)
        assert found == asked and (found == text) == plain


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ q }}", "what it gives is not JSON"),
        ("{{ doc | tojson }}", "what it gives is not a JSON array of strings"),
        ("[1, 2]", "what it gives is not a JSON array of strings"),
        ('["one"]', "there is nothing to choose"),
        ('["one", ""]', "a choice is empty"),
        ("[" * 5000, "what it gives is JSON nested too deeply"),
    ],
)
def test_a_list_that_is_none(template: str, said: str, tmp_path: Path) -> None:
    error = wrong(CHOICE + f"choices = '''{template}'''\ngold = '0'\n", tmp_path)
    assert f"{tmp_path}/t.toml: [answer] choices: row 0: {said}" in error.message


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ("2", "'2' is none of the choices"),
        ("C", "'C' is none of the choices"),
        ("three", "'three' is none of the choices"),
        ("{{ '' }}", "'' is none of the choices"),
        ("-1", "'-1' is none of the choices"),
        ("9999999999999", "'9999999999999' is none of the choices"),
    ],
)
def test_a_gold_that_is_no_choice(gold: str, said: str, tmp_path: Path) -> None:
    error = wrong(CHOICE + f'choices = ["one", "two"]\ngold = "{gold}"\n', tmp_path)
    assert f"[answer] gold: row 0: {said}" in error.message


def test_a_gold_of_two_meanings(tmp_path: Path) -> None:
    error = wrong(CHOICE + 'choices = ["1", "0"]\ngold = "0"\n', tmp_path)
    assert "'0' could mean the choices 0 and 1" in error.message
    assert "{{ 'ABCD'[place] }}" in error.hint
    item = items_of(CHOICE + 'choices = ["0", "1"]\ngold = "1"\n', tmp_path)[0]
    assert item.gold == 1


def test_empty_texts(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"t": "x"}, {"t": ""}]
    for kind, key in (("likelihood", "continuation"), ("perplexity", "text")):
        error = wrong(HEAD.format(kind=kind) + f'[answer]\n{key} = "{{{{ t }}}}"\n', tmp_path, rows)
        assert f"[answer] {key}: row 1: the text is empty" in error.message
    pairs = HEAD.format(kind="minimal_pairs") + '[answer]\ngood = "{{ t }}"\nbad = "x"\n'
    assert "[answer] bad: row 0: it is the same text" in wrong(pairs, tmp_path, rows).message
