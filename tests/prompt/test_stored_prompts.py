"""Prompt templates as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer_cli.errors import UsageError
from infer_cli.prompt.stored_prompts import PromptTemplate, load, names
from infer_cli.system.paths import config_dir


def _save(name: str, text: str) -> Path:
    path = config_dir() / "prompts" / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_named_template() -> None:
    _save("translate", "Translate to {{ language }}:\n\n{{ input }}\n")
    template = load("translate")
    assert template.variables == ("language",)
    assert template.render({"language": "French"}, "Good morning") == "Translate to French:\n\nGood morning"
    assert names() == ["translate"]


def test_a_path(tmp_path: Path) -> None:
    path = tmp_path / "p.md"
    path.write_text("Hi {{ who }}", encoding="utf-8")
    assert load(str(path)).render({"who": "you"}, "") == "Hi you"


def test_input_is_appended_where_the_template_has_no_place() -> None:
    template = PromptTemplate("t", "Summarize.\n")
    assert template.render({}, "text") == "Summarize.\n\ntext"
    assert template.render({}, "") == "Summarize."
    assert PromptTemplate("t", "").render({}, "text") == "text"


def test_input_is_data() -> None:
    assert PromptTemplate("t", "{{ input }}").render({}, "{{ 1 + 1 }} {% raw") == "{{ 1 + 1 }} {% raw"


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(UsageError, match=r"needs the variable 'b' \(given: a\)") as caught:
        PromptTemplate("t", "{{ a }} {{ b }}").render({"a": "1"}, "")
    assert caught.value.hint == "add --var b=VALUE"


def test_a_variable_may_have_a_default() -> None:
    assert (
        PromptTemplate("t", "{{ a|default('x') }}{% if b is defined %}{{ b }}{% endif %}").render({}, "")
        == "x"
    )


def test_an_unknown_variable_is_named() -> None:
    with pytest.raises(UsageError, match=r"no variable lang \(it has: language\)"):
        PromptTemplate("t", "{{ language }}").render({"language": "x", "lang": "y"}, "")
    with pytest.raises(UsageError, match="input"):
        PromptTemplate("t", "{{ input }}").render({"input": "x"}, "")


def test_builtins_and_own_names_are_no_variables() -> None:
    source = "{% set n = 2 %}{% for i in range(n) %}{{ i }}{{ sep }}{% endfor %}"
    assert PromptTemplate("t", source).variables == ("sep",)


def test_a_broken_template_names_its_line() -> None:
    with pytest.raises(UsageError, match="'t', line 2"):
        PromptTemplate("t", "a\n{% if %}").render({}, "")
    with pytest.raises(UsageError, match="too much work"):
        PromptTemplate("t", "{{ 'x' * 10**9 }}").render({}, "")


def test_a_template_that_is_not_there() -> None:
    _save("one", "1")
    _save("two", "2")
    with pytest.raises(UsageError, match="no prompt template 'three'") as caught:
        load("three")
    assert caught.value.hint == "there are: one, two"


def test_without_any_template_the_hint_says_where_to_write_one() -> None:
    with pytest.raises(UsageError) as caught:
        load("three")
    assert "NAME.md" in caught.value.hint


def test_a_name_does_not_leave_the_directory() -> None:
    with pytest.raises(UsageError, match="no prompt template"):
        load("../config")


def test_a_directory_or_binary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't read"):
        load(str(tmp_path))
    (tmp_path / "x.md").write_bytes(b"a\xff")
    with pytest.raises(UsageError, match="offset 1"):
        load(str(tmp_path / "x.md"))
