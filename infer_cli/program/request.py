"""What a program asks for, and the job that becomes of it: ids that fit the window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

from infer_cli.answering.job import Job
from infer_cli.errors import UsageError
from infer_cli.program.prompts import Messages, Prompt, PromptReader
from infer_cli.prompt.encode import tag_tokens
from infer_cli.prompt.fitting import needed_window
from infer_cli.prompt.messages import check_unicode
from infer_cli.prompt.thinking import NO_BUDGET, budget_of, thinking_of
from infer_cli.settings.defaults import MAX_LOGPROBS, MAX_TOKENS, MOST_TOKENS
from infer_cli.settings.origins import Given
from infer_cli.settings.sampling import effective_params, resolve_sampling
from infer_cli.settings.seeds import check_seed, draw_seed
from infer_cli.system.ids import new_id
from infer_cli.text.reasoning import pairs_of
from infer_cli.types import SamplingParams

if TYPE_CHECKING:
    from infer_cli.runtime.session import Session

Sampling = SamplingParams | Mapping[str, object]

_SAMPLING = frozenset(field.name for field in fields(SamplingParams))


@dataclass(frozen=True)
class Request:
    """One reply that is asked for: to `messages`, or after `prompt`, a text that is completed as it is.

    `messages` as a string is one message of the user. `prompt` may be ids, to which nothing is added: so it
    may hold control tokens. `sampling` as `SamplingParams` holds as it stands. As a
    mapping it holds what is asked for: the rest is what the model recommends where the reply is sampled, as
    for `infer run`. Without either the reply is greedy. `seed` None is drawn where the reply is sampled.
    `think`: whether a thinking model thinks, None: as its chat template has it. `reasoning_budget`: tokens of
    reasoning after which it is ended and the answer follows; None: as many as the reply.
    `logprobs`: None for none, 0 for the chosen tokens, N for the N likeliest too. `deadline_s`: seconds.

    Nothing is checked before the request is answered: what is wrong with it is then its reply's error.
    """

    messages: Messages = ()
    prompt: Prompt | None = None
    sampling: Sampling = field(default_factory=dict)
    max_tokens: int = MAX_TOKENS
    stop: str | Sequence[str] = ()
    seed: int | None = None
    logprobs: int | None = None
    deadline_s: float | None = None
    id: str = field(default_factory=new_id)
    think: bool | None = None
    reasoning_budget: int | None = None


class RequestPreparer:
    """Makes jobs of requests to one model, whose prompts `reader` reads."""

    def __init__(self, session: Session, reader: PromptReader) -> None:
        self._session, self._reader = session, reader

    def prepare(self, request: Request) -> tuple[Job, int]:
        """The job, and the tokens that its prompt and reply may fill. Raises InferError: why it can't be
        answered."""
        sampling = self._sampling(request.sampling)
        stop = _stop(request.stop)
        max_tokens = _whole("max_tokens", request.max_tokens, 1, MOST_TOKENS)
        logprobs = request.logprobs
        if logprobs is not None:
            _whole("logprobs", logprobs, 0, MAX_LOGPROBS)
        seed = _seed(request.seed, sampling)
        deadline_s = checked_deadline(request.deadline_s)
        thinking = thinking_of(request.think, request.reasoning_budget)
        encoded, template = self._reader.read(request.messages, request.prompt, deadline_s, thinking.think)
        loaded = self._session.loaded
        pairs = pairs_of(template.source) if template is not None else ()
        budget = budget_of(thinking.budget, pairs, encoded.open_reasoning, loaded.vocab)
        if budget is None and thinking.budget is not None:
            raise UsageError(f"reasoning_budget: {NO_BUDGET}")
        job = Job(
            id=request.id,
            prompt_ids=encoded.ids,
            sampling=sampling,
            params=effective_params(sampling, max_tokens, stop, thinking),
            max_tokens=max_tokens,
            run_seed=seed,
            stop=stop,
            n_logprobs=logprobs,
            deadline_s=deadline_s,
            reasoning_pairs=pairs,
            open_reasoning=encoded.open_reasoning,
            tag_tokens=tag_tokens(loaded.vocab, pairs) if pairs else {},
            budget=budget,
        )
        return job, needed_window(len(encoded.ids), max_tokens, loaded.window, loaded.n_ctx_train)

    def _sampling(self, asked: Sampling) -> SamplingParams:
        if isinstance(asked, SamplingParams):
            given = {name: Given(value, "sampling") for name, value in asdict(asked).items()}
            return resolve_sampling(given, {}, {}, default_temperature="0")[0]
        if unknown := set(asked) - _SAMPLING:
            raise UsageError(f"there is no sampling parameter {min(unknown)!r}")
        given = {name: Given(value, name) for name, value in asked.items()}
        sampling, settings = resolve_sampling(given, *self._session.recommended, default_temperature="0")
        if unused := set(asked) - {setting.name for setting in settings}:
            raise UsageError(f"{min(unused)} has no meaning without sampling: the reply is greedy")
        return sampling


def _stop(asked: str | Sequence[str]) -> tuple[str, ...]:
    texts = (asked,) if isinstance(asked, str) else tuple(asked)
    for text in texts:
        if not isinstance(text, str) or not text:
            raise UsageError("stop must be strings, none of them empty")
        check_unicode(text, "stop")
    return texts


def _seed(asked: int | None, sampling: SamplingParams) -> int | None:
    if asked is None:
        return None if sampling.greedy else draw_seed()
    if isinstance(asked, bool) or not isinstance(asked, int):
        raise UsageError(f"seed must be a whole number, not {asked!r}")
    check_seed(asked, "seed")
    if sampling.greedy:
        raise UsageError("seed has no meaning without sampling: the reply is greedy")
    return asked


def _whole(name: str, value: int, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{name} must be a whole number between {least} and {most}, not {value!r}")
    return value


def checked_deadline(asked: float | None) -> float | None:
    """Raises UsageError for what is no number of seconds."""
    if asked is not None and (
        isinstance(asked, bool) or not isinstance(asked, int | float) or not asked >= 0
    ):
        raise UsageError(f"deadline_s must be a number of seconds, not {asked!r}")
    return asked
