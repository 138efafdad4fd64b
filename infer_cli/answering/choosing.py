"""A question whose answer is one of several texts: what the engine is asked, and the reply that comes of it.

Each choice is a continuation of the prompt, whose likelihood is asked for. The likeliest is the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.answering.reply import reply_of
from infer_cli.errors import ContextOverflow, UsageError
from infer_cli.prompt.messages import check_unicode
from infer_cli.prompt.pairs import Pair
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.types import (
    ChoiceScore,
    Finished,
    FinishReason,
    Mode,
    Promise,
    Provenance,
    Reply,
    ReplyError,
    ScoreRequest,
    Timings,
    Usage,
)

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab


class Choice(NamedTuple):
    """One of the answers that are allowed. `ids`: its tokens as they follow the prompt's, at least one."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Question:
    """A prompt and the answers that are allowed, of which the likeliest is asked for."""

    id: str
    prompt_ids: tuple[int, ...]
    choices: tuple[Choice, ...]
    deadline_s: float | None = None
    truncation: dict[str, object] | None = None  # what was cut from the prompt

    @property
    def params(self) -> dict[str, object]:
        """What decides the reply beside the prompt, as its digest has it."""
        return {"choices": [choice.text for choice in self.choices]}

    @property
    def n_longest(self) -> int:
        """Tokens of the longest choice."""
        return max(len(choice.ids) for choice in self.choices)

    @property
    def window(self) -> int:
        """Tokens that are evaluated of the prompt with its longest choice: nothing follows the last one."""
        return len(self.prompt_ids) + self.n_longest - 1

    def requests(self, request_id: str) -> list[ScoreRequest]:
        """What the engine is asked, a request for each choice. `request_id` is one that the engine does not
        have yet; those of the requests begin with it."""
        return [
            ScoreRequest(
                f"{request_id}/{n}", self.prompt_ids + choice.ids, len(self.prompt_ids), self.deadline_s
            )
            for n, choice in enumerate(self.choices)
        ]


def question_of(
    texts: Sequence[str],
    pairs: Sequence[Pair],
    *,
    question_id: str,
    deadline_s: float | None = None,
    truncation: dict[str, object] | None = None,
) -> Question:
    """A question of `texts` that are choices. `pairs` are one prompt with each of them, as ids."""
    choices = tuple(Choice(text, pair.continuation) for text, pair in zip(texts, pairs, strict=True))
    return Question(question_id, pairs[0].context, choices, deadline_s, truncation)


def room_for(choices: Sequence[str], vocab: Vocab) -> int:
    """Tokens that the longest choice may take: as many as it has alone, and one for what it begins with."""
    return 1 + max(len(vocab.tokenize(choice.encode())) for choice in choices)


def check_fits(question: Question, window: int) -> None:
    """Raises ContextOverflow where a window of so many tokens does not hold the prompt with each choice."""
    if question.window > window:
        raise ContextOverflow(
            f"the prompt is {len(question.prompt_ids)} tokens and the longest choice {question.n_longest}:"
            f" they do not fit the window of {window}",
            "shorten the prompt, or raise --ctx",
        )


def check_choices(texts: Sequence[str], called: str) -> None:
    """Raises UsageError, which names what they are `called`, where these are no choices."""
    for n, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"{called}: a choice is a {type(text).__name__}, not text")
        if not text:
            raise UsageError(f"{called}: a choice is empty")
        check_unicode(text, called)
        if text in texts[:n]:
            raise UsageError(f"{called}: {text!r} is there twice")
    if len(texts) < 2:
        raise UsageError(f"{called}: there is nothing to choose from", "give two or more")


def score_choices(question: Question, ends: Sequence[Finished]) -> tuple[ChoiceScore, ...]:
    """The choices with their likelihoods, of requests that have succeeded, in the order of the choices."""
    logprobs = [end.likelihood.logprob for end in ends if end.likelihood is not None]
    most = max(logprobs)
    # Where all of them are impossible, none is likelier than another.
    weights = [math.exp(logprob - most) if most > -math.inf else 1.0 for logprob in logprobs]
    total = math.fsum(weights)
    return tuple(
        ChoiceScore(choice.text, choice.ids, logprob, weight / total)
        for choice, logprob, weight in zip(question.choices, logprobs, weights, strict=True)
    )


def choice_reply(question: Question, ends: Sequence[Finished], running: RunningEngine) -> Reply:
    """The reply of an engine that runs: see `chosen_reply`."""
    return chosen_reply(question, ends, running.provenance(), running.policy.mode, running.policy.promise)


def chosen_reply(
    question: Question,
    ends: Sequence[Finished],
    came_from: Provenance,
    mode: Mode,
    promise: Promise,
    *,
    custom_id: str | None = None,
) -> Reply:
    """The reply: of equally likely choices, the first. `ends`: what came of `question.requests`, in order.

    Where one of them failed, or was ended from outside, there is no answer: its text is None.
    """
    failed = _first_failure(ends)
    scores = best = error = None
    if failed is None:
        scores = score_choices(question, ends)
        best = max(scores, key=lambda score: score.logprob)
    elif failed.reason == "error":
        error = ReplyError(code=int(failed.error_status), message=failed.error)
    tokens = () if best is None else best.tokens
    return reply_of(
        _whole(question, ends, "stop" if failed is None else failed.reason, tokens),
        came_from,
        reply_id=question.id,
        custom_id=custom_id,
        sample=0,
        text=None if best is None else best.text,
        params=question.params,
        run_seed=None,
        seed=None,
        mode=mode,
        promise=promise,
        truncation=question.truncation,
        error=error,
        choices=scores,
    )


def _first_failure(ends: Sequence[Finished]) -> Finished | None:
    """An error, else what was ended from outside."""
    failures = [end for end in ends if end.reason != "stop"]
    return next((end for end in failures if end.reason == "error"), failures[0] if failures else None)


def _whole(
    question: Question, ends: Sequence[Finished], reason: FinishReason, tokens: tuple[int, ...]
) -> Finished:
    """What came of the requests as the end of one."""
    timings = [end.timings for end in ends]
    n_prompt = len(question.prompt_ids)
    # What was evaluated for one of the choices is cached for the others.
    n_cached = min(n_prompt, *(end.usage.cached_tokens for end in ends))
    return ends[0]._replace(
        reason=reason,
        tokens=tokens,
        usage=Usage(n_prompt, n_cached, len(tokens)),
        timings=Timings(
            timings[0].load_s,
            min(each.queue_s for each in timings),
            None,
            max(each.total_s for each in timings),
            None,
            None,
        ),
    )
