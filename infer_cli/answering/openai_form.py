"""The OpenAI batch form: a request's `custom_id`, `method`, `url` and `body`, and an answer's line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from infer_cli.errors import UsageError
from infer_cli.types import Reply, TokenLogprobs

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
ENVELOPE = frozenset({"custom_id", "method", "url", "body"})
_IGNORED = frozenset({"model", "user", "metadata", "store"})  # no effect on a reply here
# Values of other parameters that ask for nothing.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default", "flex"),
    "stream": (False,),
    "stream_options": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}
_RENAMED = {"max_completion_tokens": "max_tokens", "n": "samples", "repetition_penalty": "repeat_penalty"}
_LEAST_LOGPROB = -9999.0  # JSON has no infinity
_FINISH = {"stop_string": "stop", "context": "length"}  # OpenAI's names, where they differ


class Body(NamedTuple):
    """`content` is a prompt (a text to complete) or messages (JSON); `values` are parameters, our names."""

    is_chat: bool
    content: object
    values: Mapping[str, object]


def read_body(row: Mapping[str, object]) -> Body:
    """A request; our own names of sampling parameters are taken too. Raises UsageError for what can't be
    answered as asked."""
    if unknown := set(row) - ENVELOPE:
        raise UsageError(f"unknown key {min(unknown)!r} beside the body", "parameters go into the body")
    if row.get("method", "POST") != "POST":
        raise UsageError(f"method {row['method']!r} is not POST")
    url, body = row.get("url"), row.get("body")
    if url not in (CHAT, COMPLETION):
        raise UsageError(f"url {url!r} is neither {CHAT} nor {COMPLETION}")
    if not isinstance(body, dict):
        raise UsageError("the row's body is not an object")
    is_chat = url == CHAT
    content_key = "messages" if is_chat else "prompt"
    if content_key not in body:
        raise UsageError(f"the body has no {content_key}")
    values: dict[str, object] = {
        _RENAMED[key] if key in _RENAMED else str(key): value
        for key, value in body.items()
        if key not in _IGNORED and key not in _NEUTRAL and key != content_key and value is not None
    }
    for key, neutral in _NEUTRAL.items():
        value = body.get(key)
        if value is not None and not any(type(value) is type(n) and value == n for n in neutral):
            raise UsageError(f"{key} is not supported: {json.dumps(value)[:40]}", "leave it out")
    if not is_chat and not isinstance(body["prompt"], str):
        raise UsageError("the prompt must be one text", "write a row for each of several")
    if is_chat:
        n_top = values.pop("top_logprobs", 0)
        if (wanted := values.pop("logprobs", False)) is not False:
            if wanted is not True:
                raise UsageError(f"logprobs must be true or false, not {wanted!r}")
            values["logprobs"] = n_top
    return Body(is_chat, body[content_key], values)


def answer(
    row_keys: Mapping[str, object],
    replies: Sequence[Reply],
    token_text: Callable[[int], bytes],
    *,
    is_chat: bool,
) -> dict[str, object]:
    """An output line: all samples of a row as its choices. `row_keys` are ours, under `infer`."""
    first = replies[0]
    failed = next((reply for reply in replies if reply.error is not None), None)
    line: dict[str, object] = {"id": f"batch_req_{first.id}", "custom_id": first.custom_id}
    if failed is not None:
        assert failed.error is not None
        line |= {
            "response": None,
            "error": {"code": str(failed.error["code"]), "message": failed.error["message"]},
        }
    else:
        line |= {
            "response": {
                "status_code": 200,
                "request_id": first.id,
                "body": {
                    "id": ("chatcmpl-" if is_chat else "cmpl-") + first.id,
                    "object": "chat.completion" if is_chat else "text_completion",
                    "created": int(time.time()),
                    "model": first.model.name,
                    "choices": [_choice(i, reply, token_text, is_chat) for i, reply in enumerate(replies)],
                    "usage": _usage(replies),
                },
            },
            "error": None,
        }
    cut = [reply.reasoning_cut for reply in replies]
    ours = {
        **row_keys,
        "finish_reasons": [reply.finish_reason for reply in replies],
        "digests": [reply.digest for reply in replies],
        "seeds": [reply.seed for reply in replies],
        "fingerprint": first.engine.fingerprint,
        "truncation": first.truncation,
        **({"reasoning_cut": cut} if any(cut) else {}),
    }
    return {**line, "infer": ours}


def _choice(index: int, reply: Reply, token_text: Callable[[int], bytes], is_chat: bool) -> dict[str, object]:
    choice: dict[str, object] = {"index": index}
    if is_chat:
        message: dict[str, object] = {"role": "assistant", "content": reply.text}
        if reply.reasoning is not None:
            message["reasoning_content"] = reply.reasoning
        choice["message"] = message
    else:
        choice["text"] = reply.text
    logprobs: dict[str, object] | None = None
    if reply.logprobs is not None:
        # The end token is not part of an answer there.
        shown = reply.logprobs[:-1] if reply.finish_reason == "stop" else reply.logprobs
        logprobs = (_chat_logprobs if is_chat else _completion_logprobs)(shown, token_text)
    return {
        **choice,
        "logprobs": logprobs,
        "finish_reason": _FINISH.get(reply.finish_reason, reply.finish_reason),
    }


def _chat_logprobs(tokens: Sequence[TokenLogprobs], token_text: Callable[[int], bytes]) -> dict[str, object]:
    def item(token: int, logprob: float) -> dict[str, object]:
        text = token_text(token)
        return {"token": _shown(text), "logprob": max(logprob, _LEAST_LOGPROB), "bytes": list(text)}

    return {
        "content": [
            {**item(of.token, of.logprob), "top_logprobs": [item(*top) for top in of.top]} for of in tokens
        ]
    }


def _completion_logprobs(
    tokens: Sequence[TokenLogprobs], token_text: Callable[[int], bytes]
) -> dict[str, object]:
    texts = [_shown(token_text(of.token)) for of in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [max(of.logprob, _LEAST_LOGPROB) for of in tokens],
        "top_logprobs": [
            {_shown(token_text(token)): max(logprob, _LEAST_LOGPROB) for token, logprob in of.top}
            for of in tokens
        ],
        "text_offset": list(accumulate(map(len, texts[:-1]), initial=0)) if texts else [],
    }


def _shown(text: bytes) -> str:
    """A token as OpenAI's API writes it: one that is part of a character by its bytes."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)


def _usage(replies: Sequence[Reply]) -> dict[str, object]:
    prompt = replies[0].usage.prompt_tokens
    completion = sum(reply.usage.completion_tokens for reply in replies)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": replies[0].usage.cached_tokens},
    }
