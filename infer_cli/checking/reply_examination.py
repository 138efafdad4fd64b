"""Is a reply what its row asks for? Looked at, asked again, compared."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import lru_cache

from infer_cli.answering.reply import NOTHING_COMPUTED
from infer_cli.batch.choices import PreparedChoice
from infer_cli.batch.job import JobFile, OutputFormat
from infer_cli.batch.kind import Asked, Origin
from infer_cli.batch.output_index import Line
from infer_cli.batch.preparing import Defaults, Preparer
from infer_cli.batch.replies import PreparedRow, ReplyLines
from infer_cli.checking.claimed_replies import ReplyClaim
from infer_cli.checking.comparison import is_same, unequal
from infer_cli.checking.examination import Difference, Unchecked, different, unchecked
from infer_cli.errors import ExitStatus, UsageError
from infer_cli.prompt.fitting import Policy
from infer_cli.prompt.thinking import thinking_of
from infer_cli.settings.origins import Given
from infer_cli.text.common_prefix import n_same
from infer_cli.types import EngineRequest, Finished, Reply, SamplingParams, Usage

_SAMPLING = frozenset(field.name for field in dataclasses.fields(SamplingParams))
AskedReply = PreparedRow | PreparedChoice
_MAX_PREPARERS = 64  # one for each set of parameters that claims have


class ReplyExamination:
    """`defaults` are the job's. Without a job, sampling, limit, stop, log-probabilities and how a prompt was
    cut are taken from the claims."""

    def __init__(
        self, defaults: Defaults, new_preparer: Callable[[Defaults], Preparer], job: JobFile | None
    ) -> None:
        self._defaults, self._new_preparer, self._job = defaults, new_preparer, job
        self._preparer = lru_cache(_MAX_PREPARERS)(self._preparer_for)
        self._plain = new_preparer(defaults)

    def lines(self, origin: Origin, form: OutputFormat) -> ReplyLines:
        return self._plain.lines(origin, form)

    def preparer(self, claim: ReplyClaim) -> Preparer:
        if self._job is not None:
            return self._plain
        params = None if claim.params is None else json.dumps(claim.params)
        return self._preparer(params, claim.overflow, claim.n_logprobs)

    def _preparer_for(self, params: str | None, overflow: Policy, n_logprobs: int | None) -> Preparer:
        defaults = dataclasses.replace(self._defaults, overflow=overflow, n_logprobs=n_logprobs)
        values = json.loads(params or "{}")
        if not values:
            return self._new_preparer(defaults)
        if "choices" in values:
            return self._new_preparer(dataclasses.replace(defaults, choices=_choices(values["choices"])))
        stop = values.get("stop")
        if not isinstance(stop, list) or not all(isinstance(text, str) and text for text in stop):
            raise UsageError("its stop strings are not as they should be")
        return self._new_preparer(
            dataclasses.replace(
                defaults,
                sampling={name: Given(values[name], name) for name in values if name in _SAMPLING},
                entry={},
                recommended={},
                max_tokens=values["max_tokens"],
                stop=tuple(stop),
                thinking=thinking_of(values.get("think"), values.get("reasoning_budget")),
            )
        )

    def look(
        self, line: Line, claims: Sequence[ReplyClaim], asked: AskedReply
    ) -> AskedReply | Difference | Unchecked:
        first = claims[0]
        code = first.error_code
        was_cut = any(claim.was_cut for claim in claims)
        if was_cut != (code == ExitStatus.DEADLINE):
            return different(first, "its error is not that of its finish_reason")
        if was_cut and asked.deadline_s is None:
            return different(first, "a deadline is said to have ended it, and none was asked for")
        if was_cut and line.samples < 0:
            what = "it says that a deadline ended a reply, and does not say after which tokens"
            return unchecked(first, what)
        if code is not None and first.params == {}:
            return different(first, f"it failed with code {code}, and the row can be answered")
        for claim in claims:
            if self._job is None and None not in (asked.run_seed, claim.run_seed) and not asked.own_seed:
                asked = dataclasses.replace(asked, run_seed=claim.run_seed)
            if what := _unlike(claim, asked):
                return different(claim, what)
        return asked.without_deadline()

    def again(self, claim: ReplyClaim, asked: AskedReply) -> Asked[Reply]:
        return _CutReply(asked, len(claim.tokens or ())) if claim.was_cut else asked

    def compare(self, claim: ReplyClaim, answer: Reply) -> Difference | None:
        if claim.error_code is not None and answer.error is None and not claim.was_cut:
            return different(claim, f"it failed with code {claim.error_code}, and now it is answered")
        if claim.tokens is not None and claim.tokens != answer.tokens:
            token = n_same(claim.tokens, answer.tokens)
            was, now = _at(claim.tokens, token), _at(answer.tokens, token)
            return different(claim, "differs", token, was, now)
        if claim.digest == answer.digest and claim.text == answer.text:
            return None
        if answer.error is not None and claim.error_code is None:
            return different(claim, f"no reply now: {answer.error['message']}")
        if claim.text != answer.text:
            return different(claim, f"its text is {claim.text!r:.60}, now {answer.text!r:.60}")
        if claim.finish_reason != answer.finish_reason:
            return different(claim, f"it ended with {claim.finish_reason}, now with {answer.finish_reason}")
        return different(claim, "its digest is another")


def _choices(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(text, str) for text in value):
        raise UsageError("its choices are not as they should be")
    return tuple(value)


class _CutReply:
    """A reply that a deadline ended after so many tokens: as many are asked for, none before the first."""

    def __init__(self, asked: AskedReply, n_tokens: int) -> None:
        self._asked, self._n_tokens = asked, n_tokens

    def requests(self, sample: int) -> tuple[EngineRequest, ...]:
        if not self._n_tokens or isinstance(self._asked, PreparedChoice):
            return ()
        return dataclasses.replace(self._asked, max_tokens=self._n_tokens).requests(sample)

    def answer(self, origin: Origin, sample: int, ends: Sequence[Finished]) -> Reply:
        asked = self._asked
        for end in ends:
            return asked.answer(
                origin, sample, [end._replace(reason="deadline") if end.reason == "length" else end]
            )
        end = NOTHING_COMPUTED._replace(
            reason="deadline",
            logprobs=None if asked.n_logprobs is None else (),
            usage=Usage(len(asked.prompt_ids), 0, 0),
        )
        return asked.answer(origin, sample, [end])


def _unlike(claim: ReplyClaim, asked: AskedReply) -> str:
    """What of a claim is not what the row asks for, in words; empty where all is."""
    if claim.params is not None and (names := unequal(claim.params, asked.params)):
        name = names[0]
        was, now = claim.params.get(name), asked.params.get(name)
        return f"its {name:.60} is {was!r:.60}, the row asks for {now!r:.60}"
    if claim.tokens is not None and claim.run_seed != asked.run_seed:
        return f"its run_seed is {claim.run_seed}, the job's is {asked.run_seed}"
    if (seed := asked.seed(claim.sample)) != claim.seed:
        return f"its seed is {claim.seed}, the row's is {seed}"
    if claim.n_prompt not in (None, len(asked.prompt_ids)):
        return f"its prompt had {claim.n_prompt} tokens, the row's has {len(asked.prompt_ids)}"
    if not is_same(asked.truncation, claim.truncation):
        return "what was left out of its prompt is not what its line says"
    if claim.was_cut and claim.tokens is not None and len(claim.tokens) >= asked.max_tokens:
        return "a deadline is said to have ended it, and it is as long as it may be"
    return ""


def _at(tokens: Sequence[int], index: int) -> int | None:
    return tokens[index] if index < len(tokens) else None
