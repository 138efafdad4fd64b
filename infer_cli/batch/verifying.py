"""Is a results file what its model answers? A sample of its rows is asked again and compared.

Knows no command line: it reads the file, says what to ask, and compares.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from infer_cli.alike import n_same
from infer_cli.batch.claims import Claim, EngineClaim, claims_of, engine_claim, filled_window
from infer_cli.batch.held import Held, Line, parse_line
from infer_cli.batch.job import JobFile
from infer_cli.batch.preparing import Defaults, Prepared, Preparer, request_of, requests_ahead
from infer_cli.batch.replies import Origin, reply_of
from infer_cli.batch.rows import Row
from infer_cli.engine.policy import why_width_breaks
from infer_cli.errors import InferError, UsageError
from infer_cli.files import open_regular
from infer_cli.given import Given
from infer_cli.loading import Running
from infer_cli.overflow import Policy
from infer_cli.reasoning import TagPair
from infer_cli.reply import digest
from infer_cli.sha256 import sha256_hex
from infer_cli.types import Finished, Reply, SamplingParams

_SAMPLING = frozenset(field.name for field in dataclasses.fields(SamplingParams))
_MAX_PREPARERS = 64  # one for each set of parameters that claims have


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


class Results:
    """A results file and the rows of it that are verified. Of each line only its place is kept.

    Raises UsageError for a file that holds no replies, or not what it should.
    """

    def __init__(self, path: Path, job: JobFile | None, fraction: float) -> None:
        self._path, self._job = path, job
        self.is_torn = False  # its last line
        self.window: int | None = None if job is None else job.window
        self.rows: set[int] = set()
        places: dict[int, list[tuple[int, int]]] = {}
        order: list[tuple[str, int]] = []
        held = Held()
        engine: EngineClaim | None = None
        for line in self._lines():
            held.add(line)
            self.rows.add(line.row)
            claims = claims_of(line, job)
            if not claims:
                continue
            found = engine_claim(line, job)
            if engine is not None and engine != found:
                raise UsageError(
                    f"{path}: row {line.row} comes from another model or engine than those before it",
                    "verify each part alone",
                )
            engine = found
            if job is None:
                self.window = self.window or filled_window(line)
            if line.row not in places:
                name = f"infer verify {claims[0].run_seed} {line.row} {claims[0].custom_id}"
                order.append((sha256_hex(name.encode("utf-8", "surrogatepass")), line.row))
            places.setdefault(line.row, []).append((line.start, line.end))
        if engine is None:
            raise UsageError(f"{path} holds no reply that could be given again")
        self.engine = engine
        self.n_rows = len(places)  # with replies that can be given again
        chosen = sorted(order)[: max(1, round(fraction * len(order)))]
        self._places = {row: places[row] for _, row in chosen}

    @property
    def chosen(self) -> frozenset[int]:
        return frozenset(self._places)

    def claims(self, row: int) -> list[Claim]:
        """What is said of a chosen row's replies."""
        found = []
        with open_regular(self._path) as file:
            for start, end in self._places[row]:
                file.seek(start)
                line = _parsed(file.read(end - start), start, end)
                if line is None:
                    raise UsageError(f"{self._path} was changed meanwhile")
                found += claims_of(line, self._job)
        return found

    def _lines(self) -> Iterator[Line]:
        broken: int | None = None
        end = 0
        with open_regular(self._path) as file:
            for n, data in enumerate(file, 1):
                start, end = end, end + len(data)
                if broken is not None:
                    break
                if (line := _parsed(data, start, end)) is None:
                    broken = n
                else:
                    yield line
            else:
                self.is_torn = broken is not None and broken > 1
        if broken is not None and not self.is_torn:
            raise UsageError(f"{self._path}: line {broken} is not a line of a batch's output")


def _parsed(data: bytes, start: int, end: int) -> Line | None:
    return parse_line(data if data.endswith(b"\n") else data + b"\n", start, end)


class Question(NamedTuple):
    """A reply that is to be given again."""

    claim: Claim
    asked: Prepared
    pairs: Sequence[TagPair]
    shown_tokens: Mapping[int, bytes]


