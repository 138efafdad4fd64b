"""Can a request run at all? Looked at before it takes part, so that one that can't fails alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from infer_cli.engine import history
from infer_cli.errors import UsageError
from infer_cli.settings.sampling import checked
from infer_cli.types import (
    MAX_SEED,
    EngineRequest,
    Finished,
    ReasoningBudget,
    SamplingParams,
    ScoreRequest,
    Segment,
    Timings,
    Usage,
)

_SAMPLING = tuple(field.name for field in fields(SamplingParams))


def why_not(request: EngineRequest, wanted: Sequence[Segment], window: int, n_vocab: int) -> str | None:
    """Why an engine can't answer a request; None where it can.

    `wanted` is all that is to be evaluated before the reply, normalized; `window` and `n_vocab` in tokens.
    """
    if not wanted or (not request.prompt_ids and wanted[-1].kind == "prompt"):
        return "the prompt is empty"
    n = history.length(wanted)
    if n >= window:
        return f"{n} prompt tokens do not fit the window of {window}"
    error = _why_not_ids(history.flat(wanted), "prompt", n_vocab)
    if error is not None:
        return error
    if request.seed is not None and not 0 <= request.seed <= MAX_SEED:
        return f"seed {request.seed} is outside 0..{MAX_SEED}"
    if request.max_tokens < 1:
        return f"a reply of {request.max_tokens} tokens is asked for"
    if request.n_logprobs is not None and request.n_logprobs < 0:
        return f"the log-probabilities of {request.n_logprobs} tokens are asked for"
    if request.deadline_s is not None and not request.deadline_s >= 0:
        return f"a deadline of {request.deadline_s} s is asked for"
    if not all(request.stop):
        return "a stop string is empty"
    if request.reasoning is not None and (error := _why_no_budget(request.reasoning, n_vocab)):
        return error
    try:
        for name in _SAMPLING:
            checked(name, getattr(request.sampling, name), "sampling")
    except UsageError as e:
        return e.message
    return None


def why_no_score(request: ScoreRequest, window: int, n_vocab: int) -> str | None:
    """Why an engine can't score a request; None where it can. `window` and `n_vocab` in tokens."""
    n = len(request.ids) - 1
    if not 1 <= request.first <= n:
        return f"the tokens from {request.first} on of {n + 1} are asked for: one at least must stand before"
    if n > window:
        return f"{n} tokens do not fit the window of {window}"
    if request.deadline_s is not None and not request.deadline_s >= 0:
        return f"a deadline of {request.deadline_s} s is asked for"
    return _why_not_ids(request.ids, "text", n_vocab)


def _why_no_budget(budget: ReasoningBudget, n_vocab: int) -> str | None:
    if budget.n_tokens < 0:
        return f"a reasoning budget of {budget.n_tokens} tokens is asked for"
    for _, closing in (*budget.pairs, *([] if budget.opened is None else [budget.opened])):
        ids = budget.closing.get(closing, ())
        if not ids:
            return f"the closing tag {closing} has no tokens"
        if error := _why_not_ids(ids, "closing tag", n_vocab):
            return error
    return None


def _why_not_ids(ids: Sequence[int], of: str, n_vocab: int) -> str | None:
    if not all(hasattr(kind, "__index__") for kind in set(map(type, ids))):
        return f"a token of the {of} is not a whole number"
    if min(ids) < 0 or max(ids) >= n_vocab:
        wrong = next(token for token in ids if not 0 <= token < n_vocab)
        return f"token {wrong} of the {of} is outside the vocabulary of {n_vocab}"
    return None


def refusal(request: EngineRequest, n_prompt: int, waited_s: float, load_s: float, error: str) -> Finished:
    """The end of a request that never took part. `n_prompt` in tokens, times in seconds."""
    return Finished(
        request.id,
        "error",
        tail=b"",
        tokens=(),
        text=b"",
        logprobs=None if request.n_logprobs is None else (),
        usage=Usage(n_prompt, 0, 0),
        timings=Timings(
            load_s, queue_s=waited_s, ttft_s=None, total_s=waited_s, prefill_tps=None, decode_tps=None
        ),
        error=error,
    )
