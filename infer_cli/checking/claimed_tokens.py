"""Checks answers by what they claim: each token is given to the model after those before it, at the speed of
a prompt. Nothing is written anew, so the engine need not be the one that wrote them.

A greedy token has to be as likely as the likeliest, a sampled one to be what its seed draws, within a margin.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from infer_cli.batch.kind import Answer, Asked, Origin
from infer_cli.checking.claimed_replies import ReplyClaim
from infer_cli.checking.claimed_walk import ClaimedWalk, WrongEnd
from infer_cli.checking.draw_bounds import not_replayed
from infer_cli.checking.examination import Difference, Examination, Unchecked, different, unchecked
from infer_cli.checking.verify import Question, compare
from infer_cli.runtime.session import Session
from infer_cli.types import EngineRequest, Finished, Reply, ScoreRequest

if TYPE_CHECKING:
    from infer_cli.backend.base import Draws, Floats


class Margins(NamedTuple):
    """What is near enough, in nats: `token` for one token of a reply, `mean` for its tokens on average,
    `logprob` for a log-probability that is claimed.

    `benchmarks/claimed_tokens.py` measures it on GSM8K questions, 48 tokens each: between modes, threads and
    builds the farthest token was 0.86, the farthest reply 0.025 on average; between quantizations other than
    Q8_0 and F16 most replies were 0.05 and more.
    """

    token: float = 1.5
    mean: float = 0.05
    logprob: float = 1.5


MARGINS = Margins()


class Outcome(NamedTuple):
    """What was found of a question. `farthest` and `mean` are of its replies: the greatest distance of a
    token, and of a reply on average."""

    question: Question[Any]
    differences: list[Difference]
    unchecked: list[Unchecked]
    farthest: float = 0.0
    mean: float = 0.0


class _Open:
    """A claimed answer that is under way. `walk`: of a reply, None of what is only scored."""

    def __init__(
        self,
        question: Question[Any],
        claim: Any,
        asked: Asked[Any],
        requests: Sequence[ScoreRequest],
        walk: ClaimedWalk | None,
        draws: Draws | None,
    ) -> None:
        self.question, self.claim, self.asked, self.requests, self.walk = (
            question, claim, asked, requests, walk,
        )  # fmt: skip
        self._draws = draws
        self.ends: dict[str, Finished] = {}

    @property
    def is_done(self) -> bool:
        return len(self.ends) == len(self.requests)

    def answer(self, origin: Origin, margin: float) -> Any:
        """As it would be here, but for tokens: those are the claim's."""
        ends = [self.ends[request.id] for request in self.requests]
        if self.walk is not None and ends[0].reason == "stop":
            ends = [self.walk.finished()]
        found = self.asked.answer(origin, self.claim.sample, ends)
        return _as_chosen(found, self.claim, margin) if isinstance(found, Reply) else found

    def close(self) -> None:
        if self._draws is not None:
            self._draws.close()


