"""The examination that a results file wants: with the preparers of its job, over the model that is here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from infer_cli.batch.pair_preparing import PairDefaults, PairPreparer
from infer_cli.batch.pairs import POLICIES as PAIR_POLICIES
from infer_cli.batch.pairs import PairPolicy
from infer_cli.batch.preparing import Defaults, Preparer
from infer_cli.checking.examination import Examination
from infer_cli.checking.likelihood_examination import LikelihoodExamination
from infer_cli.checking.reply_examination import ReplyExamination
from infer_cli.checking.verify_request import VerifyRequest
from infer_cli.prompt.fitting import policy_named
from infer_cli.prompt.template import template_variables
from infer_cli.runtime.session import Session
from infer_cli.settings.defaults import MAX_TOKENS
from infer_cli.settings.origins import Given
from infer_cli.types import SamplingParams, ThinkingParams

if TYPE_CHECKING:
    from infer_cli.batch.job import Kind
    from infer_cli.prompt.template import ChatTemplate

_SAMPLING = dataclasses.fields(SamplingParams)


def examination_of(request: VerifyRequest, kind: Kind, session: Session) -> Examination[Any]:
    """For results of a kind. Waits for the model's load. Raises InferError."""
    loaded, vocab = session.loaded, session.loaded.vocab

    @cache  # each set of parameters has a preparer of its own
    def template() -> ChatTemplate:
        return session.chat_template(request.chat_template)

    def preparer(defaults: Defaults) -> Preparer:
        return Preparer(defaults, vocab, template, loaded.window, loaded.n_ctx_train)

    def pair_preparer(overflow: PairPolicy) -> PairPreparer:
        defaults = PairDefaults(template_variables(request.variables or {}), overflow)
        return PairPreparer(defaults, vocab, template, loaded.window)

    if kind == "likelihoods":
        return LikelihoodExamination(
            policy_named(request.params.get("overflow"), PAIR_POLICIES), pair_preparer
        )
    return ReplyExamination(_defaults(request, session), preparer, request.job)


def _defaults(request: VerifyRequest, session: Session) -> Defaults:
    """The job's. Where its own sampling is known, what the model recommends is in it already."""
    job, params = request.job, request.params
    known = {field.name: params.get(field.name, field.default) for field in _SAMPLING}
    sampled = params.get("temperature") not in (None, 0.0)
    entry, recommended = ({}, {}) if sampled else session.recommended
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
        system=request.system,
        n_samples=values.get("samples", 1),
        n_logprobs=values.get("logprobs"),
        deadline_s=request.deadline_s if job is None else job.deadline_s,
        raw=request.raw,
        variables=template_variables(request.variables or {}),
        overflow=values.get("overflow", "error"),
        choices=tuple(values.get("choices", ())),
        thinking=ThinkingParams(values.get("think"), values.get("reasoning_budget")),
    )
