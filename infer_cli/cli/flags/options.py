"""Flags that commands share, each declared once: one spelling, one meaning, one environment variable.

A flag that a command takes alone is a type here, flags that commands take together are a `FlagGroup`. What
only one command has is in its signature. `shared.py` reads and checks what was given.
None means "not given": defaults have their homes in `settings`, `engine.mode_policy` and `types`.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Optional

import typer

from infer_cli.cli.panels import ENGINE, MODEL, OUTPUT, PROMPT, SAMPLING, WINDOW
from infer_cli.settings.origins import Given, flag_of

# Typer reads these annotations at run time, on Python 3.10 too: `Optional`, not `| None`, and no strings.
# ruff: noqa: UP045


def _option(*flags: str, help: str, panel: str, metavar: str | None = None, env: bool = True) -> object:
    """`flags`: the long name last. `env`: it is a variable too, `INFER_` and the long name."""
    return typer.Option(
        *flags,
        envvar="INFER_" + flags[-1].partition("/")[0][2:].replace("-", "_").upper() if env else None,
        show_envvar=False,
        help=help,
        metavar=metavar,
        rich_help_panel=panel,
    )


class FlagGroup:
    """Flags that commands take together. A parameter of such a type stands for all of them, in this order."""

    def __init__(self, **values: object) -> None:
        vars(self).update(values)

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        return [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=getattr(cls, name), annotation=annotation
            )
            for name, annotation in inspect.get_annotations(cls).items()
        ]


def takes_groups(command: Callable[..., int]) -> Callable[..., int]:
    """The command with each group in its signature replaced by the group's flags, as Typer must see it."""
    groups: dict[str, type[FlagGroup]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        taken = parameter.annotation
        if isinstance(taken, type) and issubclass(taken, FlagGroup):
            groups[parameter.name] = taken
            parameters += taken.parameters()
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command, assigned=("__module__", "__name__", "__doc__"))
    def call(**values: object) -> int:
        for name, group in groups.items():
            values[name] = group(**{flag: values.pop(flag) for flag in inspect.get_annotations(group)})
        return command(**values)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


# --- the model ------------------------------------------------------------------------------------

Model = Annotated[
    Optional[str],
    _option(
        "-m",
        "--model",
        panel=MODEL,
        metavar="MODEL",
        help="A name, an alias, a path, or a source such as hf:owner/repo:Q4_K_M.",
    ),
]
Offline = Annotated[bool, _option("--offline", panel=MODEL, help="Use no network: only models already here.")]
Lora = Annotated[
    Optional[list[str]],
    _option("--lora", panel=MODEL, metavar="PATH[:SCALE]", help="Apply a LoRA adapter. May be repeated."),
]

# --- the prompt -----------------------------------------------------------------------------------

Continue = Annotated[
    bool, _option("-c", "--continue", env=False, panel=PROMPT, help="Go on with the last conversation.")
]
System = Annotated[
    Optional[str], _option("--system", panel=PROMPT, metavar="TEXT", help="The system prompt.")
]
Files = Annotated[
    Optional[list[str]],
    _option(
        "-f",
        "--file",
        env=False,
        panel=PROMPT,
        metavar="FILE",
        help="Put a file, a folder's text files or a web page before the prompt; `-` is stdin.",
    ),
]
Messages = Annotated[
    Optional[str],
    _option(
        "--messages",
        env=False,
        panel=PROMPT,
        metavar="FILE",
        help='A JSON list of {"role": …, "content": …} to continue; `-` is stdin.',
    ),
]
Tools = Annotated[
    Optional[str],
    _option(
        "--tools",
        env=False,
        panel=PROMPT,
        metavar="FILE",
        help="A JSON list of tools, which the chat template shows the model; `-` is stdin.",
    ),
]
Raw = Annotated[bool, _option("--raw", panel=PROMPT, help="Complete plain text: no template, plain out.")]
ParseSpecial = Annotated[
    bool,
    _option(
        "--parse-special", env=False, panel=PROMPT, help="With --raw: let the text contain control tokens."
    ),
]
PromptTemplate = Annotated[
    Optional[str],
    _option(
        "--prompt-template",
        env=False,
        panel=PROMPT,
        metavar="NAME",
        help="A stored prompt (config directory, prompts/NAME.md) or a file with {{ variables }}.",
    ),
]
Var = Annotated[
    Optional[list[str]],
    _option(
        "--var",
        env=False,
        panel=PROMPT,
        metavar="KEY=VALUE",
        help="A variable of the prompt template or chat template. May be repeated.",
    ),
]
ChatTemplate = Annotated[
    Optional[str],
    _option(
        "--chat-template",
        panel=PROMPT,
        metavar="FILE",
        help="A Jinja chat template instead of the model's.",
    ),
]