class ClaimedTokens:
    """Of one model and the answers of one kind. `window`: the most tokens of a prompt and its answer.

    Raises OutOfMemory where the engine does not fit.
    """

    def __init__(
        self,
        session: Session,
        examination: Examination[Any],
        origin: Origin,
        window: int,
        margins: Margins = MARGINS,
    ) -> None:
        self._loaded, self._examination, self._origin = session.loaded, examination, origin
        self._margins = margins
        self._open: dict[str, _Open] = {}  # by the ids of their requests
        self._engine = session.score_engine(window, on_row=self._see)

    def close(self) -> None:
        self._engine.close()

    def check(self, questions: Iterable[Question[Any]]) -> Iterator[Outcome]:
        """Each question with what was found, as they end."""
        waiting = iter(questions)
        found: dict[int, _Found] = {}  # by the place of their lines
        more = True
        while more or self._open:
            while more and len(self._open) < self._engine.n_ahead:
                question = next(waiting, None)
                if question is None:
                    more = False
                    break
                outcome = self._begin(question)
                if isinstance(outcome, Outcome):
                    yield outcome
                else:
                    found[question.line.start] = outcome
            for event in self._engine.step():
                if isinstance(event, Finished):
                    one = self._end(event)
                    if one is None:
                        continue
                    of = found[one.question.line.start]
                    of.add(one, self._origin, self._margins)
                    if of.is_done:
                        del found[one.question.line.start]
                        yield of.outcome(self._examination, self._origin, self._margins)

    def _begin(self, question: Question[Any]) -> Outcome | _Found:
        """Give the engine what a question asks; the outcome where it needs none."""
        opened: list[_Open] = []
        done: list[Answer] = []
        for claim in question.claims:
            if question.error is not None:
                error = question.error
                lines = self._examination.lines(self._origin, "infer")
                done.append(lines.failure(question.row, claim.sample, error.exit_status, error.in_full))
                continue
            asked = self._examination.again(claim, question.asked)
            one = self._opened(question, claim, asked)
            if isinstance(one, Difference):
                return Outcome(question, [one], [])
            if isinstance(one, Unchecked):
                return Outcome(question, [], [one])
            if one is None:
                done.append(asked.answer(self._origin, claim.sample, []))
            else:
                opened.append(one)
        if not opened:
            differences = compare(
                self._examination, self._origin, question, done, tolerance=self._margins.logprob
            )
            return Outcome(question, differences, [])
        now = time.perf_counter()
        for one in opened:
            for request in one.requests:
                self._open[request.id] = one
                self._engine.submit(request, now)
        return _Found(question, len(question.claims), done)

    def _opened(
        self, question: Question[Any], claim: Any, asked: Asked[Any]
    ) -> _Open | Difference | Unchecked | None:
        """What the engine is asked of a claim; None where it is known without it."""
        requests = asked.requests(claim.sample)
        if not requests:
            return None
        request = requests[0]
        if not isinstance(request, EngineRequest):
            scored = [request for request in requests if isinstance(request, ScoreRequest)]
            return _Open(question, claim, asked, scored, None, None)
        assert isinstance(claim, ReplyClaim)
        if claim.error_code is not None and not claim.was_cut:
            return unchecked(claim, "it says that the engine failed: its tokens do not show that")
        n_vocab = self._loaded.vocab.n_tokens
        if not claim.tokens:
            return different(claim, "it has no tokens")
        if (token := max(claim.tokens)) >= n_vocab:
            return different(claim, f"token {token} is outside the vocabulary of {n_vocab}")
        if name := not_replayed(request.sampling):
            return unchecked(claim, f"what {name} does to a draw can't be told from its tokens")
        draws = None
        if not request.sampling.greedy:
            draws = self._loaded.draws(request.sampling, request.seed or 0)
        try:
            walk = ClaimedWalk(request, claim.tokens, self._loaded, draws)
        except WrongEnd as e:
            return different(claim, str(e))
        return _Open(question, claim, asked, [walk.score_request], walk, draws)

    def _see(self, request: ScoreRequest, position: int, row: Floats) -> None:
        walk = self._open[request.id].walk
        if walk is not None:
            walk.see(position, row)

    def _end(self, end: Finished) -> _Open | None:
        """The answer that has ended with this, if it has."""
        one = self._open.pop(end.request_id)
        one.ends[end.request_id] = end
        if not one.is_done:
            return None
        one.close()
        return one


class _Found:
    """What is known so far of a question's claims."""

    def __init__(self, question: Question[Any], n_claims: int, answers: list[Any]) -> None:
        self._question, self._n_claims, self._answers = question, n_claims, answers
        self._far: list[Difference] = []
        self._farthest = self._mean = 0.0

    @property
    def is_done(self) -> bool:
        return len(self._answers) == self._n_claims

    def add(self, one: _Open, origin: Origin, margins: Margins) -> None:
        self._answers.append(one.answer(origin, margins.logprob))
        if one.walk is None:
            return
        step, mean = one.walk.farthest, one.walk.mean
        self._farthest, self._mean = max(self._farthest, step.nats), max(self._mean, mean)
        if step.nats > margins.token:
            what = f"differs by {step.nats:.2f}"
            self._far.append(different(one.claim, what, step.token, step.was, step.now))
        elif mean > margins.mean:
            self._far.append(different(one.claim, f"its tokens differ by {mean:.3f} on average"))

    def outcome(self, examination: Examination[Any], origin: Origin, margins: Margins) -> Outcome:
        answers = sorted(self._answers, key=lambda answer: answer.sample)
        differences = self._far or compare(
            examination, origin, self._question, answers, tolerance=margins.logprob
        )
        return Outcome(self._question, differences, [], self._farthest, self._mean)


def _as_chosen(reply: Reply, claim: Any, margin: float) -> Reply:
    """A reply of choices with the choice that is claimed, where that is as likely as the likeliest, within a
    margin for each of its tokens."""
    if reply.choices is None or claim.text == reply.text:
        return reply
    best = max(choice.logprob for choice in reply.choices)
    for choice in reply.choices:
        if choice.text == claim.text and best - choice.logprob <= margin * choice.n_tokens:
            return dataclasses.replace(reply, text=choice.text, tokens=choice.tokens, digest=claim.digest)
    return reply
