"""The verification of one results file: all lines are looked at, some rows are asked again, and compared.

Knows no command line: a caller opens the results and the model, and is told what was found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from infer_cli.backend.spec import LoraSpec
from infer_cli.batch.job import LEAST_WINDOW, Shard, counted_rows
from infer_cli.batch.kind import Origin
from infer_cli.batch.late_template import NoTemplate
from infer_cli.batch.room import Room
from infer_cli.batch.rows import SHAPES
from infer_cli.checking.claimed_engine import engine_options
from infer_cli.checking.claimed_tokens import MARGINS, ClaimedTokens
from infer_cli.checking.claims import claims_of
from infer_cli.checking.comparison import LOGPROB_TOLERANCE
from infer_cli.checking.examination import Difference, Unchecked
from infer_cli.checking.job_examination import examination_of
from infer_cli.checking.results import Results
from infer_cli.checking.verify import (
    ONLY_SEED,
    Question,
    Questions,
    answer,
    compare,
    not_in_input,
    promise_then,
    reasons,
)
from infer_cli.checking.verify_request import Nearness, VerifyReport, VerifyRequest, Watcher
from infer_cli.errors import UsageError
from infer_cli.runtime.session import Session
from infer_cli.types import Provenance

if TYPE_CHECKING:
    from infer_cli.engine.mode_policy import ModePolicy
    from infer_cli.models.installed import InstalledModel
    from infer_cli.runtime.running_engine import RunningEngine


def open_session(
    results: Results, model: InstalledModel, loras: tuple[LoraSpec, ...], native_fd: int
) -> Session:
    """The model as the results say that it was run. Raises InferError."""
    claimed = results.engine
    return Session(model, engine_options(claimed, results.window, loras), claimed.width, native_fd)


def verify(request: VerifyRequest, results: Results, session: Session, watcher: Watcher) -> VerifyReport:
    """Verify results that were opened, with a session of `open_session`. Raises InferError."""
    try:
        return _Verification(request, results, session, watcher).run()
    except NoTemplate as e:
        raise e.error from None
    finally:
        watcher.clear()


class _Verification:
    def __init__(self, request: VerifyRequest, results: Results, session: Session, watcher: Watcher) -> None:
        self._job, self._results, self._session, self._watcher = request.job, results, session, watcher
        self._request = request
        self._input = dataclasses.replace(request.input, shape=SHAPES[results.kind])
        self._examination = examination_of(request, results.kind, session)
        self._questions: Questions[Any] = Questions(self._examination, request.job, results.engine)
        self._differences: list[Difference] = []
        self._unchecked: list[Unchecked] = []
        self._missing: list[int] = []  # rows
        self._n_drawn = 0  # replies of the rows that are asked again

    def run(self) -> VerifyReport:
        room, n_asked = self._check()
        if self._by_tokens(room):
            return self._check_tokens(room, n_asked)
        with closing(self._start(room)) as running:
            return self._answer_again(running, n_asked)

    def _by_tokens(self, room: Room) -> bool:
        """Whether the engine is another than the one that is said to have answered, or is not to matter."""
        if not self._results.has_tokens:
            if self._request.by_tokens:
                raise UsageError("OpenAI's form leaves out the tokens of replies", "leave out --tokens")
            return False
        return (
            self._request.by_tokens or self._here(room).engine.fingerprint != self._results.engine.fingerprint
        )

    def _here(self, room: Room) -> Provenance:
        return self._session.provenance(max(room.n_window or room.n_score_window, LEAST_WINDOW))

    def _start(self, room: Room) -> RunningEngine:
        if self._results.kind == "likelihoods":
            return self._session.start_scoring(max(room.n_score_window, LEAST_WINDOW))
        return self._session.start(max(room.n_window, LEAST_WINDOW), score_window=room.n_score_window)

    def _answer_again(self, running: RunningEngine, n_asked: int) -> VerifyReport:
        here, policy = running.provenance(), running.policy
        self._warn()
        origin = self._origin(policy)
        exact = here.engine.fingerprint == self._results.engine.fingerprint and policy.promise != "seed-only"
        tolerance = None if exact else LOGPROB_TOLERANCE
        n_done = 0
        for question, answers in answer(running, origin, self._examination, self._asked()):
            n_done += len(answers)
            self._watcher.status(f"{n_done} of {n_asked} {self._results.kind}")
            self._differences += compare(self._examination, origin, question, answers, tolerance=tolerance)
        return self._report(here)

    def _check_tokens(self, room: Room, n_asked: int) -> VerifyReport:
        origin = self._origin(self._session.loaded.policy)
        self._warn_of_name()
        window = max(room.n_window, room.n_score_window, LEAST_WINDOW)
        n_done, farthest, mean = 0, 0.0, 0.0
        with closing(ClaimedTokens(self._session, self._examination, origin, window)) as claimed:
            for outcome in claimed.check(self._asked()):
                n_done += len(outcome.question.claims)
                self._watcher.status(f"{n_done} of {n_asked} {self._results.kind}")
                self._differences += outcome.differences
                self._unchecked += outcome.unchecked
                farthest, mean = max(farthest, outcome.farthest), max(mean, outcome.mean)
        report = self._report(self._here(room))
        return dataclasses.replace(report, nearness=Nearness(MARGINS.token, farthest, MARGINS.mean, mean))

    def _origin(self, policy: ModePolicy) -> Origin:
        claimed = self._results.engine
        came_from = Provenance(claimed.model_identity, claimed.engine_identity, probed=False)
        return Origin("verify", policy.mode, promise_then(claimed, policy), came_from)

    def _warn(self) -> None:
        claimed = self._results.engine
        if claimed.only_seed:
            self._watcher.warn(f"{ONLY_SEED}: replies may differ")
        self._warn_of_name()

    def _warn_of_name(self) -> None:
        claimed = self._results.engine
        names = sorted(n for n in self._results.model_names if n not in (None, claimed.model))
        if names:
            self._watcher.warn(f"lines call the model {', '.join(names[:3])}, and not {claimed.model}")

    def _check(self) -> tuple[Room, int]:
        """Look at all lines before anything is computed; returns the room for the rows that were drawn, and
        the number of their answers that are asked again."""
        job, results = self._job, self._results
        shard = Shard() if job is None else job.shard
        found: set[int] = set()
        beyond: list[int] = []  # rows that no reply is expected to
        n_window = n_score_window = n_asked = 0
        for row in self._input.rows():
            if row.index not in results:
                if shard.has(row.index):
                    known = job is not None and row.index < job.n_rows
                    (self._missing if known else beyond).append(row.index)
                continue
            found.add(row.index)
            if row.index % 100 == 0:
                self._watcher.status(f"looking at rows: {row.index}")
            lines = results.lines(row.index)
            checked = self._questions.check(row, lines)
            self._differences += checked.differences
            self._unchecked += checked.unchecked
            if row.index in results.chosen:
                self._n_drawn += sum(len(claims_of(line, job)) for line in lines)
                for question in checked.questions:
                    n_asked += len(question.claims)
                    if question.asked is not None:
                        n_window = max(n_window, question.asked.n_window)
                        n_score_window = max(n_score_window, question.asked.n_score_window)
        for index in results.rows():
            if index not in found:
                for line in results.lines(index):
                    gone = not_in_input(line, job)
                    self._differences += gone
                    self._n_drawn += len(gone) if index in results.chosen else 0
        self._watcher.clear()
        if beyond:
            self._watcher.warn(f"the results have no reply to {counted_rows(beyond)} of the input")
        return Room(n_window, n_score_window), n_asked

    def _asked(self) -> Iterator[Question[Any]]:
        results = self._results
        for row in self._input.rows():
            if row.index in results and row.index in results.chosen:
                yield from self._questions.check(row, results.lines(row.index)).questions

    def _report(self, here: Provenance) -> VerifyReport:
        results = self._results
        differences = sorted(self._differences, key=lambda d: (d.row, d.sample))
        bad = {(d.row, d.sample) for d in differences} | {(u.row, u.sample) for u in self._unchecked}
        n_bad = sum(row in results.chosen for row, _ in bad)
        is_sample = len(results.chosen) < results.n_rows
        return VerifyReport(
            kind=results.kind,
            is_same_model=here.model.sha256 == results.engine.model_sha256,
            n_rows=results.n_rows,
            n_rows_drawn=len(results.chosen),
            n_answers=results.n_answers,
            n_drawn=self._n_drawn,
            n_same=max(0, self._n_drawn - n_bad),
            challenge=self._request.challenge if is_sample else None,
            missing=self._missing,
            differences=differences,
            unchecked=self._unchecked,
            reasons=reasons(results.engine, here),
        )
