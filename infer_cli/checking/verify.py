"""Is a line of a batch's output what its model answers? Looked at, asked again, compared.

Knows no command line and no file: it is given rows and lines, says what to ask, and compares.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from infer_cli.answering.feed import Feed
from infer_cli.answering.reply import NOTHING_COMPUTED, digest
from infer_cli.batch.job import JobFile, OutputFormat
from infer_cli.batch.output_index import Line
from infer_cli.batch.preparing import Defaults, PreparedRow, Preparer, request_of
from infer_cli.batch.replies import Origin, failure, line_of, reply_of
from infer_cli.batch.rows import Row
from infer_cli.checking.claimed_replies import Claim, EngineClaim, claims_of, engine_claim, model_name
from infer_cli.checking.comparison import differing_fields, is_same
from infer_cli.engine.mode_policy import ModePolicy, why_width_breaks
from infer_cli.errors import ExitStatus, InferError, UsageError
from infer_cli.prompt.fitting import Policy
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.settings.origins import Given
from infer_cli.text.common_prefix import n_same
from infer_cli.text.reasoning import TagPair
from infer_cli.types import (
    EngineRequest,
    Finished,
    Promise,
    Provenance,
    Reply,
    SamplingParams,
    Usage,
)

_SAMPLING = frozenset(field.name for field in dataclasses.fields(SamplingParams))
ONLY_SEED = "only the seed was promised"
_MAX_PREPARERS = 64  # one for each set of parameters that claims have
# Failures that the machine had, not the row: they need not come again.
_OF_THE_MACHINE = {
    ExitStatus.NATIVE_CRASH: "it says that llama.cpp crashed on this row",
    ExitStatus.OUT_OF_MEMORY: "it says that memory ran out on this row",
}


class Difference(NamedTuple):
    """A reply that does not hold. `token`: the first that differs, if it is known; `was` and `now` are there,
    None where the reply has ended."""

    row: int
    custom_id: str
    sample: int
    what: str
    token: int | None = None
    was: int | None = None
    now: int | None = None


class Unchecked(NamedTuple):
    """A reply of which no one can say whether it holds."""

    row: int
    custom_id: str
    sample: int
    what: str


class Question(NamedTuple):
    """A line that is to be given again. `asked` None: the row can't be answered, and `error` says why."""

    row: Row
    line: Line
    claims: Sequence[Claim]
    asked: PreparedRow | None
    is_chat: bool
    pairs: Sequence[TagPair] = ()
    shown_tokens: Mapping[int, bytes] = {}
    error: InferError | None = None


class Checked(NamedTuple):
    """What is known of a row's lines before anything is computed."""

    differences: list[Difference]
    unchecked: list[Unchecked]
    questions: list[Question]