class TemplateFlags(FlagGroup):
    var: Var = None
    chat_template: ChatTemplate = None
    overflow: Annotated[
        Optional[str],
        _option(
            "--overflow",
            panel=WINDOW,
            metavar="error|drop-oldest|drop-middle|keep-ends|summarize",
            help="What goes where the window is too small (run: error, chat: drop-oldest);"
            " summarize is chat's alone.",
        ),
    ] = None


Think = Annotated[
    Optional[bool],
    _option("--think/--no-think", panel=PROMPT, help="Have a thinking model think, or answer at once."),
]


class ThinkingFlags(FlagGroup):
    think: Think = None
    reasoning_budget: Annotated[
        Optional[int],
        _option(
            "--reasoning-budget",
            panel=SAMPLING,
            metavar="N",
            help="End the reasoning after N tokens; the answer follows. 0 ends it at once.",
        ),
    ] = None


Choices = Annotated[
    Optional[list[str]],
    _option(
        "--choices",
        env=False,
        panel=PROMPT,
        metavar="A,B,…",
        help="Answer with the likeliest of these. Given more than once, each is one choice.",
    ),
]

# --- sampling -------------------------------------------------------------------------------------


class TemperatureFlags(FlagGroup):
    temperature: Annotated[
        Optional[str],
        _option(
            "-t",
            "--temperature",
            panel=SAMPLING,
            metavar="NUMBER|model",
            help="Sample at this temperature; 0 is greedy, `model` the model's own (run: 0, chat: model).",
        ),
    ] = None
    seed: Annotated[
        Optional[int],
        _option("--seed", panel=SAMPLING, metavar="N", help="Repeat a sampled reply. 0 to 4294967294."),
    ] = None


Samples = Annotated[
    Optional[int], _option("--samples", panel=SAMPLING, metavar="N", help="Several replies to one prompt.")
]


class SamplingFlags(FlagGroup):
    max_tokens: Annotated[
        Optional[int],
        _option("-n", "--max-tokens", panel=SAMPLING, metavar="N", help="Most tokens of a reply (1024)."),
    ] = None
    stop: Annotated[
        Optional[list[str]],
        _option(
            "--stop",
            env=False,
            panel=SAMPLING,
            metavar="TEXT",
            help="End the reply before this text. May be repeated.",
        ),
    ] = None
    top_k: Annotated[
        Optional[int],
        _option("--top-k", panel=SAMPLING, metavar="K", help="The k likeliest tokens; 0 is all."),
    ] = None
    top_p: Annotated[
        Optional[float],
        _option("--top-p", panel=SAMPLING, metavar="P", help="The likeliest tokens that sum to p; 1 is all."),
    ] = None
    min_p: Annotated[
        Optional[float],
        _option(
            "--min-p",
            panel=SAMPLING,
            metavar="P",
            help="Tokens at least this likely relative to the likeliest.",
        ),
    ] = None
    repeat_penalty: Annotated[
        Optional[float],
        _option("--repeat-penalty", panel=SAMPLING, metavar="X", help="Penalize repeats; 1 is off."),
    ] = None
    frequency_penalty: Annotated[
        Optional[float],
        _option("--frequency-penalty", panel=SAMPLING, metavar="X", help="Penalize by count; 0 is off."),
    ] = None
    presence_penalty: Annotated[
        Optional[float],
        _option("--presence-penalty", panel=SAMPLING, metavar="X", help="Penalize presence; 0 is off."),
    ] = None
    set_: Annotated[
        Optional[list[str]],
        _option(
            "--set",
            env=False,
            panel=SAMPLING,
            metavar="NAME=VALUE",
            help="Any other sampling parameter, e.g. xtc_probability=0.3. May be repeated.",
        ),
    ] = None


# --- what is shown and recorded -------------------------------------------------------------------

Json = Annotated[bool, _option("--json", env=False, panel=OUTPUT, help="One JSON object a reply.")]
Stats = Annotated[Optional[bool], _option("--stats", panel=OUTPUT, help="Statistics on stderr.")]


