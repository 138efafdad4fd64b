"""The public form of a reply: its JSON object and its digest. Knows no stream and no engine."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence

from infer_cli.errors import ExitStatus, InferError, ModelInvalid, UnexpectedFailure
from infer_cli.system.hashing import sha256_hex
from infer_cli.types import (
    ChoiceScore,
    Finished,
    FinishReason,
    Mode,
    Promise,
    Provenance,
    Reply,
    ReplyError,
    Timings,
    TokenLogprobs,
    Usage,
)

TokenText = Callable[[int], bytes]  # what a token stands for

# Inside JSON strings, beyond what JSON itself forbids: lone surrogates have no UTF-8, DEL and C1 are
# obeyed by terminals, U+2028, U+2029 (and U+0085) end a line for some readers, U+202D and U+202E reorder it.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\u202d\u202e\ud800-\udfff]")
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

# The end of a request that failed before it came to the engine.
NOTHING_COMPUTED = Finished(
    "", "error", b"", (), b"", None, Usage(0, 0, 0), Timings(0.0, 0.0, None, 0.0, None, None)
)


def digest(
    tokens: Sequence[int],
    text: str | None,
    finish_reason: FinishReason,
    seed: int | None,
    params: Mapping[str, object],
) -> str:
    """`sha256:` and the hex hash over exactly these five values; equal digests mean the same reply.

    Hashed is the JSON object `{"finish_reason", "params", "seed", "text", "tokens"}` in ASCII: keys
    sorted at every level, no white space, characters above U+007E and controls as `\\uXXXX` (UTF-16
    units, lower case; `\\b \\t \\n \\f \\r` by name), integers in decimal, floats as Python's `repr`
    (the shortest that reads back the same; 1 and 1.0 differ). Raises ValueError on NaN and infinities.
    """
    return digest_of(
        {
            "finish_reason": finish_reason,
            "params": dict(params),
            "seed": seed,
            "text": text,
            "tokens": list(tokens),
        }
    )


def digest_of(value: Mapping[str, object]) -> str:
    """`sha256:` and the hex hash over an object, written as `digest` says. Raises ValueError on NaN and
    infinities."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return "sha256:" + sha256_hex(canonical.encode("ascii"))


def reply_of(
    end: Finished,
    came_from: Provenance,
    *,
    reply_id: str,
    custom_id: str | None = None,
    sample: int,
    text: str | None,
    reasoning: str | None = None,
    params: Mapping[str, object],
    run_seed: int | None,
    seed: int | None,
    mode: Mode,
    promise: Promise,
    truncation: dict[str, object] | None = None,
    error: ReplyError | None = None,
    choices: tuple[ChoiceScore, ...] | None = None,
    in_reasoning: bool = False,
) -> Reply:
    """The reply of the engine's last word on a request, with its digest. `in_reasoning`: it ended there."""
    return Reply(
        id=reply_id,
        custom_id=custom_id,
        sample=sample,
        text=text,
        reasoning=reasoning,
        tokens=end.tokens,
        logprobs=end.logprobs,
        finish_reason=end.reason,
        digest=digest(end.tokens, text, end.reason, seed, params),
        usage=end.usage,
        timings=end.timings,
        run_seed=run_seed,
        seed=seed,
        mode=mode,
        promise=promise,
        probed=came_from.probed,
        params=dict(params),
        model=came_from.model,
        engine=came_from.engine,
        truncation=truncation,
        error=error,
        choices=choices,
        reasoning_cut=in_reasoning and end.reason not in ("stop", "error"),
    )


def reasoning_cut_in_words(reply: Reply) -> str:
    """What ended a reply inside its reasoning, and what to do about it."""
    what = {
        "length": f"the token limit of {reply.params.get('max_tokens')}",
        "context": "the end of the window",
        "deadline": "the deadline",
        "stop_string": "a stop string",
    }.get(reply.finish_reason, f"`{reply.finish_reason}`")
    more = {"length": "raise -n, ", "context": "raise --ctx, ", "deadline": "raise --deadline, "}
    return (
        f"{what} ended the reply inside its reasoning, so there is no answer:"
        f" {more.get(reply.finish_reason, '')}limit it with --reasoning-budget, or give --no-think"
    )


