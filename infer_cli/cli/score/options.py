"""The command line of `infer score`, checked and typed. Knows no model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from infer_cli.batch.pairs import POLICIES, PairPolicy
from infer_cli.batch.pairs_request import PairsRequest
from infer_cli.batch.rows import PAIRS, STDIN
from infer_cli.cli.batch.job_command import JobCommand, job_flags
from infer_cli.cli.flags.engine import engine_options
from infer_cli.cli.flags.shared import overflow_of, template_settings
from infer_cli.cli.flags.values import Values, variables_of
from infer_cli.engine.mode_policy import OF_JOBS
from infer_cli.errors import UsageError
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.origins import Given

# What has no meaning for two texts.
_OF_ROWS = (
    "output", "format_", "row_template", "ordered", "shard", "fail_fast", "max_errors", "retry_errors",
    "redo", "dry_run", "summary", "chat_template", "var", "no_record",
)  # fmt: skip
_FORMS = "give a context and its continuation, or a file of rows and -o OUT"


class PairCommand(NamedTuple):
    """One pair that is asked for."""

    context: str
    continuation: str
    model: str | None
    offline: bool
    engine: EngineOptions
    overflow: PairPolicy
    json: bool
    quiet: bool


def check(given: Mapping[str, Given]) -> JobCommand | PairCommand:
    """The command line's values, typed. Raises UsageError for the first that is wrong."""
    values = Values(given)
    texts = values.texts("texts")
    overflow = overflow_of(values, POLICIES, "error")
    engine, engine_settings = engine_options(values, OF_JOBS)
    if len(texts) > 2:
        raise UsageError(f"{len(texts)} texts are neither a file of rows nor a pair", _FORMS)
    if len(texts) == 2:
        _check_pair(values)
        return PairCommand(
            *texts,
            model=values.text("model"),
            offline=values.is_set("offline"),
            engine=engine,
            overflow=overflow,
            json=values.is_set("json"),
            quiet=values.is_set("quiet"),
        )
    (name,) = texts
    if values.is_set("json"):
        raise UsageError("--json is for two texts: the lines of a file are JSON already", "leave it out")
    if not values.is_set("output") and name != STDIN and not os.path.exists(name):
        raise UsageError(f"{name[:60]!r} is no file, and a context has no continuation", _FORMS)
    job = job_flags(values, name, PAIRS, "likelihoods")
    if job.input.format == "lines":
        raise UsageError("a plain line has no continuation", "give rows as JSON lines, CSV or TSV")
    pairs = values.texts("var")
    request = PairsRequest(
        input=job.input,
        engine=engine,
        shard=job.shard,
        ordered=job.ordered,
        redo=job.redo,
        variables=variables_of(pairs),
        chat_template=values.text("chat_template"),
        overflow=overflow,
    )
    settings = (*engine_settings, values.setting("overflow", overflow), *template_settings(values, pairs))
    return JobCommand(request, job, settings)


def _check_pair(values: Values) -> None:
    for name in _OF_ROWS:
        if name in values.by_flag():
            flag = values.origin(name).rstrip("-")
            raise UsageError(f"{flag} is for a file of rows, not for two texts", _FORMS)
