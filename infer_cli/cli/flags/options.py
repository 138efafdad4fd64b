"""Flags that commands share: one spelling, one meaning, one environment variable each.

None means "not given": defaults have their homes in `settings`, `engine.policy` and `types`.
"""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from infer_cli.settings.origins import Given, flag_of

# Typer reads these annotations at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045

_MODEL, _SAMPLING, _PROMPT, _OUTPUT, _ENGINE = "Model", "Sampling", "Prompt", "Output", "Engine"


def _option(*flags: str, env: str | None, help: str, panel: str, metavar: str | None = None) -> object:
    return typer.Option(
        *flags,
        envvar=f"INFER_{env}" if env else None,
        show_envvar=False,
        help=help,
        metavar=metavar,
        rich_help_panel=panel,
    )


Model = Annotated[
    Optional[str],
    _option(
        "-m",
        "--model",
        env="MODEL",
        panel=_MODEL,
        help="A name, an alias, a path, or a source such as hf:owner/repo:Q4_K_M.",
    ),
]
Offline = Annotated[
    bool, _option("--offline", env="OFFLINE", panel=_MODEL, help="Use no network: only models already here.")
]
Lora = Annotated[
    Optional[list[str]],
    _option(
        "--lora",
        env="LORA",
        panel=_MODEL,
        metavar="PATH[:SCALE]",
        help="Apply a LoRA adapter. May be repeated.",
    ),
]

Temperature = Annotated[
    Optional[str],
    _option(
        "-t",
        "--temperature",
        env="TEMPERATURE",
        panel=_SAMPLING,
        metavar="NUMBER|model",
        help="Sample at this temperature; 0 is greedy, `model` the model's own (run: 0, chat: model).",
    ),
]
Seed = Annotated[
    Optional[int],
    _option("--seed", env="SEED", panel=_SAMPLING, help="Repeat a sampled reply. 0 to 4294967294."),
]
Samples = Annotated[
    Optional[int],
    _option("--samples", env="SAMPLES", panel=_SAMPLING, metavar="N", help="Several replies to one prompt."),
]
TopK = Annotated[
    Optional[int], _option("--top-k", env="TOP_K", panel=_SAMPLING, help="The k likeliest tokens; 0 is all.")
]
TopP = Annotated[
    Optional[float],
    _option("--top-p", env="TOP_P", panel=_SAMPLING, help="The likeliest tokens that sum to p; 1 is all."),
]
MinP = Annotated[
    Optional[float],
    _option(
        "--min-p", env="MIN_P", panel=_SAMPLING, help="Tokens at least this likely relative to the likeliest."
    ),
]
RepeatPenalty = Annotated[
    Optional[float],
    _option("--repeat-penalty", env="REPEAT_PENALTY", panel=_SAMPLING, help="Penalize repeats; 1 is off."),
]
FrequencyPenalty = Annotated[
    Optional[float],
    _option(
        "--frequency-penalty", env="FREQUENCY_PENALTY", panel=_SAMPLING, help="Penalize by count; 0 is off."
    ),
]
PresencePenalty = Annotated[
    Optional[float],
    _option(
        "--presence-penalty", env="PRESENCE_PENALTY", panel=_SAMPLING, help="Penalize presence; 0 is off."
    ),
]
Set = Annotated[
    Optional[list[str]],
    _option(
        "--set",
        env=None,
        panel=_SAMPLING,
        metavar="NAME=VALUE",
        help="Any other sampling parameter, e.g. xtc_probability=0.3. May be repeated.",
    ),
]
MaxTokens = Annotated[
    Optional[int],
    _option("-n", "--max-tokens", env="MAX_TOKENS", panel=_SAMPLING, help="Most tokens of a reply (1024)."),
]
Stop = Annotated[
    Optional[list[str]],
    _option("--stop", env=None, panel=_SAMPLING, help="End the reply before this text. May be repeated."),
]

