"""Flags of the commands that do a job over the rows of a file: `batch` and `score`."""

from typing import Annotated, Optional

import typer

from infer_cli.cli.flags.options import FlagGroup
from infer_cli.cli.panels import JOB, ROWS

# Typer reads these annotations at run time, on Python 3.10 too: `Optional`, not `| None`, and no strings.
# ruff: noqa: UP045


Output = Annotated[
    Optional[str],
    typer.Option(
        "-o", "--output", metavar="OUT", help="The file to write; `-` is stdout.", rich_help_panel=JOB
    ),
]
Ordered = Annotated[
    bool, typer.Option("--ordered", help="Lines in the order of the rows.", rich_help_panel=JOB)
]
ShardFlag = Annotated[
    Optional[str],
    typer.Option(
        "--shard", metavar="I/N", help="Only the I-th of N parts; see `infer merge`.", rich_help_panel=JOB
    ),
]


class RowFlags(FlagGroup):
    format_: Annotated[
        Optional[str],
        typer.Option(
            "--format",
            metavar="jsonl|csv|tsv|lines",
            help="What IN is (told by its name).",
            rich_help_panel=ROWS,
        ),
    ] = None
    row_template: Annotated[
        Optional[str],
        typer.Option(
            "--row-template",
            metavar="TEXT",
            help="The prompt of a row, with its fields as {name}.",
            rich_help_panel=ROWS,
        ),
    ] = None


class GoingOnFlags(FlagGroup):
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first row that fails.", rich_help_panel=JOB)
    ] = False
    max_errors: Annotated[
        Optional[str],
        typer.Option(
            "--max-errors", metavar="N|N%", help="Stop when more than this have failed.", rich_help_panel=JOB
        ),
    ] = None
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Answer rows again that failed.", rich_help_panel=JOB)
    ] = False
    redo: Annotated[
        bool,
        typer.Option(
            "--redo",
            help="Answer again what another model, setting or row has answered.",
            rich_help_panel=JOB,
        ),
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only count, and say how long it would take.", rich_help_panel=JOB),
    ] = False
    summary: Annotated[
        Optional[str],
        typer.Option("--summary", metavar="FILE", help="The summary as JSON too.", rich_help_panel=JOB),
    ] = None
