"""What `infer verify` does in its worker process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from infer_cli.batch.job import LEAST_WINDOW, N_SHOWN, Shard, counted_rows
from infer_cli.batch.kind import Origin
from infer_cli.batch.late_template import NoTemplate
from infer_cli.batch.pair_preparing import PairDefaults, PairPreparer
from infer_cli.batch.pairs import POLICIES as PAIR_POLICIES
from infer_cli.batch.pairs import PairPolicy
from infer_cli.batch.preparing import Defaults, Preparer
from infer_cli.batch.room import Room
from infer_cli.batch.rows import SHAPES
from infer_cli.checking.claimed_engine import EngineClaim, engine_options
from infer_cli.checking.claims import claims_of
from infer_cli.checking.examination import Difference, Examination, Unchecked
from infer_cli.checking.likelihood_examination import LikelihoodExamination
from infer_cli.checking.reply_examination import ReplyExamination
from infer_cli.checking.results import Results, chance_of_finding, forged_rows_found
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
from infer_cli.cli.checks.verify_options import VerifyOptions
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import wait_for
from infer_cli.errors import ExitStatus, ModelNotFound, UsageError
from infer_cli.process.explain import explained
from infer_cli.prompt.fitting import policy_named
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.prompt.template import template_variables
from infer_cli.runtime.session import Session
from infer_cli.settings.defaults import MAX_TOKENS
from infer_cli.settings.origins import Given
from infer_cli.text.sanitize import single_line
from infer_cli.types import Provenance, SamplingParams, ThinkingParams

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.process.worker import Worker
    from infer_cli.prompt.template import ChatTemplate
    from infer_cli.runtime.running_engine import RunningEngine


def verify_results(options: VerifyOptions, worker: Worker) -> int:
    """Verify one results file; returns the exit code. Raises InferError."""
    notices = Notices(quiet=options.quiet, stats=False)
    try:
        with explained(worker), closed_at_end():
            return _Verification(options, worker, notices).run()
    except NoTemplate as e:
        raise e.error from None
    finally:
        notices.clear()


class _Verification:
    def __init__(self, options: VerifyOptions, worker: Worker, notices: Notices) -> None:
        self._options, self._worker, self._notices = options, worker, notices
        self._results = Results(options.results, options.job, options.fraction, options.challenge)
        if self._results.is_torn:
            notices.warn("the last line of the results is torn: it is left out")
        self._differences: list[Difference] = []
        self._unchecked: list[Unchecked] = []
        self._missing: list[int] = []  # rows
        self._n_drawn = 0  # replies of the rows that are asked again
        self._input = dataclasses.replace(options.input, shape=SHAPES[self._results.kind])
        self._session = self._load()

    def run(self) -> int:
        examination = self._examination()
        questions = Questions(examination, self._options.job, self._results.engine)
        room, n_asked = self._check(questions)
        with closing(self._start(room)) as running:
            return self._compare(examination, questions, running, n_asked)

    def _start(self, room: Room) -> RunningEngine:
        if self._results.kind == "likelihoods":
            return self._session.start_scoring(max(room.n_score_window, LEAST_WINDOW))
        return self._session.start(max(room.n_window, LEAST_WINDOW), score_window=room.n_score_window)

    def _compare(
        self,
        examination: Examination[Any],
        questions: Questions[Any],
        running: RunningEngine,
        n_asked: int,
    ) -> int:
        claimed, here, policy = self._results.engine, running.provenance(), running.policy
        is_same_model = here.model.sha256 == claimed.model_sha256
        why = reasons(claimed, here)
        self._warn(claimed)
        came_from = Provenance(claimed.model_identity, claimed.engine_identity, probed=False)
        origin = Origin("verify", policy.mode, promise_then(claimed, policy), came_from)
        exact = here.engine.fingerprint == claimed.fingerprint and policy.promise != "seed-only"
        n_done = 0
        for question, answers in answer(running, origin, examination, self._asked(questions)):
            n_done += len(answers)
            self._notices.status(f"{n_done} of {n_asked} {self._results.kind}")
            self._differences += compare(examination, origin, question, answers, exact=exact)
        self._notices.clear()
        holds = is_same_model and not self._differences and not self._missing
        self._tell(why, holds=holds)
        return ExitStatus.OK if holds else ExitStatus.CHECK_FAILED

    def _warn(self, claimed: EngineClaim) -> None:
        if claimed.only_seed:
            self._notices.warn(f"{ONLY_SEED}: replies may differ")
        names = sorted(n for n in self._results.model_names if n not in (None, claimed.model))
        if names:
            self._notices.warn(f"lines call the model {', '.join(names[:3])}, and not {claimed.model}")

    def _load(self) -> Session:
        options, claimed = self._options, self._results.engine
        name = options.model or claimed.model
        if name is None:
            raise UsageError("the results name no model", _MODEL)
        try:
            # What a file names is looked for here, and not fetched.
            model = find_model(name, offline=options.offline or options.model is None, quiet=options.quiet)
        except ModelNotFound as e:
            raise ModelNotFound(e.message, e.hint if options.model is not None else _MODEL) from None
        engine = engine_options(claimed, self._results.window, options.loras)
        session = Session(model, engine, claimed.width, self._worker.native_fd)
        wait_for(session, self._notices)
        return session

    def _examination(self) -> Examination[Any]:
        session, options = self._session, self._options
        loaded, vocab = session.loaded, session.loaded.vocab

        @cache  # each set of parameters has a preparer of its own
        def template() -> ChatTemplate:
            return session.chat_template(options.chat_template)

        def preparer(defaults: Defaults) -> Preparer:
            return Preparer(defaults, vocab, template, loaded.window, loaded.n_ctx_train)

        def pair_preparer(overflow: PairPolicy) -> PairPreparer:
            defaults = PairDefaults(template_variables(options.variables), overflow)
            return PairPreparer(defaults, vocab, template, loaded.window)

        if self._results.kind == "likelihoods":
            return LikelihoodExamination(
                policy_named(options.params.get("overflow"), PAIR_POLICIES), pair_preparer
            )
        return ReplyExamination(self._defaults(), preparer, options.job)

    def _defaults(self) -> Defaults:
        """The job's. Where its own sampling is known, what the model recommends is in it already."""
        options, job, params = self._options, self._options.job, self._options.params
        known = {field.name: params.get(field.name, field.default) for field in _SAMPLING}
        sampled = params.get("temperature") not in (None, 0.0)
        entry, recommended = ({}, {}) if sampled else self._session.recommended
        given: Mapping[str, object]
        if job is None or job.given is None:
            given = known if sampled else {name: known[name] for name in known if name in params}
        else:
            given = {**job.given, "temperature": known["temperature"]}
            entry = known if sampled else entry
        values = cast("dict[str, Any]", params)  # checked by the job's reader
        return Defaults(
            sampling={name: Given(value, name) for name, value in given.items()},
            entry=entry,
            recommended=recommended,
            # A line that came alone says its own.
            run_seed=0 if job is None or job.run_seed is None else job.run_seed,
            max_tokens=values.get("max_tokens", MAX_TOKENS),
            stop=tuple(values.get("stop", ())),
            system=options.system,
            n_samples=values.get("samples", 1),
            n_logprobs=values.get("logprobs"),
            deadline_s=options.deadline_s if job is None else job.deadline_s,
            raw=options.raw,
            variables=template_variables(options.variables),
            overflow=values.get("overflow", "error"),
            choices=tuple(values.get("choices", ())),
            thinking=ThinkingParams(values.get("think"), values.get("reasoning_budget")),
        )

    def _check(self, questions: Questions[Any]) -> tuple[Room, int]:
        """Look at all lines before anything is computed; returns the room for the rows that were drawn, and
        the number of their answers that are asked again."""
        job, results = self._options.job, self._results
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
                self._notices.status(f"looking at rows: {row.index}")
            lines = results.lines(row.index)
            checked = questions.check(row, lines)
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
        self._notices.clear()
        if beyond:
            self._notices.warn(f"the results have no reply to {counted_rows(beyond)} of the input")
        return Room(n_window, n_score_window), n_asked

    def _asked(self, questions: Questions[Any]) -> Iterator[Question[Any]]:
        results = self._results
        for row in self._input.rows():
            if row.index in results and row.index in results.chosen:
                yield from questions.check(row, results.lines(row.index)).questions

    # --- what is told --------------------------------------------------------------------------

    def _tell(self, why: list[str], *, holds: bool) -> None:
        vocab, results = self._session.loaded.vocab, self._results
        differences = sorted(self._differences, key=lambda d: (d.row, d.sample))
        bad = {(d.row, d.sample) for d in differences} | {(u.row, u.sample) for u in self._unchecked}
        bad = {(row, sample) for row, sample in bad if row in results.chosen}
        n_same = max(0, self._n_drawn - len(bad))
        if self._options.json:
            value = {
                "holds": holds,
                "replies": self._n_drawn,
                "same": n_same,
                "rows": len(results.chosen),
                "rows_in_all": results.n_rows,
                "challenge": self._options.challenge if self._is_sample else None,
                "missing": self._missing,
                "differences": [difference._asdict() for difference in differences],
                "unchecked": [unchecked._asdict() for unchecked in self._unchecked],
                "reasons": [] if holds else why,
            }
            print(json.dumps(value))
            return
        for difference in differences:
            print(single_line(_in_words(difference, vocab)))
        for unchecked in self._unchecked:
            print(single_line(f"{_place(unchecked)}: can't be checked: {unchecked.what}"))
        if self._missing:
            n_missing = len(self._missing)
            more = f" ({n_missing} in all)" if n_missing > N_SHOWN else ""
            print(f"no reply to {counted_rows(self._missing)} of the job{more}")
        if holds:
            print(f"holds: {n_same} of {self._n_drawn} {results.kind}")
        else:
            n_answers = results.n_answers
            print(f"does not hold: {len(differences)} of {n_answers} {results.kind} differ")
        if self._is_sample:
            print(self._told_chance())
        for reason in why:
            if not holds:
                print(f"  {single_line(reason)}")
            elif reason != ONLY_SEED:  # that was said before
                self._notices.warn(reason)

    @property
    def _is_sample(self) -> bool:
        return len(self._results.chosen) < self._results.n_rows

    def _told_chance(self) -> str:
        n, n_drawn = self._results.n_rows, len(self._results.chosen)
        one = chance_of_finding(n, n_drawn, 1)
        n_forged, sure = forged_rows_found(n, n_drawn)
        return (
            f"{n_drawn} of {n} rows were answered again, drawn by --challenge {self._options.challenge}:"
            f" one forged row is found with a chance of {one:.0%}, one of {n_forged} with {sure:.0%}"
        )


_MODEL = "name the model with -m"
_SAMPLING = dataclasses.fields(SamplingParams)


def _place(of: Difference | Unchecked) -> str:
    place = f"row {of.row}" + ("" if of.custom_id == str(of.row) else f" ({of.custom_id})")
    return place + (f" sample {of.sample}" if of.sample else "")


def _in_words(difference: Difference, vocab: Vocab) -> str:
    _, _, _, what, token, was, now = difference
    place = _place(difference)
    if token is None:
        return f"{place}: {what}"
    return f"{place}: {what} at token {token}: {_token(vocab, was)}, now {_token(vocab, now)}"


def _token(vocab: Vocab, token: int | None) -> str:
    if token is None:
        return "the end"
    if token >= vocab.n_tokens:
        return f"no token ({token})"
    return f"{vocab.token_text(token).decode('utf-8', 'replace')!r} ({token})"
