"""Every chat template that llama.cpp tests itself with: what it makes of a standard set of conversations.

`chat_templates.tsv` pins the outcomes: a line a template, with a hash of the text for each conversation.
Its second column says how that compares with transformers 5.24 (`render_jinja_template`), which was asked
once: `same` means equal texts, and the same exceptions of the template. Where texts may change on purpose,
compare again before the table is changed; a failing test shows the new line.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path

import pytest

from infer_cli.prompt.template import ChatTemplate
from infer_cli.prompt.template_check import STANDARD, Outcome, check
from tests.sdist import models_dir

NOW = datetime(2026, 7, 26, 12, 30, tzinfo=timezone.utc)
TABLE = Path(__file__).with_name("chat_templates.tsv")
PINNED = {line.split("\t")[0]: line.split("\t")[1:] for line in TABLE.read_text("utf-8").splitlines()[1:]}


def _pin(outcome: Outcome) -> str:
    """A hash of the text, or of the template's reason against it. How a failure reads is up to Python."""
    if outcome.status == "failed":
        return "failed"
    shown = outcome.reason if outcome.text is None else outcome.text
    short = hashlib.sha256(shown.encode()).hexdigest()[:12]
    return short if outcome.status == "ok" else f"refused:{short}"


@pytest.fixture(scope="session")
def templates(request: pytest.FixtureRequest) -> dict[str, Path]:
    return {path.stem: path for path in (models_dir(request.config.cache) / "templates").glob("*.jinja")}


@pytest.mark.weights
@pytest.mark.timeout(600)
def test_every_template_of_the_sdist_is_pinned(templates: dict[str, Path]) -> None:
    assert templates.keys() == PINNED.keys()


@pytest.mark.weights
@pytest.mark.parametrize("name", PINNED)
def test_texts_are_as_pinned(name: str, templates: dict[str, Path]) -> None:
    source = templates[name].read_text("utf-8")
    report = check(ChatTemplate(source, bos="<s>", eos="</s>", now=NOW))
    for outcome in report.outcomes:
        assert (outcome.status == "ok") == (outcome.reason == "")
        assert len(outcome.reason.splitlines()) <= 1
    found = [_pin(outcome) for outcome in report.outcomes]
    assert PINNED[name][1:] == found, "\t".join((name, PINNED[name][0], *found))


def test_the_table_says_how_transformers_compares() -> None:
    assert TABLE.read_text("utf-8").splitlines()[0].split("\t")[2:] == [c.name for c in STANDARD]
    others = {name: verdict for name, (verdict, *_) in PINNED.items() if verdict != "same"}
    assert len(PINNED) - len(others) >= 60
    assert all(len(reason) > 20 for reason in others.values())


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _statuses(source: str) -> dict[str, str]:
    report = check(ChatTemplate(source, bos="", eos="", now=NOW))
    return {outcome.name: outcome.status for outcome in report.outcomes}


def test_a_plain_template() -> None:
    report = check(ChatTemplate(CHATML, bos="", eos="", now=NOW))
    assert report.holds
    assert report.warnings == ()
    ignored = {outcome.name for outcome in report.outcomes if outcome.status == "refused"}
    assert ignored == {"tools", "tools and system prompt", "tool results", "turns after tool results"}
    assert {outcome.reason for outcome in report.outcomes if outcome.reason} == {"ignores the tools"}


def test_what_a_template_refuses_and_where_it_fails() -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    report = check(ChatTemplate(refusing, bos="", eos="", now=NOW))
    assert {o.reason for o in report.outcomes if o.name.startswith("system")} == {"no system"}
    assert report.holds
    assert "it takes no system prompt" in report.warnings[0]
    failing = "{% if tools %}{{ tools.missing.name }}{% endif %}" + CHATML
    report = check(ChatTemplate(failing, bos="", eos="", now=NOW))
    assert not report.holds
    assert {o.name for o in report.outcomes if o.status == "failed"} == {
        c.name for c in STANDARD if c.tools is not None
    }
    assert not check(ChatTemplate("{{ raise_exception('never') }}", bos="", eos="", now=NOW)).holds


def test_warnings() -> None:
    def warnings(source: str) -> str:
        return "\n".join(check(ChatTemplate(source, bos="", eos="", now=NOW)).warnings)

    assert "adds no generation prompt" in warnings(CHATML.partition("{% if add")[0])
    assert "drops the reasoning" in warnings(CHATML + "{# <think></think> reasoning_content #}")
    as_text = "{% for m in messages %}{{ m.role }}{{ m.content }}{% for c in m.tool_calls or [] %}"
    as_text += "{{ '' + c.function.arguments }}{% endfor %}{% endfor %}{{ tools|length if tools }}"
    assert "as JSON text" in warnings(as_text)


def test_tools_that_a_template_needs_are_not_ignored() -> None:
    source = "{% for tool in tools %}{{ tool.function.name }}{% endfor %}" + CHATML
    assert _statuses(source)["tools"] == "ok"
    assert _statuses(source)["one question"] == "failed"
