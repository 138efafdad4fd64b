"""`infer run`: one prompt from arguments, files and stdin; the reply to stdout."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from infer_cli.cli.flags import options as o

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045


def run(
    context: typer.Context,
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
    var: o.Var = None,
    chat_template: o.ChatTemplate = None,
    overflow: o.Overflow = None,
    temperature: o.Temperature = None,
    seed: o.Seed = None,
    samples: o.Samples = None,
    max_tokens: o.MaxTokens = None,
    stop: o.Stop = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    repeat_penalty: o.RepeatPenalty = None,
    frequency_penalty: o.FrequencyPenalty = None,
    presence_penalty: o.PresencePenalty = None,
    set_: o.Set = None,
    json: o.Json = False,
    jsonl: o.Jsonl = False,
    logprobs: o.Logprobs = None,
    reasoning: o.Reasoning = None,
    plain: o.Plain = False,
    markdown: o.Markdown = False,
    stats: o.Stats = False,
    show_params: o.ShowParams = False,
    show_context: o.ShowContext = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    private: o.Private = False,
    no_record: o.NoRecord = False,
    fast: o.Fast = False,
    canonical: o.Canonical = False,
    invariant: o.Invariant = False,
    no_speculation: o.NoSpeculation = False,
    no_cache: o.NoCache = False,
    cache_size: o.CacheSize = None,
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
) -> int:
    """Answer one prompt: system, files, stdin and arguments, in that order. The answer goes to stdout."""
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Task

    module = "infer_cli.cli.chat.one_turn" if continue_ else "infer_cli.cli.run.worker"
    return supervise(Task(module, "answer", o.plain_values(context)), verbose=verbose)
