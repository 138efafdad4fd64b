"""What a chat template does with conversations of every kind: a standard set, and what a user should know.

It renders; it knows no model file and no command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from infer_cli.errors import InferError, ModelInvalid, UsageError
from infer_cli.prompt.template import GivenTemplateInvalid
from infer_cli.text.reasoning import pairs_of
from infer_cli.types import Message

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.prompt.template import ChatTemplate

Status = Literal["ok", "refused", "failed"]

_TOOLS: tuple[dict[str, object], ...] = (
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city's name."},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city"],
            },
        },
    },
)
_CALL_ID = "call12345"  # Mistral's templates take nine letters and digits only
_REASONING = "Two and two are four, and five more are nine."


@dataclass(frozen=True)
class Conversation:
    """`other`: the same conversation in another form that templates may want instead."""

    name: str
    messages: tuple[Message, ...]
    tools: tuple[dict[str, object], ...] | None = None
    add_generation_prompt: bool = True
    other: tuple[Message, ...] | None = None


def _called(arguments: object) -> tuple[Message, ...]:
    call = {
        "id": _CALL_ID,
        "type": "function",
        "function": {"name": "get_weather", "arguments": arguments},
    }
    result = Message("tool", '{"degrees": 21}', {"name": "get_weather", "tool_call_id": _CALL_ID})
    return (
        Message("user", "How warm is it in Paris?"),
        Message("assistant", "", {"tool_calls": [call]}),
        result,
    )


_HELLO = Message("user", "What is 2 + 2?")
_SYSTEM = Message("system", "Answer like a pirate.")
_REPLY = Message("assistant", "It is 4.")
_NEXT = Message("user", "And 5 more?")
_CALLED = _called({"city": "Paris", "unit": "celsius"})
_CALLED_AS_TEXT = _called('{"city": "Paris", "unit": "celsius"}')
_ANSWERED = (Message("assistant", "It is 21 degrees."), Message("user", "Thanks."))

STANDARD = (
    Conversation("one question", (_HELLO,)),
    Conversation("system prompt", (_SYSTEM, _HELLO)),
    Conversation("several turns", (_HELLO, _REPLY, _NEXT, Message("assistant", "9"), _HELLO)),
    Conversation("system prompt and several turns", (_SYSTEM, _HELLO, _REPLY, _NEXT)),
    Conversation("reasoning", (_HELLO, Message("assistant", "4", {"reasoning_content": _REASONING}), _NEXT)),
    Conversation("tools", (_HELLO,), _TOOLS),
    Conversation("tools and system prompt", (_SYSTEM, _HELLO), _TOOLS),
    Conversation("tool results", _CALLED, _TOOLS, other=_CALLED_AS_TEXT),
    Conversation("turns after tool results", _CALLED + _ANSWERED, _TOOLS, other=_CALLED_AS_TEXT + _ANSWERED),
    Conversation("assistant prefill", (_HELLO, Message("assistant", "It is")), add_generation_prompt=False),
    Conversation("no user message", (_SYSTEM,)),
    Conversation("assistant first", (_REPLY, _NEXT)),
    Conversation("consecutive user messages", (_HELLO, _NEXT)),
    Conversation("consecutive assistant messages", (_HELLO, _REPLY, _REPLY, _NEXT)),
)


@dataclass(frozen=True)
class Outcome:
    """`reason` is empty where a conversation is ok. `text`: what the template made of it, None where it
    raised. `in_other_form`: only the other form of the conversation was taken."""

    name: str
    status: Status
    reason: str = ""
    text: str | None = None
    in_other_form: bool = False


@dataclass(frozen=True)
class Report:
    outcomes: tuple[Outcome, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def holds(self) -> bool:
        """Nothing failed, and at least one question can be asked."""
        return self.outcomes[0].status == "ok" and all(o.status != "failed" for o in self.outcomes)


def check(template: ChatTemplate, vocab: Vocab | None = None) -> Report:
    """Render the standard set. With `vocab` special tokens that it has not are told too."""
    outcomes = tuple(outcome_of(template, conversation) for conversation in STANDARD)
    return Report(outcomes, tuple(_warnings(template, outcomes, vocab)))


def outcome_of(template: ChatTemplate, conversation: Conversation) -> Outcome:
    """What becomes of one conversation, in the form that the template takes."""
    first = _outcome(template, conversation, conversation.messages)
    if first.status == "ok" or conversation.other is None:
        return first
    second = _outcome(template, conversation, conversation.other)
    return Outcome(second.name, "ok", "", second.text, True) if second.status == "ok" else first


def _outcome(template: ChatTemplate, conversation: Conversation, messages: Sequence[Message]) -> Outcome:
    text = None
    try:
        for render in (template.text, template.render):
            rendered = render(
                messages,
                add_generation_prompt=conversation.add_generation_prompt,
                tools=conversation.tools,
            )
            text = rendered
    except (ModelInvalid, GivenTemplateInvalid) as error:
        return Outcome(conversation.name, "failed", _reason(template, error), text)
    except UsageError as error:
        return Outcome(conversation.name, "refused", _reason(template, error), text)
    return Outcome(conversation.name, "ok", "", text)


def _reason(template: ChatTemplate, error: InferError) -> str:
    reason = error.message.removeprefix(f"{template.called} ")
    return reason.removeprefix("refuses this conversation: ")


# --- what a user should know ----------------------------------------------------------------------

# What looks like a control token where templates write one.
_MARKUP = re.compile(r"<\|[^|<>\s]{1,60}\|>|<｜[^｜<>\s]{1,60}｜>|<(?:start|end)_of_[a-z]+>")


def _warnings(template: ChatTemplate, outcomes: Sequence[Outcome], vocab: Vocab | None) -> Iterator[str]:
    by_name = {outcome.name: outcome for outcome in outcomes}
    plain = by_name["one question"]
    if plain.status == "ok":
        if by_name["system prompt"].status != "ok":
            yield "it takes no system prompt: --system is an error with this template"
        try:
            if template.text(STANDARD[0].messages, add_generation_prompt=False) == plain.text:
                yield "it adds no generation prompt: the model has to begin its turn by itself"
        except (UsageError, ModelInvalid):
            yield "it can't render a conversation without a generation prompt"
    reasoning = by_name["reasoning"]
    thinks = bool(pairs_of(template.source)) or template.mentions("reasoning")
    if thinks and reasoning.text is not None and _REASONING not in reasoning.text:
        yield "it drops the reasoning of earlier turns"
    if any(outcome.in_other_form for outcome in outcomes):
        yield "it takes the arguments of a tool call as JSON text, not as an object"
    if vocab is not None and (unknown := _unknown_markup(outcomes, vocab)):
        yield f"it writes what the vocabulary has no token for: {' '.join(unknown)}"


def _unknown_markup(outcomes: Sequence[Outcome], vocab: Vocab) -> list[str]:
    texts = "\n".join(outcome.text or "" for outcome in outcomes)
    found = dict.fromkeys(match[0] for match in _MARKUP.finditer(texts))
    return [markup for markup in found if len(vocab.tokenize_special(markup.encode())) > 1]
