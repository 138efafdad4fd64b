"""How a chat template has a model think, or answer at once, and how its reasoning is limited.

A template offers a switch where it names the variable, and writes another prompt with it on than with it off:
it is rendered to find out. What a template looks for in the text of messages (`/no_think`) is no switch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.errors import ModelInvalid, UsageError
from infer_cli.settings.defaults import MOST_TOKENS
from infer_cli.text.reasoning import TagPair, pairs_of
from infer_cli.types import Message, ReasoningBudget, ThinkingParams

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.prompt.template import ChatTemplate


class Switch(NamedTuple):
    """A variable of a chat template, and what it is set to."""

    name: str
    on: object
    off: object

    def value(self, think: bool) -> object:
        return self.on if think else self.off


# In this order: some templates derive the second of the first.
KNOWN_SWITCHES = (
    Switch("enable_thinking", True, False),  # Qwen3, SmolLM3, GLM, Nemotron 3, Gemma 4
    Switch("thinking", True, False),  # Granite 3.3, Kimi K3
    Switch("thinking_mode", "enabled", "disabled"),  # MiniMax M3
    Switch("reasoning", True, False),  # Cohere 2 MoE
    Switch("thinking_budget", -1, 0),  # Seed-OSS
    Switch("reasoning_effort", "high", "no_think"),  # Hunyuan 3
)
NO_BUDGET = "the chat template has no tags of reasoning: it changes nothing"
_QUESTION = (Message("user", "What is 2 + 2?"),)


def find_switch(template: ChatTemplate) -> Switch | None:
    """The switch that a template offers. Renders it twice for each one that it names. Raises ModelInvalid or
    GivenTemplateInvalid where it fails."""
    return next((switch for switch in KNOWN_SWITCHES if _is_offered(switch, template)), None)


def _is_offered(switch: Switch, template: ChatTemplate) -> bool:
    if not re.search(rf"\b{switch.name}\b", template.source):
        return False
    if isinstance(switch.off, str) and not re.search(rf"""(["']){switch.off}\1""", template.source):
        return False  # a level of effort, of which none is no thinking
    return _rendered(template, switch, True) != _rendered(template, switch, False)


def _rendered(template: ChatTemplate, switch: Switch, think: bool) -> str | None:
    try:
        return template.text(_QUESTION, variables={switch.name: switch.value(think)})
    except UsageError:  # it refuses this value, or a lone question
        return None


class ThinkingVariables(NamedTuple):
    """What a template's thinking is set with: variables, or none and why that changes nothing, in words."""

    variables: Mapping[str, object]
    unused: str = ""


def thinking_variables(
    template: ChatTemplate, think: bool | None, given: Mapping[str, object]
) -> ThinkingVariables:
    """The variables that have a model think or not, beside those that the user gave.

    Raises UsageError where its reasoning can't be turned off, and where the user gave the variable too.
    """
    if think is None:
        return ThinkingVariables({})
    switch = find_switch(template)
    if switch is not None:
        if switch.name in given:
            raise UsageError(
                f"think and the template's variable {switch.name} say the same thing twice", "leave one out"
            )
        return ThinkingVariables({switch.name: switch.value(think)})
    why = f"{template.called} has no switch for thinking"
    if not think and pairs_of(template.source):
        raise UsageError(f"{why}, and its model may think", "--reasoning-budget 0 ends the reasoning at once")
    return ThinkingVariables({}, f"{why}: it changes nothing")


def budget_of(
    n_tokens: int | None, pairs: Sequence[TagPair], opened: TagPair | None, vocab: Vocab
) -> ReasoningBudget | None:
    """What ends reasoning after so many tokens; None where there is no budget, or nothing to end.

    Raises ModelInvalid where the vocabulary can't write a closing tag.
    """
    wanted = [*pairs, *([] if opened is None else [opened])]
    if n_tokens is None or not wanted:
        return None
    closing = {pair.closing: tuple(vocab.tokenize_special(pair.closing.encode())) for pair in wanted}
    for tag, ids in closing.items():
        if tag.encode() not in b"".join(map(vocab.token_text, ids)):
            raise ModelInvalid(f"the vocabulary has no tokens for {tag}", "leave the reasoning budget out")
    return ReasoningBudget(n_tokens, tuple(pairs), opened, closing)


def thinking_of(think: object, budget: object) -> ThinkingParams:
    """What a row or a program asks for, as it was given. Raises UsageError for what can't be asked for."""
    if not (think is None or isinstance(think, bool)):
        raise UsageError(f"think must be true or false, not {think!r}")
    if budget is None:
        return ThinkingParams(think, None)
    if isinstance(budget, bool) or not isinstance(budget, int) or not 0 <= budget <= MOST_TOKENS:
        raise UsageError(
            f"reasoning_budget must be a whole number between 0 and {MOST_TOKENS}, not {budget!r}"
        )
    return ThinkingParams(think, budget)