System = Annotated[Optional[str], _option("--system", env="SYSTEM", panel=_PROMPT, help="The system prompt.")]
Files = Annotated[
    Optional[list[str]],
    _option(
        "-f", "--file", env=None, panel=_PROMPT, help="Put a file's text before the prompt; `-` is stdin."
    ),
]
Messages = Annotated[
    Optional[str],
    _option(
        "--messages",
        env=None,
        panel=_PROMPT,
        metavar="FILE",
        help='A JSON list of {"role": …, "content": …} to continue; `-` is stdin.',
    ),
]
Tools = Annotated[
    Optional[str],
    _option(
        "--tools",
        env=None,
        panel=_PROMPT,
        metavar="FILE",
        help="A JSON list of tools, which the chat template shows the model; `-` is stdin.",
    ),
]
Raw = Annotated[
    bool, _option("--raw", env="RAW", panel=_PROMPT, help="Complete plain text: no template, plain out.")
]
ParseSpecial = Annotated[
    bool,
    _option(
        "--parse-special", env=None, panel=_PROMPT, help="With --raw: let the text contain control tokens."
    ),
]
ChatTemplate = Annotated[
    Optional[str],
    _option(
        "--chat-template",
        env="CHAT_TEMPLATE",
        panel=_PROMPT,
        metavar="FILE",
        help="A Jinja chat template instead of the model's.",
    ),
]
PromptTemplate = Annotated[
    Optional[str],
    _option(
        "--prompt-template",
        env=None,
        panel=_PROMPT,
        metavar="NAME",
        help="A stored prompt (config directory, prompts/NAME.md) or a file with {{ variables }}.",
    ),
]
Var = Annotated[
    Optional[list[str]],
    _option(
        "--var",
        env=None,
        panel=_PROMPT,
        metavar="KEY=VALUE",
        help="A variable of the prompt template or chat template. May be repeated.",
    ),
]

Json = Annotated[bool, _option("--json", env=None, panel=_OUTPUT, help="One JSON object a reply.")]
Jsonl = Annotated[bool, _option("--jsonl", env=None, panel=_OUTPUT, help="Events as JSON lines.")]
Logprobs = Annotated[
    Optional[int],
    _option(
        "--logprobs",
        env=None,
        panel=_OUTPUT,
        metavar="N",
        help="With --json or --jsonl: log-probabilities of each token and the N likeliest.",
    ),
]
Reasoning = Annotated[
    Optional[str],
    _option(
        "--reasoning",
        env="REASONING",
        panel=_OUTPUT,
        metavar="show|hide|only",
        help="What to do with a thinking model's reasoning (show on a terminal, hide in a pipe).",
    ),
]
Plain = Annotated[bool, _option("--plain", env="PLAIN", panel=_OUTPUT, help="Plain text on a terminal too.")]
Markdown = Annotated[
    bool, _option("--markdown", env="MARKDOWN", panel=_OUTPUT, help="Render Markdown in a pipe too.")
]
Stats = Annotated[bool, _option("--stats", env="STATS", panel=_OUTPUT, help="Statistics on stderr.")]
ShowParams = Annotated[
    bool,
    _option("--show-params", env=None, panel=_OUTPUT, help="Each effective value and where it came from."),
]
Quiet = Annotated[bool, _option("--quiet", env="QUIET", panel=_OUTPUT, help="No warnings, no progress.")]
Verbose = Annotated[
    bool, _option("--verbose", env="VERBOSE", panel=_OUTPUT, help="llama.cpp's log on stderr.")
]

Private = Annotated[
    bool,
    _option(
        "--private",
        env="PRIVATE",
        panel=_OUTPUT,
        help="Record hashes only, not what was written: no replay then.",
    ),
]
Continue = Annotated[
    bool,
    _option("-c", "--continue", env=None, panel=_PROMPT, help="Go on with the last conversation."),
]
NoRecord = Annotated[bool, _option("--no-record", env="NO_RECORD", panel=_OUTPUT, help="Record nothing.")]

NoCache = Annotated[
    bool,
    _option(
        "--no-cache", env="NO_CACHE", panel=_ENGINE, help="Neither use nor keep what was evaluated before."
    ),
]
CacheSize = Annotated[
    Optional[str],
    _option(
        "--cache-size",
        env="CACHE_SIZE",
        panel=_ENGINE,
        metavar="SIZE",
        help="Most that `infer cache` holds, e.g. 500MB (2 GB, at most a tenth of the free disk).",
    ),
]

