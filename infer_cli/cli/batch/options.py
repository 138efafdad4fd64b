"""The command line of `infer batch`, checked and typed. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping

from infer_cli.batch.job import MAX_WIDTH, OUTPUT_FORMATS
from infer_cli.batch.request import BatchRequest
from infer_cli.batch.rows import PROMPTS
from infer_cli.cli.batch.job_command import JobCommand, job_flags
from infer_cli.cli.flags.shared import choices_of, n_samples_of, overflow_of, read_asking
from infer_cli.cli.flags.values import Values
from infer_cli.engine.mode_policy import OF_JOBS
from infer_cli.errors import UsageError
from infer_cli.prompt.fitting import POLICIES
from infer_cli.settings.defaults import MAX_LOGPROBS
from infer_cli.settings.origins import Given


def check(given: Mapping[str, Given]) -> JobCommand:
    """The command line's values, typed. Raises UsageError for the first that is wrong."""
    values = Values(given)
    values.exclude([("raw", "system"), ("raw", "chat_template")])
    choices = choices_of(values)
    n_samples = 1 if choices else n_samples_of(values)
    overflow = overflow_of(values, POLICIES, "error")
    asking = read_asking(values, overflow=overflow, n_samples=n_samples, mode=OF_JOBS)
    output_format = values.text("output_format") or OUTPUT_FORMATS[0]
    if output_format not in OUTPUT_FORMATS:
        raise UsageError(f"--output-format {output_format!r} is not {' or '.join(OUTPUT_FORMATS)}")
    job = job_flags(values, values.argument("input"), PROMPTS, "replies")
    seed = asking.seed
    request = BatchRequest(
        input=job.input,
        engine=asking.engine,
        parallel=values.number("parallel", 1, MAX_WIDTH),
        shard=job.shard,
        output_format=output_format,
        ordered=job.ordered,
        redo=job.redo,
        variables=asking.variables,
        chat_template=asking.chat_template,
        sampling=asking.sampling,
        seed=None if seed is None else seed.value,
        seed_is_for_this=seed is not None and seed.by_flag,
        n_samples=n_samples,
        deadline_s=asking.deadline_s,
        system=asking.system,
        raw=values.is_set("raw"),
        overflow=overflow,
        max_tokens=asking.max_tokens,
        stop=asking.stop,
        n_logprobs=values.number("logprobs", 0, MAX_LOGPROBS),
        choices=choices,
        thinking=asking.thinking,
    )
    told = [values.setting("choices", list(choices))] if choices else []
    return JobCommand(request, job, (*asking.settings, *told))
