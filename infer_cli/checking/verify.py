"""Is a line of a batch's output what its model answers? Looked at, asked again, compared.

Knows no command line and no file: it is given rows and lines, says what to ask, and compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple

from infer_cli.answering.feed import Feed
from infer_cli.answering.reply import NOTHING_COMPUTED
from infer_cli.batch.job import JobFile, OutputFormat
from infer_cli.batch.kind import Answer, AskedRow, Origin
from infer_cli.batch.open_row import OpenRow
from infer_cli.batch.output_index import Line
from infer_cli.batch.rows import Row
from infer_cli.checking.claimed_engine import EngineClaim, engine_claim, model_name
from infer_cli.checking.claims import claims_of
from infer_cli.checking.comparison import differing_fields, unequal
from infer_cli.checking.examination import C, Difference, Examination, Unchecked, different, unchecked
from infer_cli.engine.mode_policy import ModePolicy, why_width_breaks
from infer_cli.errors import ExitStatus, InferError
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.types import EngineRequest, Finished, Promise, Provenance, ScoreRequest

_Take = Callable[[Finished], Answer | None]

ONLY_SEED = "only the seed was promised"
# Failures that the machine had, not the row: they need not come again.
_OF_THE_MACHINE = {
    ExitStatus.NATIVE_CRASH: "it says that llama.cpp crashed on this row",
    ExitStatus.OUT_OF_MEMORY: "it says that memory ran out on this row",
}


@dataclass(frozen=True)
class Question(Generic[C]):
    """A line that is to be given again. `asked` None: the row can't be answered, and `error` says why."""

    row: Row
    line: Line
    claims: Sequence[C]
    asked: AskedRow[Any] | None
    error: InferError | None = None


class Checked(NamedTuple):
    """What is known of a row's lines before anything is computed."""

    differences: list[Difference]
    unchecked: list[Unchecked]
    questions: list[Question[Any]]


class Questions(Generic[C]):
    """Makes of rows and of what is claimed of them what the engine is asked."""

    def __init__(self, examination: Examination[C], job: JobFile | None, engine: EngineClaim) -> None:
        self._examination, self._job, self._engine = examination, job, engine

    def check(self, row: Row, lines: Sequence[Line]) -> Checked:
        """What differs, can't be checked, or is to be asked. Raises UsageError for lines that are none."""
        found = Checked([], [], [])
        claimed: dict[int, C] = {}
        for line in lines:
            claims: Sequence[Any] = claims_of(line, self._job)
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
                different(claim, f"the row asks for {n_samples} samples")
                for sample, claim in claimed.items()
                if sample >= n_samples
            )
        return found

    def _n_samples(self, row: Row, questions: Sequence[Question[C]]) -> int | None:
        """How many replies a row must have; None where that can't be known."""
        for question in questions:
            if question.line.failed and question.line.samples < 0:
                return None  # in OpenAI's form, one failure may stand for all
            if question.asked is None:
                return 1
            if self._job is not None or (row.asked is not None and "samples" in row.asked.values):
                return question.asked.n_samples
        return None

    def _check_line(self, row: Row, line: Line, claims: Sequence[C]) -> Question[C] | Difference | Unchecked:
        first = claims[0]
        if what := self._foreign(row, line, claims):
            return different(first, what)
        try:
            asked = self._examination.preparer(first).prepare(row)
        except InferError as e:
            return _failed_before(row, line, claims, e)
        code = first.error_code
        if code in _OF_THE_MACHINE:
            if any(claim.has_answer for claim in claims):
                return different(first, "it has failed, and has a reply")
            return unchecked(first, _OF_THE_MACHINE[ExitStatus(code)])
        found = self._examination.look(line, claims, asked)
        if isinstance(found, Difference | Unchecked):
            return found
        return Question(row, line, claims, found)

    def _foreign(self, row: Row, line: Line, claims: Sequence[C]) -> str:
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
            if (field := next(differing_fields(was, now, "infer", tolerance=None), None)) is not None:
                return f"its {field.path:.60} is {field.was!r:.60}, it should be {field.now!r:.60}"
        if engine.model_sha256 is None and model_name(line) not in (None, engine.model):
            return f"its model is {model_name(line)!r:.60}, it should be {engine.model!r:.60}"
        return next((claim.contradiction for claim in claims if claim.contradiction), "")