class Questions:
    """Makes of rows and of what is claimed of them what the engine is asked.

    `defaults` are the job's; its sampling, limit and stop are taken from the claims where these have them,
    and so is how a prompt was cut.
    """

    def __init__(self, defaults: Defaults, preparer: Callable[[Defaults], Preparer]) -> None:
        self._defaults = defaults
        self._new_preparer = preparer
        self._preparer = lru_cache(_MAX_PREPARERS)(self._preparer_for)

    def check(self, row: Row, claim: Claim) -> Question | Difference:
        """The question, or why no answer would be the claimed one."""
        if row.sha256 != claim.row_sha256:
            return _different(claim, "the row of the input says something else")
        if not _is_of_its_line(claim):
            return _different(claim, "its digest is not that of what the line says")
        params = None if claim.params is None else json.dumps(claim.params)
        try:
            preparer = self._preparer(params, claim.overflow)
            asked = preparer.prepare(row)
        except InferError as e:
            return _different(claim, f"the row can't be answered: {e.message}")
        if claim.params is not None and (names := _unequal(claim.params, asked.params)):
            name = names[0]
            was, now = claim.params.get(name), asked.params.get(name)
            return _different(claim, f"its {name} is {was!r:.60}, the row asks for {now!r:.60}")
        if asked.run_seed is not None and not asked.own_seed and claim.run_seed is not None:
            asked = dataclasses.replace(asked, run_seed=claim.run_seed)
        if (seed := asked.seed(claim.sample)) != claim.seed:
            return _different(claim, f"its seed is {claim.seed}, the row's is {seed}")
        if len(asked.prompt_ids) != claim.n_prompt:
            n = len(asked.prompt_ids)
            return _different(claim, f"its prompt had {claim.n_prompt} tokens, the row's has {n}")
        if asked.truncation != claim.truncation:
            return _different(claim, "what was left out of its prompt is not what its line says")
        asked = dataclasses.replace(asked, deadline_s=None)
        if claim.was_cut and claim.tokens is not None:
            asked = dataclasses.replace(asked, max_tokens=len(claim.tokens))
        if asked.raw:
            return Question(claim, asked, (), {})
        return Question(claim, asked, preparer.pairs, preparer.tag_tokens)

    def _preparer_for(self, params: str | None, overflow: Policy) -> Preparer:
        defaults = dataclasses.replace(self._defaults, overflow=overflow)
        if params is None:
            return self._new_preparer(defaults)
        values = json.loads(params)
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


def answer(running: Running, origin: Origin, questions: Iterable[Question]) -> Iterator[tuple[Claim, Reply]]:
    """Replies as they end. Leaving early cancels the rest."""
    n_most = requests_ahead(running.policy.width)
    waiting = iter(questions)
    open_: dict[str, Question] = {}
    stream = running.service.submit([])

    def feed() -> None:
        while len(open_) < n_most and (question := next(waiting, None)) is not None:
            request = request_of(question.asked, question.claim.sample, question.shown_tokens)
            open_[request.id] = question
            running.service.submit([request], stream)

    feed()
    for event in stream:
        if isinstance(event, Finished):
            claim, asked, pairs, _ = open_.pop(event.request_id)
            feed()
            yield claim, reply_of(origin, asked, claim.sample, event, pairs)


def compare(claim: Claim, reply: Reply) -> Difference | None:
    """None where the reply is the claimed one; for one that was cut, as far as it came."""
    if claim.tokens is not None:
        now = reply.tokens[: len(claim.tokens)] if claim.was_cut else reply.tokens
        if claim.tokens != now:
            token = n_same(claim.tokens, now)
            return _different(claim, "differs", token, _at(claim.tokens, token), _at(now, token))
        if claim.was_cut:
            return None
    if claim.digest == reply.digest and claim.text == reply.text:
        return None
    if reply.error is not None:
        return _different(claim, f"no reply now: {reply.error['message']}")
    if claim.text != reply.text:
        return _different(claim, f"its text is {claim.text!r:.60}, now {reply.text!r:.60}")
    if claim.finish_reason != reply.finish_reason:
        return _different(claim, f"it ended with {claim.finish_reason}, now with {reply.finish_reason}")
    return _different(claim, "its digest is another")


def reasons(
    engine: EngineClaim, model: Mapping[str, object], facts: Mapping[str, object], fingerprint: str
) -> list[str]:
    """What may explain differences, the likeliest first."""
    found = []
    if engine.model_sha256 != model.get("sha256"):
        found.append(f"the model's sha256 was {engine.model_sha256}, is {model.get('sha256')}")
    if engine.fingerprint != fingerprint:
        changed = _unequal(engine.facts, facts)
        what = "; ".join(f"{name} was {engine.facts.get(name)}, is {facts.get(name)}" for name in changed)
        found.append(f"the engine's fingerprint was {engine.fingerprint}, is {fingerprint}: {what}")
    if why := why_width_breaks(engine.mode, engine.width):
        found.append(why)
    if engine.only_seed:
        found.append("only the seed was promised")
    return found


def not_in_input(claim: Claim) -> Difference:
    return _different(claim, "the input has no such row")


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
    return [name for name in {**a, **b} if json.dumps(a.get(name)) != json.dumps(b.get(name))]