class Questions:
    """Makes of rows and of what is claimed of them what the engine is asked.

    `defaults` are the job's. Without a job, sampling, limit, stop, log-probabilities and how a prompt was cut
    are taken from the claims.
    """

    def __init__(
        self,
        defaults: Defaults,
        preparer: Callable[[Defaults], Preparer],
        job: JobFile | None,
        engine: EngineClaim,
    ) -> None:
        self._defaults, self._job, self._engine = defaults, job, engine
        self._new_preparer = preparer
        self._preparer = lru_cache(_MAX_PREPARERS)(self._preparer_for)

    def check(self, row: Row, lines: Sequence[Line]) -> Checked:
        """What differs, can't be checked, or is to be asked. Raises UsageError for lines that are none."""
        found = Checked([], [], [])
        claimed: dict[int, Claim] = {}
        for line in lines:
            claims = claims_of(line, self._job)
            claimed.update((claim.sample, claim) for claim in claims)
            outcome = self._check_line(row, line, claims)
            if isinstance(outcome, Question):
                found.questions.append(outcome)
            elif isinstance(outcome, Unchecked):
                found.unchecked.append(outcome)
            else:
                found.differences.append(outcome)
        n_samples = self._n_samples(row, found.questions)
        if n_samples is not None:
            found.differences.extend(
                Difference(row.index, row.custom_id, sample, "it has no reply")
                for sample in range(n_samples)
                if sample not in claimed
            )
            found.differences.extend(
                _different(claim, f"the row asks for {n_samples} samples")
                for sample, claim in claimed.items()
                if sample >= n_samples
            )
        return found

    def _n_samples(self, row: Row, questions: Sequence[Question]) -> int | None:
        """How many replies a row must have; None where that can't be known."""
        for question in questions:
            if question.line.failed and question.line.samples < 0:
                return None  # in OpenAI's form, one failure may stand for all
            if question.asked is None:
                return 1
            if self._job is not None or (row.asked is not None and "samples" in row.asked.values):
                return question.asked.n_samples
        return None

    def _check_line(self, row: Row, line: Line, claims: Sequence[Claim]) -> Question | Difference | Unchecked:
        first = claims[0]
        if what := self._foreign(row, line, claims):
            return _different(first, what)
        try:
            preparer = self._preparer(*((None, None, None) if self._job is not None else _parameters(first)))
            asked = preparer.prepare(row)
        except InferError as e:
            return _failed_before(row, line, claims, e)
        is_chat = row.asked is None or not preparer.is_raw(row.asked)
        code = first.error_code
        if code in _OF_THE_MACHINE:
            if any(claim.text is not None or claim.tokens or claim.params for claim in claims):
                return _different(first, "it has failed, and has a reply")
            return Unchecked(row.index, row.custom_id, first.sample, _OF_THE_MACHINE[ExitStatus(code)])
        was_cut = any(claim.was_cut for claim in claims)
        if was_cut != (code == ExitStatus.DEADLINE):
            return _different(first, "its error is not that of its finish_reason")
        if was_cut and asked.deadline_s is None:
            return _different(first, "a deadline is said to have ended it, and none was asked for")
        if was_cut and line.samples < 0:
            what = "it says that a deadline ended a reply, and does not say after which tokens"
            return Unchecked(row.index, row.custom_id, first.sample, what)
        if code is not None and first.params == {}:
            return _different(first, f"it failed with code {code}, and the row can be answered")
        for claim in claims:
            if self._job is None and None not in (asked.run_seed, claim.run_seed) and not asked.own_seed:
                asked = dataclasses.replace(asked, run_seed=claim.run_seed)
            if what := _unlike(claim, asked):
                return _different(claim, what)
        asked = dataclasses.replace(asked, deadline_s=None)
        if asked.raw:
            return Question(row, line, claims, asked, is_chat)
        return Question(row, line, claims, asked, is_chat, preparer.pairs, preparer.tag_tokens)

    def _foreign(self, row: Row, line: Line, claims: Sequence[Claim]) -> str:
        """Why a line can't be one of this job; empty where it may be."""
        if self._job is not None and not self._job.shard.has(row.index):
            return f"the row is not one of shard {self._job.shard}"
        if row.sha256 != line.row_sha256:
            return "the row of the input says something else"
        if row.custom_id != claims[0].custom_id:
            return f"its custom_id is {claims[0].custom_id!r:.60}, the row's is {row.custom_id!r:.60}"
        value, engine = line.value, self._engine
        if line.samples < 0:
            found = engine_claim(line, self._job).fingerprint
            if found != engine.fingerprint:
                return f"its fingerprint is {found:.60}, the job's is {engine.fingerprint}"
        else:
            was = {"model": value.get("model"), "engine": value.get("engine")}
            now = {
                "model": engine.model_identity._asdict(),
                "engine": engine.engine_identity._asdict(),
            }
            if (field := next(differing_fields(was, now, "infer", exact=True), None)) is not None:
                return f"its {field.path:.60} is {field.was!r:.60}, it should be {field.now!r:.60}"
        if engine.model_sha256 is None and model_name(line) not in (None, engine.model):
            return f"its model is {model_name(line)!r:.60}, it should be {engine.model!r:.60}"
        if not all(map(_is_of_its_line, claims)):
            return "its digest is not that of what the line says"
        return ""

    def _preparer_for(self, params: str | None, overflow: Policy | None, n_logprobs: int | None) -> Preparer:
        if overflow is None:
            return self._new_preparer(self._defaults)
        defaults = dataclasses.replace(self._defaults, overflow=overflow, n_logprobs=n_logprobs)
        values = json.loads(params or "{}")
        if not values:
            return self._new_preparer(defaults)
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
            )
        )