def as_json(reply: Reply, token_text: TokenText | None = None) -> dict[str, object]:
    """The object of `--json`, of a line of `batch` and of `samples.jsonl`, in its fixed key order.

    `logprobs` is a list of `logprobs_json`, one per token, with `token_text`. `choices` is one of
    `choice_json`, and there only where there were any; `reasoning_cut` is there only where it is true.
    Seconds, rates and log-probabilities that are not finite become null.
    """
    return {
        "id": reply.id,
        "custom_id": reply.custom_id,
        "sample": reply.sample,
        "text": reply.text,
        "reasoning": reply.reasoning,
        **({"reasoning_cut": True} if reply.reasoning_cut else {}),
        "tokens": list(reply.tokens),
        "logprobs": None
        if reply.logprobs is None
        else [logprobs_json(item, token_text) for item in reply.logprobs],
        **({} if reply.choices is None else {"choices": [choice_json(item) for item in reply.choices]}),
        "finish_reason": reply.finish_reason,
        "digest": reply.digest,
        "usage": reply.usage._asdict(),
        "timings": timings_json(reply.timings),
        "run_seed": reply.run_seed,
        "seed": reply.seed,
        "mode": reply.mode,
        "promise": reply.promise,
        "probed": reply.probed,
        "params": reply.params,
        "model": reply.model._asdict(),
        "engine": reply.engine._asdict(),
        "truncation": reply.truncation,
        "error": reply.error,
    }


def timings_json(timings: Timings) -> dict[str, object]:
    """What is not finite becomes null."""
    return {name: finite(value) for name, value in timings._asdict().items()}


def failure_of(reply: Reply, model: str) -> InferError:
    """Why there is no answer, to be raised: `reply.error` must be there. `model`: what the user calls it."""
    assert reply.error is not None
    return failure(str(reply.error["message"]), reply.error["code"], model)


def failure(message: str, status: int, model: str) -> InferError:
    """What ended a reply, to be raised. One that is the model's fault names it."""
    if status == ExitStatus.MODEL_INVALID:
        return ModelInvalid(
            f"{model}: {message}: its weights are damaged", "`infer models verify` reads all of its file"
        )
    return UnexpectedFailure(message)


def logprobs_json(logprobs: TokenLogprobs, token_text: TokenText | None = None) -> dict[str, object]:
    """`{"token", "logprob"}`, and `"top_logprobs"` (likeliest first) where alternatives were asked for.

    With `token_text` each token has its `"text"` and its `"bytes"` too: the text of a part of a character is
    U+FFFD.
    """

    def item(token: int, logprob: float) -> dict[str, object]:
        value: dict[str, object] = {"token": token}
        if token_text is not None:
            data = token_text(token)
            value |= {"text": data.decode("utf-8", "replace"), "bytes": list(data)}
        return {**value, "logprob": finite(logprob)}

    value = item(logprobs.token, logprobs.logprob)
    if logprobs.top:
        value["top_logprobs"] = [item(token, logprob) for token, logprob in logprobs.top]
    return value


def choice_json(choice: ChoiceScore) -> dict[str, object]:
    """`{"text", "tokens", "logprob", "n_tokens", "n_bytes", "logprob_per_token", "logprob_per_byte",
    "probability"}`."""
    return {
        "text": choice.text,
        "tokens": list(choice.tokens),
        "logprob": finite(choice.logprob),
        "n_tokens": choice.n_tokens,
        "n_bytes": choice.n_bytes,
        "logprob_per_token": finite(choice.logprob_per_token),
        "logprob_per_byte": finite(choice.logprob_per_byte),
        "probability": choice.probability,
    }


def json_line(value: Mapping[str, object]) -> bytes:
    """One line of JSON in UTF-8 with its newline: valid whatever the strings hold, and safe on a terminal."""
    text = _ENCODER.encode(value)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode("utf-8") + b"\n"


def finite(value: float | None) -> float | None:
    """A number that JSON has, else None."""
    return value if value is not None and math.isfinite(value) else None
