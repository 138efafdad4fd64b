"""`infer chat`: a talk with a model, at a terminal or one turn a line from stdin."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from infer_cli.cli.flags import options as o

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045


def chat(
    context: typer.Context,
    model: o.Model = None,
    continue_: o.Continue = False,
    resume: Annotated[
        Optional[str],
        typer.Option(
            "--resume", metavar="ID|NAME", rich_help_panel="Prompt",
            help="Go on with this conversation; an id of one of its records will do.",
        ),
    ] = None,
    system: o.System = None,
    file: Annotated[
        Optional[list[str]],
        typer.Option(
            "-f", "--file", rich_help_panel="Prompt", help="Put a file's text before the first message.",
        ),
    ] = None,
    var: o.Var = None,
    chat_template: o.ChatTemplate = None,
    overflow: o.Overflow = None,
    temperature: o.Temperature = None,
    seed: o.Seed = None,
    max_tokens: o.MaxTokens = None,
    stop: o.Stop = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    repeat_penalty: o.RepeatPenalty = None,
    frequency_penalty: o.FrequencyPenalty = None,
    presence_penalty: o.PresencePenalty = None,
    set_: o.Set = None,
    keys: Annotated[
        Optional[str],
        typer.Option(
            "--keys", envvar="INFER_KEYS", show_envvar=False, metavar="emacs|vi", rich_help_panel="Output",
            help="Keys of the input line (emacs).",
        ),
    ] = None,
    reasoning: o.Reasoning = None,
    plain: o.Plain = False,
    markdown: o.Markdown = False,
    stats: o.Stats = False,
    quiet: o.Quiet = False,
    private: o.Private = False,
    no_record: o.NoRecord = False,
    no_cache: o.NoCache = False,
    cache_size: o.CacheSize = None,
    verbose: o.Verbose = False,
    fast: o.Fast = False,
    canonical: o.Canonical = False,
    invariant: o.Invariant = False,
    no_speculation: o.NoSpeculation = False,
    deadline: o.Deadline = None,
    ctx: o.Ctx = None,
    threads: o.Threads = None,
    gpu_layers: o.GpuLayers = None,
    device: o.DeviceNames = None,
    cache_type_k: o.CacheTypeK = None,
    cache_type_v: o.CacheTypeV = None,
    flash_attn: o.FlashAttn = None,
    no_mmap: o.NoMmap = False,
    mlock: o.Mlock = False,
    lora: o.Lora = None,
    offline: o.Offline = False,
) -> int:  # fmt: skip
    """Talk with a model. `/help` lists the commands; from a pipe, each line is a turn.

    Sampled as the model recommends, unless -t says otherwise.
    """
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Task

    return supervise(Task("infer_cli.cli.chat.worker", "talk", o.plain_values(context)), verbose=verbose)
