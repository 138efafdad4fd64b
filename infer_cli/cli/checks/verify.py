"""`infer verify`: is a results file what its model answers, or a run's score what its model has?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from infer_cli.cli.flags import options as o
from infer_cli.cli.panels import MODEL, OUTPUT

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045

_ROWS = "Rows (as the job's file says)"
_RUNS = "Runs of infer eval"


def verify(
    context: typer.Context,
    results: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS", help="What `batch -o` or `score -o` wrote, or the folder of `eval -o`."
        ),
    ],
    input: Annotated[
        Optional[str], typer.Option("--input", metavar="IN", help="The rows (the job's input file).")
    ] = None,
    fraction: Annotated[
        Optional[float],
        typer.Option("--fraction", metavar="F", help="The share of the rows that is answered again (0.05)."),
    ] = None,
    challenge: Annotated[
        Optional[str],
        typer.Option("--challenge", metavar="TEXT", help="What the rows are drawn by (random)."),
    ] = None,
    tokens: Annotated[
        bool,
        typer.Option("--tokens", help="Check claimed tokens by their likelihood: no reply is written again."),
    ] = False,
    model: Annotated[
        Optional[str],
        typer.Option(
            "-m",
            "--model",
            metavar="MODEL",
            help="The model (the one that the results name).",
            rich_help_panel=MODEL,
        ),
    ] = None,
    format_: Annotated[
        Optional[str],
        typer.Option("--format", metavar="jsonl|csv|tsv|lines", help="What IN is.", rich_help_panel=_ROWS),
    ] = None,
    row_template: Annotated[
        Optional[str],
        typer.Option("--row-template", metavar="TEXT", help="The prompt of a row.", rich_help_panel=_ROWS),
    ] = None,
    system: Annotated[
        Optional[str],
        typer.Option("--system", metavar="TEXT", help="The system prompt.", rich_help_panel=_ROWS),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Prompts are completed as they are.", rich_help_panel=_ROWS)
    ] = False,
    chat_template: Annotated[
        Optional[str],
        typer.Option("--chat-template", metavar="FILE", help="The chat template.", rich_help_panel=_ROWS),
    ] = None,
    var: Annotated[
        Optional[list[str]],
        typer.Option(
            "--var", metavar="KEY=VALUE", help="A variable of the chat template.", rich_help_panel=_ROWS
        ),
    ] = None,
    deadline: Annotated[
        Optional[str],
        typer.Option(
            "--deadline", metavar="TIME", help="The deadline that the batch had.", rich_help_panel=_ROWS
        ),
    ] = None,
    data: Annotated[
        Optional[str],
        typer.Option("--data", metavar="PATH", help="The task's data.", rich_help_panel=_RUNS),
    ] = None,
    judge: Annotated[
        Optional[str],
        typer.Option("--judge", metavar="MODEL", help="The model that judged.", rich_help_panel=_RUNS),
    ] = None,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Run a Python task's code, and what a scorer runs.",
            rich_help_panel=_RUNS,
        ),
    ] = False,
    lora: o.Lora = None,
    json: Annotated[
        bool, typer.Option("--json", rich_help_panel=OUTPUT, help="The verdict as one JSON object.")
    ] = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    offline: o.Offline = False,
) -> int:
    """Answer a sample of the rows again and compare. Exit code 9 where a reply differs.

    Of a run of `infer eval`, its items and scores are made again too.
    """
    from infer_cli.cli.checks.verify_options import check
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Worker

    checked = check(o.given_values(context))

    def work(worker: Worker) -> int:
        if checked.run is not None:
            from infer_cli.cli.checks.verify_run_worker import verify_run

            return verify_run(checked, checked.run, worker)
        from infer_cli.cli.checks.verify_worker import verify_results

        return verify_results(checked, worker)

    return supervise(work, verbose=verbose)
