"""`infer chat`: a conversation with a model, at a terminal or one turn a line from stdin."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from infer_cli.cli.flags import options as o
from infer_cli.cli.panels import OUTPUT, PROMPT

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045


@o.takes_groups
def chat(
    context: typer.Context,
    *,
    model: o.Model = None,
    continue_: o.Continue = False,
    resume: Annotated[
        Optional[str],
        typer.Option(
            "--resume", metavar="ID|NAME", rich_help_panel=PROMPT,
            help="Go on with this conversation, or the last; an id of one of its records will do.",
        ),
    ] = None,
    system: o.System = None,
    file: Annotated[
        Optional[list[str]],
        typer.Option(
            "-f", "--file", metavar="FILE", rich_help_panel=PROMPT,
            help="Put a file, a folder's text files or a web page before the first message.",
        ),
    ] = None,
    template: o.TemplateFlags,
    temperature: o.TemperatureFlags,
    sampling: o.SamplingFlags,
    thinking: o.ThinkingFlags,
    keys: Annotated[
        Optional[str],
        typer.Option(
            "--keys", envvar="INFER_KEYS", show_envvar=False, metavar="emacs|vi", rich_help_panel=OUTPUT,
            help="Keys of the input line (emacs).",
        ),
    ] = None,
    display: o.DisplayFlags,
    quiet: o.Quiet = False,
    private: o.Private = False,
    no_record: o.NoRecord = False,
    cache: o.CacheFlags,
    verbose: o.Verbose = False,
    mode: o.ModeFlags,
    deadline: o.Deadline = None,
    engine: o.EngineFlags,
) -> int:  # fmt: skip
    """Talk with a model.

    `/help` lists the commands there. From a pipe, each line is a turn.
    Sampled as the model recommends, unless -t says otherwise.
    """
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Task

    return supervise(Task("infer_cli.cli.chat.worker", "talk", o.plain_values(context)), verbose=verbose)