def _parameters(claim: Claim) -> tuple[str | None, Policy, int | None]:
    """What a line that came alone says of the job."""
    return None if claim.params is None else json.dumps(claim.params), claim.overflow, claim.n_logprobs


def _failed_before(row: Row, line: Line, claims: Sequence[Claim], error: InferError) -> Question | Difference:
    """Of a row that can't be answered now."""
    code = claims[0].error_code
    if code is None:
        return _different(claims[0], f"the row can't be answered: {error.message}")
    if code != error.exit_status:
        what = f"it failed with code {code}, now with {error.exit_status:d}: {error.message}"
        return _different(claims[0], what)
    return Question(row, line, claims, None, True, error=error)


def _unlike(claim: Claim, asked: PreparedRow) -> str:
    """What of a claim is not what the row asks for, in words; empty where all is."""
    if claim.params is not None and (names := _unequal(claim.params, asked.params)):
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


def answer(
    running: RunningEngine, origin: Origin, questions: Iterable[Question]
) -> Iterator[tuple[Question, list[Reply]]]:
    """Each question with its replies, as they end. Leaving early cancels the rest."""
    replies: dict[int, list[Reply]] = {}  # of questions that are under way, by the place of their lines
    for (question, claim, known), end in Feed(running.service, _work(origin, questions)):
        found = replies.setdefault(question.line.start, [])
        found.append(known or _given_again(origin, question, claim, end))
        if len(found) == len(question.claims):
            del replies[question.line.start]
            yield question, sorted(found, key=lambda reply: reply.sample)


def _work(
    origin: Origin, questions: Iterable[Question]
) -> Iterator[tuple[tuple[Question, Claim, Reply | None], EngineRequest | Finished]]:
    """Each claim with its request, or with the reply that needs no engine."""
    for question in questions:
        for claim in question.claims:
            known = _without_engine(origin, question, claim)
            if known is not None:
                yield (question, claim, known), NOTHING_COMPUTED
                continue
            assert question.asked is not None
            asked = question.asked
            if claim.was_cut and claim.tokens:
                asked = dataclasses.replace(asked, max_tokens=len(claim.tokens))
            yield (question, claim, None), request_of(asked, claim.sample, question.shown_tokens)


def _given_again(origin: Origin, question: Question, claim: Claim, end: Finished) -> Reply:
    assert question.asked is not None
    if claim.was_cut and end.reason == "length":
        end = end._replace(reason="deadline")
    return reply_of(origin, question.asked, claim.sample, end, question.pairs)


def _without_engine(origin: Origin, question: Question, claim: Claim) -> Reply | None:
    """The reply that needs no engine: a failure before it, or a deadline before the first token."""
    if question.error is not None:
        error = question.error
        return failure(origin, question.row, claim.sample, error.exit_status, error.in_full)
    if not claim.was_cut or claim.tokens:
        return None
    assert question.asked is not None
    asked = question.asked
    end = NOTHING_COMPUTED._replace(
        reason="deadline",
        logprobs=None if asked.n_logprobs is None else (),
        usage=Usage(len(asked.prompt_ids), 0, 0),
    )
    return reply_of(origin, asked, claim.sample, end, question.pairs)


