"""`infer batch`: many prompts from a file, each reply written as it ends."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from infer_cli.cli.batch import flags as f
from infer_cli.cli.flags import options as o
from infer_cli.cli.panels import ENGINE, JOB, OUTPUT

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045


@o.takes_groups
def batch(
    context: typer.Context,
    *,
    input: Annotated[str, typer.Argument(metavar="IN", help="JSON lines, CSV, TSV or text; `-` is stdin.")],
    output: f.Output = None,
    rows: f.RowFlags,
    output_format: Annotated[
        Optional[str],
        typer.Option(
            "--output-format",
            metavar="infer|openai",
            help="Our JSON, or OpenAI's batch output.",
            rich_help_panel=JOB,
        ),
    ] = None,
    ordered: f.Ordered = False,
    shard: f.ShardFlag = None,
    model: o.Model = None,
    system: o.System = None,
    raw: o.Raw = False,
    template: o.TemplateFlags,
    choices: o.Choices = None,
    temperature: o.TemperatureFlags,
    samples: o.Samples = None,
    sampling: o.SamplingFlags,
    thinking: o.ThinkingFlags,
    logprobs: Annotated[
        Optional[int],
        typer.Option(
            "--logprobs",
            metavar="N",
            help="Log-probabilities of each token and the N likeliest.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    deadline: o.Deadline = None,
    going_on: f.GoingOnFlags,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    no_record: o.NoRecord = False,
    mode: o.ModeFlags,
    parallel: Annotated[
        Optional[int],
        typer.Option(
            "--parallel",
            envvar="INFER_PARALLEL",
            show_envvar=False,
            metavar="N",
            help="Replies computed side by side (--canonical: 16, else the best here).",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    engine: o.EngineFlags,
) -> int:
    """Answer every row of a file. The same command line goes on where it was stopped."""
    from infer_cli.cli.batch.options import check
    from infer_cli.cli.batch.supervised import run_job

    return run_job(check(o.given_values(context)), verbose=verbose)
