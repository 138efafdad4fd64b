"""`infer score`: how likely a model finds texts, each after its context."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from infer_cli.cli.batch import flags as f
from infer_cli.cli.flags import options as o
from infer_cli.cli.panels import OUTPUT, WINDOW

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045


@o.takes_groups
def score(
    context: typer.Context,
    *,
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="IN | CONTEXT CONTINUATION",
            help="A file of rows (JSON lines, CSV or TSV; `-` is stdin), or two texts.",
        ),
    ],
    output: f.Output = None,
    rows: f.RowFlags,
    ordered: f.Ordered = False,
    shard: f.ShardFlag = None,
    model: o.Model = None,
    var: o.Var = None,
    chat_template: o.ChatTemplate = None,
    overflow: Annotated[
        Optional[str],
        typer.Option(
            "--overflow",
            envvar="INFER_OVERFLOW",
            show_envvar=False,
            metavar="error|truncate-left",
            help="What to do with a context that does not fit the window (error).",
            rich_help_panel=WINDOW,
        ),
    ] = None,
    going_on: f.GoingOnFlags,
    json: Annotated[
        bool, typer.Option("--json", help="Of two texts: one JSON object.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    no_record: o.NoRecord = False,
    fast: o.Fast = False,
    canonical: o.Canonical = False,
    invariant: o.Invariant = False,
    engine: o.EngineFlags,
) -> int:
    """Say how likely a model finds texts, each after its context."""
    from infer_cli.cli.batch.job_command import JobCommand
    from infer_cli.cli.batch.supervised import run_job
    from infer_cli.cli.score.options import check
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Worker

    checked = check(o.given_values(context))
    if isinstance(checked, JobCommand):
        return run_job(checked, verbose=verbose)

    def work(worker: Worker) -> int:
        from infer_cli.cli.score.one_pair import score_pair

        return score_pair(checked, worker)

    return supervise(work, verbose=verbose)
