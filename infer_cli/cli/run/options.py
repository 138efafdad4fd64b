"""The command line of `infer run`, checked and typed. Knows no model."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from infer_cli.cli.flags.engine import engine_options
from infer_cli.cli.flags.shared import (
    PRIVATE_HINT,
    cache_bytes,
    flags_of,
    overflow_of,
    sampling_of,
    seed_of,
    template_settings,
    variables_of,
)
from infer_cli.cli.flags.values import Values
from infer_cli.errors import UsageError
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.defaults import MAX_LOGPROBS, MAX_SAMPLES, MAX_TOKENS
from infer_cli.settings.origins import Given, Setting
from infer_cli.system.files import not_a_file

if TYPE_CHECKING:
    from infer_cli.conversation.shortening import OverflowPolicy


Format = Literal["text", "json", "jsonl"]


@dataclass(frozen=True)
class RunOptions:
    """A checked command line of `infer run`."""

    model: str | None
    offline: bool
    words: tuple[str, ...]
    system: str | None
    files: tuple[str, ...]
    messages: str | None
    tools: str | None
    raw: bool
    parse_special: bool
    prompt_template: str | None
    variables: Mapping[str, str]
    chat_template: str | None
    overflow: OverflowPolicy  # `summarize` only where a conversation was told so
    sampling: Mapping[str, Given]
    seed: Given | None  # an int
    n_samples: int
    max_tokens: int
    stop: tuple[str, ...]
    deadline_s: float | None
    n_logprobs: int | None
    format: Format
    reasoning: Literal["show", "hide", "only"] | None
    plain: bool
    markdown: bool
    stats: bool
    show_params: bool
    show_context: bool
    quiet: bool
    private: bool
    no_record: bool
    no_cache: bool
    cache_bytes: int | None  # most that the prefix cache may hold
    engine: EngineOptions
    settings: tuple[Setting, ...]  # those that need no model to be known
    flags: frozenset[str]  # parameters that were given by flag


def check(given: Mapping[str, Given]) -> RunOptions:
    """The command line's values, typed. Raises UsageError for the first that is wrong."""

    values = Values(given)
    value, text, texts, setting = values.get, values.text, values.texts, values.setting
    values.exclude((("json", "jsonl"), ("plain", "markdown"), ("raw", "messages"), ("raw", "system"),
                    ("raw", "tools"), ("raw", "chat_template"),
                    ("messages", "prompt_template")))  # fmt: skip
    if value("continue_"):
        for name in ("messages", "tools", "raw", "private", "show_context"):
            if value(name):
                hint = PRIVATE_HINT if name == "private" else ""
                raise UsageError(f"--continue and {given[name].origin} exclude each other", hint)
    if value("parse_special") and not value("raw"):
        raise UsageError("--parse-special needs --raw", "a chat template places control tokens by itself")
    if value("logprobs") is not None and not (value("json") or value("jsonl")):
        raise UsageError("--logprobs needs --json or --jsonl")
    if value("prompt_template") is None and value("var") and value("raw"):
        raise UsageError("--var has nothing to fill: --raw uses no template")
    reasoning = values.one_of("reasoning", "show", "hide", "only")

    overflow = _overflow(given)
    stop = values.stop()

    # Before a model is loaded, perhaps downloaded:
    others = (text("messages"), text("tools"), text("chat_template"))
    for path in (*texts("file"), *(other for other in others if other is not None)):
        if path != "-" and not os.path.exists(path):
            raise UsageError(not_a_file(path))
    if not (value("prompt") or value("file") or value("messages")) and _nothing_piped():
        raise UsageError("the prompt is empty", "give it as an argument, with -f FILE, or on standard input")

    engine, engine_settings = engine_options(given)
    max_tokens = values.number("max_tokens", 1, 2**31 - 1) or MAX_TOKENS
    n_samples = values.number("samples", 1, MAX_SAMPLES) or 1
    if n_samples > 1 and value("continue_"):
        raise UsageError("--continue and --samples exclude each other", "a conversation has one reply a turn")
    if n_samples > 1 and "temperature" not in given:
        raise UsageError("--samples above 1 needs -t: greedy replies would all be the same")

    template_variables = () if value("prompt_template") else texts("var")
    return RunOptions(
        model=text("model"),
        offline=bool(value("offline")),
        words=texts("prompt"),
        system=text("system"),
        files=texts("file"),
        messages=text("messages"),
        tools=text("tools"),
        raw=bool(value("raw")),
        parse_special=bool(value("parse_special")),
        prompt_template=text("prompt_template"),
        variables=variables_of(texts("var")),
        chat_template=text("chat_template"),
        overflow=overflow,
        sampling=_sampled(given, texts("set_")),
        seed=seed_of(given),
        n_samples=n_samples,
        max_tokens=max_tokens,
        stop=stop,
        deadline_s=values.seconds("deadline"),
        n_logprobs=values.number("logprobs", 0, MAX_LOGPROBS),
        format="json" if value("json") else "jsonl" if value("jsonl") else "text",
        reasoning=cast('Literal["show", "hide", "only"] | None', reasoning),
        plain=bool(value("plain")),
        markdown=bool(value("markdown")),
        stats=bool(value("stats")),
        show_params=bool(value("show_params")),
        show_context=bool(value("show_context")),
        quiet=bool(value("quiet")),
        private=bool(value("private")),
        no_record=bool(value("no_record")),
        no_cache=bool(value("no_cache")),
        cache_bytes=cache_bytes(given),
        engine=engine,
        settings=(
            *engine_settings,
            setting("max_tokens", max_tokens),
            setting("samples", n_samples),
            setting("stop", list(stop)),
            setting("deadline", text("deadline")),
            setting("overflow", overflow),
            *template_settings(given, text("chat_template"), template_variables),
        ),
        flags=flags_of(given),
    )


def _overflow(given: Mapping[str, Given]) -> OverflowPolicy:
    if "overflow" not in given:
        return "drop-oldest" if "continue_" in given else "error"
    from infer_cli.prompt.fitting import POLICIES

    return overflow_of(given, POLICIES)


def _sampled(given: Mapping[str, Given], sets: tuple[str, ...]) -> dict[str, Given]:
    chosen = sampling_of(given, sets)
    if "seed" in given and given["seed"].by_flag and "temperature" not in chosen:
        raise UsageError("--seed has no meaning without sampling: the reply is greedy", "add -t")
    return chosen


def _nothing_piped() -> bool:
    return sys.stdin is None or sys.stdin.isatty()
