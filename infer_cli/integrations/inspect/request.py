"""What inspect asks of a model, as a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ContentReasoning,
    ContentText,
    GenerateConfig,
)
from inspect_ai.tool import ToolInfo

from infer_cli.api import Message, Request
from infer_cli.errors import UsageError

_SHAPES_DRAW = ("top_p", "top_k")
_PENALTIES = ("frequency_penalty", "presence_penalty")
# What would change a reply, and is not done here.
_NOT_HERE = ("best_of", "logit_bias", "prompt_logprobs", "response_schema", "modalities", "extra_body")


def request_of(messages: Sequence[ChatMessage], tools: Sequence[ToolInfo], config: GenerateConfig) -> Request:
    """Greedy without a temperature, or with 0; then a seed and what shapes the draw are of no consequence.

    Raises UsageError for what is asked and not done here.
    """
    if tools:
        raise UsageError("infer calls no tools", "leave tools out of the task")
    if config.num_choices not in (None, 1):
        raise UsageError("infer gives one reply to a request", "for several, use epochs")
    if asked := [name for name in _NOT_HERE if getattr(config, name, None)]:
        raise UsageError(f"infer does not know {asked[0]}")
    temperature = config.temperature or 0.0
    shaping = {name: getattr(config, name) for name in _SHAPES_DRAW if getattr(config, name) is not None}
    if config.temperature is None and (shaping or config.seed is not None):
        raise UsageError(
            f"{min(shaping, default='seed')} has no meaning without a temperature: the reply is greedy",
            "give a temperature",
        )
    sampling: dict[str, object] = {"temperature": temperature, **shaping} if temperature > 0 else {}
    sampling |= {name: getattr(config, name) for name in _PENALTIES if getattr(config, name) is not None}
    request = Request(
        messages=[_message(message) for message in messages],
        sampling=sampling,
        stop=config.stop_seqs or (),
        seed=config.seed if temperature > 0 else None,
        logprobs=_n_logprobs(config),
    )
    return request if config.max_tokens is None else replace(request, max_tokens=config.max_tokens)


def _n_logprobs(config: GenerateConfig) -> int | None:
    if config.top_logprobs is not None:
        return int(config.top_logprobs)
    return 0 if config.logprobs else None


def _message(message: ChatMessage) -> Message:
    """Reasoning stands beside the text, where templates look for it."""
    if message.role == "tool" or getattr(message, "tool_calls", None):
        raise UsageError("infer calls no tools, and these messages hold a call or its result")
    if isinstance(message.content, str):
        return Message(message.role, message.content)
    reasoning = []
    texts = []
    for part in message.content:
        if isinstance(part, ContentReasoning) and isinstance(message, ChatMessageAssistant):
            reasoning.append(part.reasoning)
        elif isinstance(part, ContentText):
            texts.append(part.text)
        else:
            raise UsageError(f"infer reads text, and a message holds {part.type}")
    extra: dict[str, object] = {"reasoning_content": "\n".join(reasoning)} if reasoning else {}
    return Message(message.role, "\n".join(texts), extra)