class DisplayFlags(FlagGroup):
    reasoning: Annotated[
        Optional[str],
        _option(
            "--reasoning",
            panel=OUTPUT,
            metavar="show|hide|only",
            help="What to do with a thinking model's reasoning (show on a terminal, hide in a pipe).",
        ),
    ] = None
    plain: Annotated[bool, _option("--plain", panel=OUTPUT, help="Plain text on a terminal too.")] = False
    markdown: Annotated[bool, _option("--markdown", panel=OUTPUT, help="Render Markdown in a pipe too.")] = (
        False
    )
    stats: Stats = None


Quiet = Annotated[bool, _option("--quiet", panel=OUTPUT, help="No warnings, no progress.")]
Verbose = Annotated[bool, _option("--verbose", panel=OUTPUT, help="llama.cpp's log on stderr.")]
Private = Annotated[
    bool,
    _option("--private", panel=OUTPUT, help="Record hashes only, not what was written: no replay then."),
]
NoRecord = Annotated[bool, _option("--no-record", panel=OUTPUT, help="Record nothing.")]

# --- the engine -----------------------------------------------------------------------------------

Fast = Annotated[bool, _option("--fast", panel=ENGINE, help="Quickest settings; only the seed is kept.")]
Canonical = Annotated[
    bool,
    _option(
        "--canonical",
        panel=ENGINE,
        help="The same bytes for as many replies side by side (run, chat: the default).",
    ),
]
Invariant = Annotated[
    bool,
    _option(
        "--invariant",
        panel=ENGINE,
        help="The same bytes whatever the batch, the chunking or the threads (batch: the default).",
    ),
]


class ModeFlags(FlagGroup):
    fast: Fast = False
    canonical: Canonical = False
    invariant: Invariant = False
    no_speculation: Annotated[
        bool,
        _option(
            "--no-speculation",
            panel=ENGINE,
            help="Guess no tokens ahead (--fast, --invariant): the reply is the same.",
        ),
    ] = False


CacheSize = Annotated[
    Optional[str],
    _option(
        "--cache-size",
        panel=ENGINE,
        metavar="SIZE",
        help="Most that `infer cache` holds, e.g. 500MB (2 GB, at most a tenth of the free disk).",
    ),
]


class CacheFlags(FlagGroup):
    no_cache: Annotated[
        bool,
        _option("--no-cache", panel=ENGINE, help="Neither use nor keep what was evaluated before."),
    ] = False
    cache_size: CacheSize = None


Deadline = Annotated[
    Optional[str],
    _option(
        "--deadline",
        panel=ENGINE,
        metavar="TIME",
        help="Stop the reply after e.g. 3s or 500ms; what is there is printed, exit code 7.",
    ),
]
Ctx = Annotated[
    Optional[str],
    _option(
        "--ctx",
        panel=WINDOW,
        metavar="TOKENS|auto",
        help="Window (run: what is needed, chat: at most 8192, perplexity: 512).",
    ),
]
Threads = Annotated[
    Optional[int], _option("--threads", panel=ENGINE, metavar="N", help="CPU threads (physical cores).")
]
GpuLayers = Annotated[
    Optional[str],
    _option(
        "--gpu-layers",
        panel=ENGINE,
        metavar="auto|all|N",
        help="Layers on the GPU (auto: all that its free memory holds).",
    ),
]
DeviceNames = Annotated[
    Optional[list[str]],
    _option(
        "--device",
        panel=ENGINE,
        metavar="NAME",
        help="GPU to use, as `infer devices` names it. May be repeated.",
    ),
]
CacheTypeK = Annotated[
    Optional[str],
    _option(
        "--cache-type-k",
        panel=ENGINE,
        metavar="TYPE",
        help="Type of the K cache: f32, bf16, q8_0, q4_0 … (f16).",
    ),
]
CacheTypeV = Annotated[
    Optional[str], _option("--cache-type-v", panel=ENGINE, metavar="TYPE", help="Type of the V cache (f16).")
]
FlashAttn = Annotated[
    Optional[str], _option("--flash-attn", panel=ENGINE, metavar="auto|on|off", help="Flash attention.")
]


class EngineFlags(FlagGroup):
    ctx: Ctx = None
    threads: Threads = None
    gpu_layers: GpuLayers = None
    device: DeviceNames = None
    cache_type_k: CacheTypeK = None
    cache_type_v: CacheTypeV = None
    flash_attn: FlashAttn = None
    no_mmap: Annotated[
        bool, _option("--no-mmap", panel=ENGINE, help="Read the model instead of mapping it.")
    ] = False
    mlock: Annotated[bool, _option("--mlock", panel=ENGINE, help="Keep the model in memory.")] = False
    lora: Lora = None
    offline: Offline = False


# --- what was given -------------------------------------------------------------------------------


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
