"""`infer eval`: scores of models on tasks, with all that is needed to check them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from infer_cli.cli.batch import flags as f
from infer_cli.cli.flags import options as o

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045

_ITEMS, _SCORES = "Items", "Scores"


@o.takes_groups
def evaluate(
    context: typer.Context,
    *,
    tasks: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="TASK...",
            help="A shipped task's name, a task's file (.toml, .py), or lm:NAME of lm-evaluation-harness.",
        ),
    ] = None,
    output: Annotated[
        Optional[str],
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="The run's folder; of several runs, one each below it.",
            rich_help_panel=f.JOB,
        ),
    ] = None,
    model: Annotated[
        Optional[list[str]],
        typer.Option(
            "-m",
            "--model",
            help="As for `infer run`. May be repeated: all models, one table.",
            rich_help_panel="Model",
        ),
    ] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            "--data",
            metavar="[TASK=]PATH",
            help="The data, a file or a folder. May be repeated: each task's.",
            rich_help_panel=_ITEMS,
        ),
    ] = None,
    lm_include: Annotated[
        Optional[list[str]],
        typer.Option(
            "--lm-include",
            metavar="DIR",
            help="Tasks of your own for lm:NAME. May be repeated.",
            rich_help_panel=_ITEMS,
        ),
    ] = None,
    limit: Annotated[
        Optional[int],
        typer.Option("--limit", metavar="N", help="Only the first N items.", rich_help_panel=_ITEMS),
    ] = None,
    ids: Annotated[
        Optional[str],
        typer.Option(
            "--ids",
            metavar="A,B|@FILE",
            help="Only these items; a file has one a line.",
            rich_help_panel=_ITEMS,
        ),
    ] = None,
    fewshot: Annotated[
        Optional[int],
        typer.Option(
            "--fewshot",
            metavar="N",
            help="Examples before each question (the task's number).",
            rich_help_panel=_ITEMS,
        ),
    ] = None,
    fewshot_seed: Annotated[
        Optional[int],
        typer.Option(
            "--fewshot-seed",
            metavar="N",
            help="Which examples are drawn (the task's).",
            rich_help_panel=_ITEMS,
        ),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", help="Through the model's chat template (the task says).", rich_help_panel=_ITEMS
        ),
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Texts to be completed, as they are.", rich_help_panel=_ITEMS)
    ] = False,
    system: o.System = None,
    var: o.Var = None,
    chat_template: o.ChatTemplate = None,
    seeds: Annotated[
        Optional[int],
        typer.Option(
            "--seeds",
            metavar="N",
            help="Answer each item with N seeds, from --seed on (0).",
            rich_help_panel="Sampling",
        ),
    ] = None,
    samples: o.Samples = None,
    temperature: o.TemperatureFlags,
    sampling: o.SamplingFlags,
    thinking: o.ThinkingFlags,
    deadline: o.Deadline = None,
    judge: Annotated[
        Optional[str],
        typer.Option(
            "--judge",
            metavar="MODEL",
            help="The model that judges answers (the task's).",
            rich_help_panel=_SCORES,
        ),
    ] = None,
    exclude_errors: Annotated[
        bool,
        typer.Option(
            "--exclude-errors",
            help="Leave out items that failed, instead of counting them as wrong.",
            rich_help_panel=_SCORES,
        ),
    ] = False,
    interval: Annotated[
        Optional[str],
        typer.Option(
            "--interval",
            metavar="wilson|clopper-pearson",
            help="The interval of proportions (wilson).",
            rich_help_panel=_SCORES,
        ),
    ] = None,
    fail_under: Annotated[
        Optional[list[str]],
        typer.Option(
            "--fail-under",
            metavar="METRIC=VALUE",
            help="Exit code 9 for a worse score. May be repeated.",
            rich_help_panel=_SCORES,
        ),
    ] = None,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Run the code of a Python task, and of replies that a scorer runs.",
            rich_help_panel=_SCORES,
        ),
    ] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask again what failed.", rich_help_panel=f.JOB)
    ] = False,
    redo: Annotated[
        bool,
        typer.Option(
            "--redo", help="Do again what another task, selection or setting has.", rich_help_panel=f.JOB
        ),
    ] = False,
    shard: f.ShardFlag = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="The results of all runs, as one JSON array.", rich_help_panel="Output"),
    ] = False,
    cite: Annotated[
        Optional[list[Path]],
        typer.Option(
            "--cite",
            metavar="DIR",
            help="Only print how a run is described and cited. May be repeated.",
            rich_help_panel="Output",
        ),
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
            help="Replies computed side by side, as for `infer batch`.",
            rich_help_panel="Engine",
        ),
    ] = None,
    engine: o.EngineFlags,
) -> int:
    """Score models on tasks. The same command line goes on where it was stopped."""
    if cite:
        from infer_cli.cli.eval.citation import print_citation
        from infer_cli.errors import UsageError

        if tasks:
            raise UsageError("--cite reads runs that are there, and runs no task", "leave the tasks out")
        return print_citation(cite)
    from infer_cli.cli.eval.options import check
    from infer_cli.cli.eval.supervised import run_all

    return run_all(check(o.given_values(context)), verbose=verbose)
