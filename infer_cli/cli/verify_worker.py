"""What `infer verify` does in its worker process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from infer_cli.batch.claims import engine_options
from infer_cli.batch.job import LEAST_WINDOW, Shard, counted_rows
from infer_cli.batch.preparing import Defaults, NoTemplate, Preparer
from infer_cli.batch.replies import Origin
from infer_cli.batch.verifying import (
    Difference,
    Question,
    Questions,
    Results,
    answer,
    compare,
    not_in_input,
    reasons,
)
from infer_cli.cli.explain import explained
from infer_cli.cli.loaded import (
    begin_loading,
    chat_template,
    find_model,
    recommended_sampling,
    template_variables,
    wait_for,
)
from infer_cli.cli.run_worker import Description
from infer_cli.cli.terminal import Notices
from infer_cli.cli.verify_options import VerifyOptions
from infer_cli.errors import ExitStatus, ModelNotFound, UsageError
from infer_cli.given import Given
from infer_cli.renderer import closed_at_end
from infer_cli.report import single_line
from infer_cli.settings import MAX_TOKENS
from infer_cli.types import SamplingParams

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.installed import InstalledModel
    from infer_cli.supervisor import Worker
    from infer_cli.template import ChatTemplate


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
        self._results = Results(options.results, options.job, options.fraction)
        if self._results.is_torn:
            notices.warn("the last line of the results is torn: it is left out")
        self._differences: list[Difference] = []
        self._n_claims = 0

    def run(self) -> int:
        claimed = self._results.engine
        model = self._load()
        questions = self._questions(model)
        n_window = self._check(questions)
        running = self._loading.start(max(n_window, LEAST_WINDOW))
        name = self._options.model or claimed.model
        came_from = Description(model, name, running.facts).get()
        facts = came_from.engine["facts"]
        assert isinstance(facts, dict)
        why = reasons(claimed, came_from.model, facts, str(came_from.engine["fingerprint"]))
        if claimed.only_seed:
            self._notices.warn("only the seed was promised: replies may differ")
        origin = Origin("verify", running.policy.mode, running.policy.promise, came_from)
        n_asked = self._n_claims - len(self._differences)
        for n, (claim, reply) in enumerate(answer(running, origin, self._asked(questions)), 1):
            self._notices.status(f"{n} of {n_asked} replies")
            if (difference := compare(claim, reply)) is not None:
                self._differences.append(difference)
        self._notices.clear()
        self._tell(why)
        return ExitStatus.CHECK_FAILED if self._differences else ExitStatus.OK

    def _load(self) -> InstalledModel | None:
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
        self._loading = begin_loading(model, name, engine, claimed.width, self._worker)
        wait_for(self._loading, self._notices)
        return model

    def _questions(self, model: InstalledModel | None) -> Questions:
        loading, options = self._loading, self._options
        vocab = loading.vocab()

        @cache  # each set of parameters has a preparer of its own
        def template() -> ChatTemplate:
            return chat_template(loading, vocab, options.chat_template)

        def preparer(defaults: Defaults) -> Preparer:
            return Preparer(defaults, vocab, template, loading.window, loading.n_ctx_train)

        return Questions(self._defaults(model), preparer)

    def _defaults(self, model: InstalledModel | None) -> Defaults:
        """The job's. Where its own sampling is known, what the model recommends is in it already."""
        options, params = self._options, self._options.params
        known = {field.name: params.get(field.name, field.default) for field in _SAMPLING}
        sampled = params.get("temperature") not in (None, 0.0)
        names = known if sampled else [name for name in known if name in params]
        entry, recommended = ({}, {}) if sampled else recommended_sampling(model, self._loading)
        max_tokens, stop = params.get("max_tokens", MAX_TOKENS), params.get("stop", [])
        if not isinstance(max_tokens, int) or not isinstance(stop, list):
            raise UsageError("the job's file is not as it should be")
        return Defaults(
            sampling={name: Given(known[name], name) for name in names},
            entry=entry,
            recommended=recommended,
            run_seed=0,  # each claim's own
            max_tokens=max_tokens,
            stop=tuple(map(str, stop)),
            system=options.system,
            raw=options.raw,
            variables=template_variables(options.variables),
        )

    def _check(self, questions: Questions) -> int:
        """Note what differs before anything is computed; returns the window in tokens for the rest."""
        chosen = self._results.chosen
        shard = Shard() if self._options.job is None else self._options.job.shard
        found: set[int] = set()
        missing: list[int] = []
        n_window = 0
        for row in self._options.input.rows():
            if row.index not in self._results.rows and shard.has(row.index):
                missing.append(row.index)
            if row.index not in chosen:
                continue
            found.add(row.index)
            for claim in self._results.claims(row.index):
                self._n_claims += 1
                checked = questions.check(row, claim)
                if isinstance(checked, Difference):
                    self._differences.append(checked)
                else:
                    n_window = max(n_window, checked.asked.n_window)
        for index in sorted(chosen - found):
            claims = self._results.claims(index)
            self._n_claims += len(claims)
            self._differences += map(not_in_input, claims)
        if missing:
            self._notices.warn(f"the results have no reply to {counted_rows(missing)} of the input")
        return n_window

    def _asked(self, questions: Questions) -> Iterator[Question]:
        chosen = self._results.chosen
        for row in self._options.input.rows():
            for claim in self._results.claims(row.index) if row.index in chosen else ():
                checked = questions.check(row, claim)
                if isinstance(checked, Question):
                    yield checked

    # --- what is told --------------------------------------------------------------------------

    def _tell(self, why: list[str]) -> None:
        vocab = self._loading.vocab()
        differences = sorted(self._differences, key=lambda d: (d.row, d.sample))
        n_same = self._n_claims - len(differences)
        if self._options.json:
            value = {
                "holds": not differences,
                "replies": self._n_claims,
                "same": n_same,
                "rows": len(self._results.chosen),
                "rows_in_all": self._results.n_rows,
                "differences": [difference._asdict() for difference in differences],
                "reasons": why if differences else [],
            }
            print(json.dumps(value))
            return
        for difference in differences:
            print(single_line(_in_words(difference, vocab)))
        if not differences:
            print(f"holds: {n_same} of {self._n_claims} replies")
            return
        print(f"does not hold: {len(differences)} of {self._n_claims} replies differ")
        for reason in why:
            print(f"  {single_line(reason)}")


_MODEL = "name the model with -m"
_SAMPLING = dataclasses.fields(SamplingParams)


def _in_words(difference: Difference, vocab: Vocab) -> str:
    row, custom_id, sample, what, token, was, now = difference
    place = f"row {row}" + ("" if custom_id == str(row) else f" ({custom_id})")
    place += f" sample {sample}" if sample else ""
    if token is None:
        return f"{place}: {what}"
    return f"{place}: {what} at token {token}: {_token(vocab, was)}, now {_token(vocab, now)}"


def _token(vocab: Vocab, token: int | None) -> str:
    if token is None:
        return "the end"
    if token >= vocab.n_tokens:
        return f"no token ({token})"
    return f"{vocab.token_text(token).decode('utf-8', 'replace')!r} ({token})"
