"""A reply as inspect's output of a model."""

from __future__ import annotations

from collections.abc import Callable

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    Content,
    ContentReasoning,
    ContentText,
    Logprob,
    Logprobs,
    ModelOutput,
    ModelUsage,
    StopReason,
    TopLogprob,
)

from infer_cli.api import Reply

_STOP_REASONS: dict[str, StopReason] = {
    "stop": "stop",
    "stop_string": "stop",
    "length": "max_tokens",
    "context": "model_length",
}


def output_of(reply: Reply, model: str, detokenize: Callable[[list[int]], str]) -> ModelOutput:
    """`metadata` has what is needed to repeat and check the reply, its digest first."""
    text = reply.text or ""
    content: str | list[Content] = text
    if reply.reasoning:
        content = [ContentReasoning(reasoning=reply.reasoning), ContentText(text=text)]
    usage = reply.usage
    choice = ChatCompletionChoice(
        message=ChatMessageAssistant(content=content, model=model, source="generate"),
        stop_reason=_STOP_REASONS.get(reply.finish_reason, "unknown"),
        logprobs=_logprobs(reply, detokenize),
    )
    return ModelOutput(
        model=model,
        choices=[choice],
        usage=ModelUsage(
            input_tokens=usage.prompt_tokens - usage.cached_tokens,
            input_tokens_cache_read=usage.cached_tokens,
            output_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        ),
        time=reply.timings.total_s - reply.timings.queue_s,
        metadata={
            "digest": reply.digest,
            "finish_reason": reply.finish_reason,
            "seed": reply.seed,
            "mode": reply.mode,
            "promise": reply.promise,
            "params": reply.params,
            "model_sha256": reply.model.sha256,
            "engine": {
                "infer": reply.engine.infer,
                "llama_cpp": reply.engine.llama_cpp,
                "fingerprint": reply.engine.fingerprint,
            },
        },
    )


def _logprobs(reply: Reply, detokenize: Callable[[list[int]], str]) -> Logprobs | None:
    if reply.logprobs is None:
        return None
    content = []
    for item in reply.logprobs:
        top = [TopLogprob(token=detokenize([token]), logprob=logprob) for token, logprob in item.top]
        content.append(
            Logprob(token=detokenize([item.token]), logprob=item.logprob, top_logprobs=top or None)
        )
    return Logprobs(content=content)
