"""`infer run`: one prompt from arguments, files and stdin; the reply to stdout."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from infer_cli.cli.flags import options as o
from infer_cli.cli.panels import OUTPUT

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045


@o.takes_groups
def run(
    context: typer.Context,
    *,
    prompt: Annotated[Optional[list[str]], typer.Argument(help="The prompt; words are joined.")] = None,
    model: o.Model = None,
    continue_: o.Continue = False,
    system: o.System = None,
    file: o.Files = None,
    messages: o.Messages = None,
    tools: o.Tools = None,
    raw: o.Raw = False,
    parse_special: o.ParseSpecial = False,
    prompt_template: o.PromptTemplate = None,
    template: o.TemplateFlags,
    choices: o.Choices = None,
    temperature: o.TemperatureFlags,
    samples: o.Samples = None,
    sampling: o.SamplingFlags,
    thinking: o.ThinkingFlags,
    json: o.Json = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", rich_help_panel=OUTPUT, help="Events as JSON lines.")
    ] = False,
    logprobs: Annotated[
        Optional[int],
        typer.Option(
            "--logprobs",
            metavar="N",
            rich_help_panel=OUTPUT,
            help="With --json or --jsonl: log-probabilities of each token and the N likeliest.",
        ),
    ] = None,
    display: o.DisplayFlags,
    show_params: Annotated[
        bool,
        typer.Option(
            "--show-params", rich_help_panel=OUTPUT, help="Each effective value and where it came from."
        ),
    ] = False,
    show_context: Annotated[
        bool,
        typer.Option(
            "--show-context", rich_help_panel=OUTPUT, help="What fills the window, before anything runs."
        ),
    ] = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    private: o.Private = False,
    no_record: o.NoRecord = False,
    mode: o.ModeFlags,
    cache: o.CacheFlags,
    deadline: o.Deadline = None,
    engine: o.EngineFlags,
) -> int:
    """Answer one prompt from arguments, files and standard input.

    The prompt is put together in this order: system, files, stdin, arguments. The answer goes to stdout.
    """
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Task

    module = "infer_cli.cli.chat.one_turn" if continue_ else "infer_cli.cli.run.worker"
    return supervise(Task(module, "answer", o.plain_values(context)), verbose=verbose)
