"""Which switch of thinking a chat template offers, and how a budget of reasoning is made."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from infer_cli.backend.fake import CHAT_TEMPLATE, FakeVocab
from infer_cli.errors import ModelInvalid, UsageError
from infer_cli.prompt.template import ChatTemplate
from infer_cli.prompt.thinking import budget_of, find_switch, thinking_of, thinking_variables
from infer_cli.text.reasoning import TagPair
from infer_cli.types import ThinkingParams
from tests.sdist import models_dir

NOW = datetime(2026, 7, 26, 12, 30, tzinfo=timezone.utc)
THINK = TagPair("<think>", "</think>")
# Of the templates that llama.cpp tests itself with; all others that are there have enable_thinking or none.
OTHERS = {
    "ByteDance-Seed-OSS": "thinking_budget",
    "Cohere2MoE": "reasoning",
    "Kimi-K3": "thinking",
    "MiniMax-M3": "thinking_mode",
    "ibm-granite-granite-3.3-2B-Instruct": "thinking",
    "tencent-Hy3": "reasoning_effort",
}


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos="<s>", eos="</s>", now=NOW)


def switch_name(source: str) -> str | None:
    found = find_switch(template(source))
    return None if found is None else found.name


@pytest.mark.weights
def test_the_switches_of_real_templates(request: pytest.FixtureRequest) -> None:
    found = {
        path.stem: switch_name(path.read_text("utf-8"))
        for path in sorted((models_dir(request.config.cache) / "templates").glob("*.jinja"))
    }
    assert len(found) >= 60
    named = {name for name, switch in found.items() if switch == "enable_thinking"}
    assert {"Qwen-Qwen3-0.6B", "HuggingFaceTB-SmolLM3-3B", "GLM-4.6", "google-gemma-4-31B-it"} <= named
    assert len(named) == 25
    assert {name: s for name, s in found.items() if s not in (None, "enable_thinking")} == OTHERS
    for name in ("openai-gpt-oss-120b", "upstage-Solar-Open-100B", "NVIDIA-Nemotron-Nano-v2"):
        assert found[name] is None, "an effort is no switch, nor is a word in a message"


def test_a_variable_that_changes_nothing_is_no_switch() -> None:
    assert switch_name("{# enable_thinking #}" + CHAT_TEMPLATE) is None
    assert switch_name(CHAT_TEMPLATE + "{% if enable_thinking %}<think>{% endif %}") == "enable_thinking"
    assert switch_name(CHAT_TEMPLATE + "{% if my_enable_thinking %}<think>{% endif %}") is None


def test_an_effort_without_a_lowest_word_is_no_switch() -> None:
    effort = CHAT_TEMPLATE + "{{ reasoning_effort }}"
    assert switch_name(effort) is None
    assert switch_name(effort + "{% if reasoning_effort == 'no_think' %}{% endif %}") == "reasoning_effort"


def test_a_value_that_a_template_refuses() -> None:
    refusing = "{% if thinking %}{{ raise_exception('never') }}{% endif %}" + CHAT_TEMPLATE
    assert switch_name(refusing) == "thinking", "with it off there is a prompt"


def test_what_the_variables_are() -> None:
    switched = template(CHAT_TEMPLATE + "{% if enable_thinking %}<think>{% endif %}")
    assert thinking_variables(switched, None, {}).variables == {}
    assert thinking_variables(switched, True, {}).variables == {"enable_thinking": True}
    assert thinking_variables(switched, False, {"x": 1}).variables == {"enable_thinking": False}
    with pytest.raises(UsageError, match="enable_thinking say the same thing twice"):
        thinking_variables(switched, True, {"enable_thinking": True})


def test_without_a_switch_it_changes_nothing_or_can_not_be() -> None:
    plain, opening = template(CHAT_TEMPLATE), template(CHAT_TEMPLATE + "<think>")
    for think in (True, False):
        found = thinking_variables(plain, think, {})
        assert not found.variables and "has no switch for thinking" in found.unused
    assert thinking_variables(opening, True, {}).unused
    with pytest.raises(UsageError, match="its model may think") as raised:
        thinking_variables(opening, False, {})
    assert "--reasoning-budget 0" in raised.value.hint


class _Vocab(FakeVocab):
    def tokenize_special(self, text: bytes) -> list[int]:
        return [ord("?")]


def test_a_budget_names_the_tokens_of_the_tag() -> None:
    budget = budget_of(3, (THINK,), THINK, FakeVocab())
    assert budget is not None
    assert (budget.n_tokens, budget.pairs, budget.opened) == (3, (THINK,), THINK)
    assert budget.closing == {"</think>": tuple(b"</think>")}
    assert budget_of(None, (THINK,), None, FakeVocab()) is None
    assert budget_of(3, (), None, FakeVocab()) is None
    with pytest.raises(ModelInvalid, match="no tokens for </think>"):
        budget_of(3, (THINK,), None, _Vocab())


def test_what_rows_and_programs_may_ask_for() -> None:
    assert thinking_of(None, None) == ThinkingParams(None, None)
    assert thinking_of(False, 0) == ThinkingParams(False, 0)
    for think in ("no", 1, 0):
        with pytest.raises(UsageError, match="think must be true or false"):
            thinking_of(think, None)
    for budget in (-1, True, 1.5, "3", 2**40):
        with pytest.raises(UsageError, match="reasoning_budget must be a whole number"):
            thinking_of(None, budget)
