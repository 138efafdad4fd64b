"""From a row to what the engine takes: its parameters over the job's, its prompt as tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import TYPE_CHECKING

from infer_cli.answering.choosing import check_choices, check_fits, question_of, room_for
from infer_cli.batch.choices import PreparedChoice
from infer_cli.batch.job import OutputFormat
from infer_cli.batch.kind import Origin
from infer_cli.batch.late_template import LateTemplate
from infer_cli.batch.replies import PreparedRow, ReplyLines
from infer_cli.batch.rows import Row, RowRequest
from infer_cli.errors import UsageError
from infer_cli.prompt.attachments import Attachment
from infer_cli.prompt.encode import EncodedPrompt, encode_prompt, encode_raw, tag_tokens
from infer_cli.prompt.fitting import (
    POLICIES,
    Fitted,
    Policy,
    fit_encoded,
    needed_window,
    policy_named,
)
from infer_cli.prompt.messages import build_messages, messages_from
from infer_cli.prompt.pairs import encode_after, encode_pair
from infer_cli.prompt.thinking import (
    NO_BUDGET,
    ThinkingVariables,
    budget_of,
    thinking_of,
    thinking_variables,
)
from infer_cli.settings.defaults import FIT_RESERVE, MAX_LOGPROBS, MAX_SAMPLES, MOST_TOKENS
from infer_cli.settings.durations import parse_duration
from infer_cli.settings.origins import Given, Setting
from infer_cli.settings.sampling import effective_params, resolve_sampling
from infer_cli.settings.seeds import check_seed
from infer_cli.text.reasoning import TagPair, pairs_of
from infer_cli.types import TEMPLATE_DECIDES, Message, SamplingParams, ThinkingParams

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.prompt.template import ChatTemplate

_SAMPLING = frozenset(f.name for f in fields(SamplingParams))
_OF_SAMPLING = ("seed", "max_tokens", "stop", "samples", "logprobs", "reasoning_budget")
_OTHERS = frozenset({"system", "deadline", "overflow", "choices", "think", *_OF_SAMPLING})


@dataclass(frozen=True)
class Defaults:
    """What holds for rows that say nothing else."""

    sampling: Mapping[str, Given]
    entry: Mapping[str, object]  # of the model's catalogue entry
    recommended: Mapping[str, object]  # of the model's file
    run_seed: int
    max_tokens: int
    stop: tuple[str, ...] = ()
    system: str | None = None
    n_samples: int = 1
    n_logprobs: int | None = None
    deadline_s: float | None = None
    raw: bool = False
    variables: Mapping[str, object] | None = None
    overflow: Policy = "error"
    choices: tuple[str, ...] = ()  # the answers that are allowed; empty: any
    thinking: ThinkingParams = TEMPLATE_DECIDES


class Preparer:
    """`load_template` is called with the first row that needs a chat template."""

    def __init__(
        self,
        defaults: Defaults,
        vocab: Vocab,
        load_template: Callable[[], ChatTemplate],
        window: int,
        n_ctx_train: int,
    ) -> None:
        self._defaults, self._vocab, self._window, self._n_ctx_train = defaults, vocab, window, n_ctx_train
        self._template = LateTemplate(load_template)
        self.sampling, self.settings = self._resolved({})
        if self.sampling.greedy and defaults.n_samples > 1:
            raise UsageError("--samples above 1 needs sampling: greedy replies would all be the same")
        self._tags: tuple[Sequence[TagPair], Mapping[int, bytes]] | None = None
        self._variables = cache(self._thinking_variables)

    @property
    def run_seed(self) -> int:
        return self._defaults.run_seed

    @property
    def params(self) -> dict[str, object]:
        """The parameters of a row that says nothing."""
        defaults = self._defaults
        return effective_params(self.sampling, defaults.max_tokens, defaults.stop, defaults.thinking)

    @property
    def is_sampling(self) -> bool:
        """Whether a row that says nothing itself is sampled."""
        return not self.sampling.greedy

    def is_raw(self, asked: RowRequest) -> bool:
        """Whether a row's prompt is completed as it is, without a chat template."""
        return asked.raw or (self._defaults.raw and asked.messages is None)

    def lines(self, origin: Origin, form: OutputFormat) -> ReplyLines:
        """What makes lines of replies."""
        return ReplyLines(origin, form, self._vocab.token_text, self.is_raw)

    def prepare(self, row: Row) -> PreparedRow | PreparedChoice:
        """Raises an InferError that says why this row can't be answered; NoTemplate for all like it."""
        asked = row.asked
        if asked is None:
            raise UsageError(row.error)
        values, defaults = asked.values, self._defaults
        for name in values:
            if name not in _SAMPLING and name not in _OTHERS:
                raise UsageError(f"unknown key {name!r}")
        if "choices" in values or defaults.choices:
            return self._prepare_choice(row, asked)
        sampling = self._row_sampling(asked)
        n_samples = _whole(values, "samples", defaults.n_samples, 1, MAX_SAMPLES)
        if sampling.greedy and n_samples > 1:
            if "samples" in values:
                raise UsageError("samples above 1 need sampling: greedy replies would all be the same")
            n_samples = 1
        seed = values.get("seed")
        if seed is not None:
            if isinstance(seed, bool) or not isinstance(seed, int):
                raise UsageError(f"seed must be a whole number, not {seed!r}")
            check_seed(seed, "seed")
            if sampling.greedy and not asked.openai:
                raise UsageError("seed has no meaning without sampling: the reply is greedy")
        max_tokens = _whole(values, "max_tokens", defaults.max_tokens, 1, MOST_TOKENS)
        stop = _stop(values["stop"]) if "stop" in values else defaults.stop
        n_logprobs = defaults.n_logprobs
        if values.get("logprobs") is not None:
            n_logprobs = _whole(values, "logprobs", 0, 0, MAX_LOGPROBS)
        thinking = self._thinking(asked)
        encoded, fitted = self._encoded(
            asked, _overflow(values, defaults.overflow), max_tokens, thinking.think
        )
        ids = encoded.ids
        raw = self.is_raw(asked)
        pairs, shown_tokens = ((), {}) if raw else self._reasoning_tags()
        budget = budget_of(thinking.budget, tuple(pairs), encoded.open_reasoning, self._vocab)
        if budget is None and values.get("reasoning_budget") is not None:
            raise UsageError(f"reasoning_budget: {NO_BUDGET}")
        return PreparedRow(
            row=row,
            raw=raw,
            prompt_ids=ids,
            sampling=sampling,
            params=effective_params(sampling, max_tokens, stop, thinking.with_budget(budget)),
            max_tokens=max_tokens,
            n_samples=n_samples,
            stop=stop,
            n_logprobs=n_logprobs,
            deadline_s=_deadline(values.get("deadline"), defaults.deadline_s),
            run_seed=None if sampling.greedy else defaults.run_seed if seed is None else seed,
            own_seed=seed is not None,
            open_reasoning=encoded.open_reasoning,
            n_window=needed_window(len(ids), max_tokens, self._window, self._n_ctx_train),
            overflow=fitted.policy,
            dropped=fitted.dropped,
            pairs=pairs,
            shown_tokens=shown_tokens,
            budget=budget,
        )

    def _prepare_choice(self, row: Row, asked: RowRequest) -> PreparedChoice:
        values, defaults = asked.values, self._defaults
        for name in values:
            if name in _SAMPLING or name in _OF_SAMPLING:
                raise UsageError(f"{name} has no meaning beside choices: nothing is sampled")
        choices = _choices(values["choices"]) if "choices" in values else defaults.choices
        room = room_for(choices, self._vocab)
        think = self._thinking(asked).think
        encoded, fitted = self._encoded(asked, _overflow(values, defaults.overflow), room, think)
        if self.is_raw(asked):
            pairs = [encode_pair(self._vocab, encoded.text, choice) for choice in choices]
        else:
            pairs = [encode_after(self._vocab, encoded, choice) for choice in choices]
        question = question_of(
            choices,
            pairs,
            question_id=row.custom_id,
            deadline_s=_deadline(values.get("deadline"), defaults.deadline_s),
            truncation=fitted.report(),
        )
        check_fits(question, self._window)
        return PreparedChoice(row, question, fitted.dropped)

    # --- parameters ----------------------------------------------------------------------------

    def _row_sampling(self, asked: RowRequest) -> SamplingParams:
        own = {name: value for name, value in asked.values.items() if name in _SAMPLING}
        if not own:
            return self.sampling
        sampling, settings = self._resolved(own)
        unused = set(own) - {setting.name for setting in settings}
        if unused and not asked.openai:
            raise UsageError(f"{min(unused)} has no meaning without sampling: the reply is greedy")
        return sampling

    def _thinking(self, asked: RowRequest) -> ThinkingParams:
        """What a row asks for itself, over the job's. A text that is completed has no template to ask."""
        own = thinking_of(asked.values.get("think"), asked.values.get("reasoning_budget"))
        if self.is_raw(asked):
            for name, value in (("think", own.think), ("reasoning_budget", own.budget)):
                if value is not None:
                    raise UsageError(f"{name} has no meaning in a prompt that is completed as it is")
            return TEMPLATE_DECIDES
        job = self._defaults.thinking
        return ThinkingParams(
            job.think if own.think is None else own.think, job.budget if own.budget is None else own.budget
        )

    def _thinking_variables(self, think: bool | None) -> ThinkingVariables:
        return thinking_variables(self._template.get(), think, self._defaults.variables or {})

    def _resolved(self, own: Mapping[str, object]) -> tuple[SamplingParams, list[Setting]]:
        given = dict(self._defaults.sampling)
        if "temperature" in own:  # the command line's other values are for rows that are sampled
            given = {name: Given(g.value, g.origin.lstrip("-")) for name, g in given.items()}
        given |= {name: Given(value, "the row") for name, value in own.items()}
        return resolve_sampling(
            given, self._defaults.entry, self._defaults.recommended, default_temperature="0"
        )

    # --- the prompt ----------------------------------------------------------------------------

    def _encoded(
        self, asked: RowRequest, policy: Policy, max_tokens: int, think: bool | None
    ) -> tuple[EncodedPrompt, Fitted]:
        """The prompt as tokens, and how it was made to fit.

        What a row says itself is what the arguments of `infer run` are, and never cut; the fields of a row
        template are what its files are.
        """
        before = [] if self.is_raw(asked) else self._before(asked)
        deadline_s = _deadline(asked.values.get("deadline"), self._defaults.deadline_s)
        limited = cache(lambda: self._template.get().within(deadline_s))
        fields = [Attachment(*item) for item in asked.fields.items()]
        if self.is_raw(asked) and asked.values.get("system") is not None:
            raise UsageError("system has no place in a prompt that is completed as it is")
        encoded, fitted = fit_encoded(
            before,
            fields,
            partial(self._encode, asked, limited, think),
            window=self._window,
            reserve=min(max_tokens, FIT_RESERVE),
            policy=policy,
            answers_last=asked.messages is not None,
        )
        if not encoded.ids:
            raise UsageError("the prompt is empty")
        return encoded, fitted

    def _reasoning_tags(self) -> tuple[Sequence[TagPair], Mapping[int, bytes]]:
        """The pairs of tags, and those that are tokens of their own with their text."""
        if self._tags is None:
            pairs = pairs_of(self._template.get().source)
            self._tags = pairs, tag_tokens(self._vocab, pairs) if pairs else {}
        return self._tags

    def _before(self, asked: RowRequest) -> list[Message]:
        """The messages before the row's prompt; all of them where it has no prompt."""
        own = asked.values.get("system")
        system = self._defaults.system if own is None else _text(own, "system")
        if asked.messages is None:
            return [] if system is None else [Message("system", system)]
        history = messages_from(asked.messages)
        has_system = history[0].role in ("system", "developer")
        return build_messages(None if has_system and own is None else system, history=history)

    def _encode(
        self,
        asked: RowRequest,
        template: Callable[[], ChatTemplate],
        think: bool | None,
        before: Sequence[Message],
        fields: Sequence[Attachment],
    ) -> EncodedPrompt:
        """The whole prompt, of messages and fields as they are or as they were cut."""
        messages = list(before)
        if asked.messages is None:
            text = _text(asked.prompt, "prompt")
            if asked.template is not None:
                text = asked.template.fill({item.name: item.text for item in fields})
            if self.is_raw(asked):
                return EncodedPrompt(encode_raw(text, self._vocab), text, None)
            if not text.strip():
                raise UsageError("the prompt is empty")
            messages = build_messages(None, args=[text], history=before)
        variables = self._defaults.variables
        if think is not None:
            found = self._variables(think)
            if found.unused and asked.values.get("think") is not None:
                raise UsageError(f"think: {found.unused}")
            variables = {**(variables or {}), **found.variables}
        return encode_prompt(template(), messages, self._vocab, variables=variables)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a string")
    return value


def _whole(values: Mapping[str, object], name: str, default: int, least: int, most: int) -> int:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{name} must be a whole number between {least} and {most}, not {value!r}")
    return value


def _stop(value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise UsageError("stop must be a string or a list of strings, none of them empty")
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError("stop: a string has half a surrogate pair") from None
    return tuple(texts)


def _choices(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UsageError("choices must be a list of strings")
    check_choices(value, "choices")
    return tuple(value)


def _overflow(values: Mapping[str, object], default: Policy) -> Policy:
    value = values.get("overflow", default)
    policy = policy_named(value, POLICIES)
    if policy is None:
        raise UsageError(f"overflow must be one of {', '.join(POLICIES)}, not {value!r}")
    return policy


def _deadline(value: object, default: float | None) -> float | None:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise UsageError("deadline must be a length of time, such as 3 or 500ms")
    return parse_duration(str(value), "deadline")
