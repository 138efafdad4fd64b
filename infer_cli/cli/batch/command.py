"""`infer batch`: many prompts from a file, each reply written as it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from infer_cli.cli.flags import options as o

if TYPE_CHECKING:
    from infer_cli.errors import InferError, NativeCrash, OutOfMemory

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045

_ROWS, _JOB = "Rows", "Job"


@o.takes_groups
def batch(
    context: typer.Context,
    *,
    input: Annotated[str, typer.Argument(metavar="IN", help="JSON lines, CSV, TSV or text; `-` is stdin.")],
    output: Annotated[
        Optional[str],
        typer.Option(
            "-o", "--output", metavar="OUT", help="The file of replies; `-` is stdout.", rich_help_panel=_JOB
        ),
    ] = None,
    format_: Annotated[
        Optional[str],
        typer.Option(
            "--format",
            metavar="jsonl|csv|tsv|lines",
            help="What IN is (told by its name).",
            rich_help_panel=_ROWS,
        ),
    ] = None,
    row_template: Annotated[
        Optional[str],
        typer.Option(
            "--row-template",
            metavar="TEXT",
            help="The prompt of a row, with its fields as {name}.",
            rich_help_panel=_ROWS,
        ),
    ] = None,
    output_format: Annotated[
        Optional[str],
        typer.Option(
            "--output-format",
            metavar="infer|openai",
            help="Our JSON, or OpenAI's batch output.",
            rich_help_panel=_JOB,
        ),
    ] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Replies in the order of the rows.", rich_help_panel=_JOB)
    ] = False,
    shard: Annotated[
        Optional[str],
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Only the I-th of N parts; see `infer merge`.",
            rich_help_panel=_JOB,
        ),
    ] = None,
    model: o.Model = None,
    system: o.System = None,
    raw: o.Raw = False,
    template: o.TemplateFlags,
    temperature: o.TemperatureFlags,
    samples: o.Samples = None,
    sampling: o.SamplingFlags,
    logprobs: Annotated[
        Optional[int],
        typer.Option("--logprobs", metavar="N", help="Log-probabilities of each token and the N likeliest."),
    ] = None,
    deadline: o.Deadline = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first reply that fails.", rich_help_panel=_JOB)
    ] = False,
    max_errors: Annotated[
        Optional[str],
        typer.Option(
            "--max-errors",
            metavar="N|N%",
            help="Stop when more replies than this have failed.",
            rich_help_panel=_JOB,
        ),
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Answer rows again that failed.", rich_help_panel=_JOB)
    ] = False,
    redo: Annotated[
        bool,
        typer.Option(
            "--redo",
            help="Answer again what another model, setting or row has answered.",
            rich_help_panel=_JOB,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only count, and say how long it would take.", rich_help_panel=_JOB),
    ] = False,
    summary: Annotated[
        Optional[str],
        typer.Option("--summary", metavar="FILE", help="The summary as JSON too.", rich_help_panel=_JOB),
    ] = None,
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
            rich_help_panel="Engine",
        ),
    ] = None,
    engine: o.EngineFlags,
) -> int:
    """Answer every row of a file. The same command line goes on where it was stopped."""
    from infer_cli.cli.batch.options import check
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Worker

    checked = check(o.given_values(context))
    if checked.input.name == "-":
        _make_stdin_a_file(checked.output)
    crash: list[InferError] = []

    def work(worker: Worker) -> int:
        from infer_cli.cli.batch.worker import answer_all

        return answer_all(checked, worker)

    def on_crash(error: NativeCrash | OutOfMemory) -> bool:
        if checked.output is None or not _noted(error, checked.output, quiet=checked.quiet):
            return False
        crash.append(error)
        return True

    while True:
        n_crashes = len(crash)
        status = supervise(work, verbose=verbose, on_crash=on_crash)
        if len(crash) == n_crashes:
            return status


def _noted(error: NativeCrash | OutOfMemory, output: Path, *, quiet: bool) -> bool:
    """Write down which rows were under way, for the next worker; False where there were none."""
    from infer_cli.batch.in_flight import note_crash
    from infer_cli.batch.job import counted_rows, flight_path
    from infer_cli.errors import OutOfMemory
    from infer_cli.text.sanitize import single_line

    suspects = note_crash(flight_path(output), killed=isinstance(error, OutOfMemory))
    if not suspects.to_try and not suspects.given_up:
        return False
    parts = [f"warning: {single_line(error.message)}"]
    if suspects.to_try:
        parts.append(f"tried again alone: {counted_rows(suspects.to_try)}")
    if suspects.given_up:
        parts.append(f"given up: {counted_rows(suspects.given_up)}")
    if sys.stderr is not None and not quiet:
        print("; ".join(parts), file=sys.stderr)
    return True


def _make_stdin_a_file(output: Path | None) -> None:
    """Copy a piped stdin to a file that has no name: it is read twice, and again after a crash."""
    import stat
    import tempfile

    if stat.S_ISREG(os.fstat(0).st_mode):
        return
    with tempfile.TemporaryFile(dir=None if output is None else output.parent) as file:
        while chunk := os.read(0, 1 << 20):
            file.write(chunk)
        file.flush()
        os.dup2(file.fileno(), 0)