Fast = Annotated[
    bool, _option("--fast", env="FAST", panel=_ENGINE, help="Quickest settings; only the seed is kept.")
]
Canonical = Annotated[
    bool,
    _option(
        "--canonical",
        env="CANONICAL",
        panel=_ENGINE,
        help="The same bytes for as many replies side by side (run, chat: the default).",
    ),
]
Invariant = Annotated[
    bool,
    _option(
        "--invariant",
        env="INVARIANT",
        panel=_ENGINE,
        help="The same bytes whatever the batch, the chunking or the threads (batch: the default).",
    ),
]
Ctx = Annotated[
    Optional[str],
    _option(
        "--ctx",
        env="CTX",
        panel=_ENGINE,
        metavar="TOKENS|auto",
        help="Window (run: what is needed, chat: at most 8192).",
    ),
]
Parallel = Annotated[
    Optional[int],
    _option(
        "--parallel",
        env="PARALLEL",
        panel=_ENGINE,
        metavar="N",
        help="Replies computed side by side (--canonical: 16, else the best here).",
    ),
]
Threads = Annotated[
    Optional[int], _option("--threads", env="THREADS", panel=_ENGINE, help="CPU threads (physical cores).")
]
GpuLayers = Annotated[
    Optional[str],
    _option(
        "--gpu-layers",
        env="GPU_LAYERS",
        panel=_ENGINE,
        metavar="auto|all|N",
        help="Layers on the GPU (auto: all that its free memory holds).",
    ),
]
DeviceNames = Annotated[
    Optional[list[str]],
    _option(
        "--device",
        env="DEVICE",
        panel=_ENGINE,
        help="GPU to use, as `infer devices` names it. May be repeated.",
    ),
]
CacheTypeK = Annotated[
    Optional[str],
    _option("--cache-type-k", env="CACHE_TYPE_K", panel=_ENGINE, help="Type of the K cache (f16)."),
]
CacheTypeV = Annotated[
    Optional[str],
    _option("--cache-type-v", env="CACHE_TYPE_V", panel=_ENGINE, help="Type of the V cache (f16)."),
]
FlashAttn = Annotated[
    Optional[str],
    _option("--flash-attn", env="FLASH_ATTN", panel=_ENGINE, metavar="auto|on|off", help="Flash attention."),
]
NoMmap = Annotated[
    bool, _option("--no-mmap", env="NO_MMAP", panel=_ENGINE, help="Read the model instead of mapping it.")
]
Mlock = Annotated[bool, _option("--mlock", env="MLOCK", panel=_ENGINE, help="Keep the model in memory.")]
Overflow = Annotated[
    Optional[str],
    _option(
        "--overflow",
        env="OVERFLOW",
        panel=_PROMPT,
        metavar="error|drop-oldest|drop-middle|keep-ends",
        help="What goes where the window is too small (run: error, chat: drop-oldest, also summarize).",
    ),
]
ShowContext = Annotated[
    bool,
    _option("--show-context", env=None, panel=_OUTPUT, help="What fills the window, before anything runs."),
]
NoSpeculation = Annotated[
    bool,
    _option(
        "--no-speculation",
        env="NO_SPECULATION",
        panel=_ENGINE,
        help="Guess no tokens ahead (--fast, --invariant): the reply is the same.",
    ),
]
Deadline = Annotated[
    Optional[str],
    _option(
        "--deadline",
        env="DEADLINE",
        panel=_ENGINE,
        metavar="TIME",
        help="Stop the reply after e.g. 3s or 500ms; what is there is printed, exit code 7.",
    ),
]


def plain_values(ctx: typer.Context) -> dict[str, tuple[object, str]]:
    """`given_values` for a `supervisor.Task`: (value, origin) by name."""
    return {name: (given.value, given.origin) for name, given in given_values(ctx).items()}


def given_values(ctx: typer.Context) -> dict[str, Given]:
    """The parameters that the user gave, by flag, environment or configuration file, with their origin."""
    given: dict[str, Given] = {}
    for name, value in ctx.params.items():
        source = ctx.get_parameter_source(name)
        kind = source.name if source is not None else "DEFAULT"
        if kind == "COMMANDLINE":
            given[name] = Given(value, flag_of(name))
        elif kind == "ENVIRONMENT":
            given[name] = Given(value, f"INFER_{name.upper()}")
        elif kind == "DEFAULT_MAP":
            given[name] = Given(value, "config.toml")
    return given