def compare(
    question: Question, replies: Sequence[Reply], token_text: Callable[[int], bytes], *, exact: bool
) -> list[Difference]:
    """Nothing where a line is the one that should be there; else what differs, for each reply at most once.

    `exact`: the engine promises the same bits, so log-probabilities must be the same too.
    """
    found = [
        difference
        for claim, reply in zip(question.claims, replies, strict=True)
        if (difference := _compare_reply(claim, reply)) is not None
    ]
    if found:
        return found
    form: OutputFormat = "openai" if question.line.samples < 0 else "infer"
    data = line_of(question.row, replies, form, token_text, is_chat=question.is_chat)
    field = next(differing_fields(question.line.value, json.loads(data), form, exact=exact), None)
    if field is None:
        return []
    what = f"its {field.path:.60} is {field.was!r:.60}, now {field.now!r:.60}"
    return [_different(question.claims[0], what)]


def _compare_reply(claim: Claim, reply: Reply) -> Difference | None:
    if claim.error_code is not None and reply.error is None and not claim.was_cut:
        return _different(claim, f"it failed with code {claim.error_code}, and now it is answered")
    if claim.tokens is not None and claim.tokens != reply.tokens:
        token = n_same(claim.tokens, reply.tokens)
        was, now = _at(claim.tokens, token), _at(reply.tokens, token)
        return _different(claim, "differs", token, was, now)
    if claim.digest == reply.digest and claim.text == reply.text:
        return None
    if reply.error is not None and claim.error_code is None:
        return _different(claim, f"no reply now: {reply.error['message']}")
    if claim.text != reply.text:
        return _different(claim, f"its text is {claim.text!r:.60}, now {reply.text!r:.60}")
    if claim.finish_reason != reply.finish_reason:
        return _different(claim, f"it ended with {claim.finish_reason}, now with {reply.finish_reason}")
    return _different(claim, "its digest is another")


def promise_then(engine: EngineClaim, policy: ModePolicy) -> Promise:
    """What the engine promised when the lines were written: a width was thought to keep it that does not."""
    return "canonical" if why_width_breaks(engine.facts.mode, engine.width) else policy.promise


def reasons(engine: EngineClaim, now: Provenance) -> list[str]:
    """What may explain differences, the likeliest first."""
    found = []
    if engine.model_sha256 != now.model.sha256:
        found.append(f"the model's sha256 was {engine.model_sha256}, is {now.model.sha256}")
    fingerprint, facts = now.engine.fingerprint, now.engine.facts
    if engine.fingerprint != fingerprint:
        changed = _unequal(engine.recorded, facts)
        what = "; ".join(f"{name} was {engine.recorded.get(name)}, is {facts.get(name)}" for name in changed)
        found.append(f"the engine's fingerprint was {engine.fingerprint}, is {fingerprint}: {what}")
    if why := why_width_breaks(engine.facts.mode, engine.width):
        found.append(why)
    if engine.only_seed:
        found.append(ONLY_SEED)
    return found


def not_in_input(line: Line, job: JobFile | None) -> list[Difference]:
    return [_different(claim, "the input has no such row") for claim in claims_of(line, job)]


def _is_of_its_line(claim: Claim) -> bool:
    """Whether the digest is that of the line's own values, as far as these are there."""
    if claim.tokens is None or claim.params is None:
        return True
    try:
        found = digest(claim.tokens, claim.text, claim.finish_reason, claim.seed, claim.params)
    except (ValueError, RecursionError):  # NaN, or nested too deeply
        return False
    return found == claim.digest


def _different(
    claim: Claim, what: str, token: int | None = None, was: int | None = None, now: int | None = None
) -> Difference:
    return Difference(claim.row, claim.custom_id, claim.sample, what, token, was, now)


def _at(tokens: Sequence[int], index: int) -> int | None:
    return tokens[index] if index < len(tokens) else None


def _unequal(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    return [name for name in {**a, **b} if not is_same(a.get(name), b.get(name))]