def _failed_before(row: Row, line: Line, claims: Sequence[C], error: InferError) -> Question[C] | Difference:
    """Of a row that can't be answered now."""
    code = claims[0].error_code
    if code is None:
        return different(claims[0], f"the row can't be answered: {error.message}")
    if code != error.exit_status:
        what = f"it failed with code {code}, now with {error.exit_status:d}: {error.message}"
        return different(claims[0], what)
    return Question(row, line, claims, None, error)


def answer(
    running: RunningEngine, origin: Origin, examination: Examination[C], questions: Iterable[Question[C]]
) -> Iterator[tuple[Question[C], list[Any]]]:
    """Each question with its answers, as they end. Leaving early cancels the rest."""
    answers: dict[int, list[Answer]] = {}  # of questions that are under way, by the place of their lines
    work = _work(origin, examination, questions)
    for (question, take), end in Feed(running.service, work):
        found = answers.setdefault(question.line.start, [])
        if (one := take(end)) is not None:
            found.append(one)
        if len(found) == len(question.claims):
            del answers[question.line.start]
            yield question, sorted(found, key=lambda answer: answer.sample)


def _work(
    origin: Origin, examination: Examination[C], questions: Iterable[Question[C]]
) -> Iterator[tuple[tuple[Question[C], _Take], EngineRequest | ScoreRequest | Finished]]:
    """Each request with what makes an answer of its end; where no engine is needed, the end is there."""
    for question in questions:
        for claim in question.claims:
            if question.error is not None:
                error = question.error
                known = examination.lines(origin, "infer").failure(
                    question.row, claim.sample, error.exit_status, error.in_full
                )
                yield (question, partial(_known, known)), NOTHING_COMPUTED
                continue
            assert question.asked is not None
            again = examination.again(claim, question.asked)
            row = OpenRow(origin, again, [claim.sample])
            requests = row.requests(claim.sample)
            if not requests:
                yield (question, partial(_known, again.answer(origin, claim.sample, []))), NOTHING_COMPUTED
            for request in requests:
                yield (question, partial(row.finished, claim.sample)), request


def _known(answer: Answer, end: Finished) -> Answer:
    return answer


def compare(
    examination: Examination[C],
    origin: Origin,
    question: Question[C],
    answers: Sequence[Any],
    *,
    tolerance: float | None,
) -> list[Difference]:
    """Nothing where a line is the one that should be there; else what differs, for each answer at most once.

    `tolerance` None: the engine promises the same bits, so log-probabilities must be the same too; otherwise
    they may differ by it.
    """
    found = [
        difference
        for claim, one in zip(question.claims, answers, strict=True)
        if (difference := examination.compare(claim, one)) is not None
    ]
    if found:
        return found
    form: OutputFormat = "openai" if question.line.samples < 0 else "infer"
    data = examination.lines(origin, form).line(question.row, answers)
    field = next(differing_fields(question.line.value, json.loads(data), form, tolerance=tolerance), None)
    if field is None:
        return []
    what = f"its {field.path:.60} is {field.was!r:.60}, now {field.now!r:.60}"
    return [different(question.claims[0], what)]


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
        changed = unequal(engine.recorded, facts)
        what = "; ".join(f"{name} was {engine.recorded.get(name)}, is {facts.get(name)}" for name in changed)
        found.append(f"the engine's fingerprint was {engine.fingerprint}, is {fingerprint}: {what}")
    if why := why_width_breaks(engine.facts.mode, engine.width):
        found.append(why)
    if engine.only_seed:
        found.append(ONLY_SEED)
    return found


def not_in_input(line: Line, job: JobFile | None) -> list[Difference]:
    return [different(claim, "the input has no such row") for claim in claims_of(line, job)]
