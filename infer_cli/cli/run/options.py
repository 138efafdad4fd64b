"""The command line of `infer run`, checked and typed. Knows no model."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from infer_cli.cli.flags.shared import (
    PRIVATE_HINT,
    ShowingOptions,
    choices_of,
    n_samples_of,
    overflow_of,
    read_showing,
    sampling_of,
)
from infer_cli.cli.flags.values import Values
from infer_cli.errors import UsageError
from infer_cli.settings.defaults import MAX_LOGPROBS
from infer_cli.settings.origins import Given
from infer_cli.system.files import is_url, not_a_file

if TYPE_CHECKING:
    from infer_cli.conversation.shortening import OverflowPolicy


Format = Literal["text", "json", "jsonl"]


@dataclass(eq=False, repr=False)
class RunOptions(ShowingOptions):
    """A checked command line of `infer run`."""

    words: tuple[str, ...]
    messages: str | None
    tools: str | None
    raw: bool
    parse_special: bool
    prompt_template: str | None
    choices: tuple[str, ...]  # the answers that are allowed; empty: any
    n_samples: int
    n_logprobs: int | None
    format: Format
    show_params: bool
    show_context: bool


def check(given: Mapping[str, Given]) -> RunOptions:
    """The command line's values, typed. Raises UsageError for the first that is wrong."""
    values = Values(given)
    is_set, text = values.is_set, values.text
    values.exclude((("json", "jsonl"), ("plain", "markdown"), ("raw", "messages"), ("raw", "system"),
                    ("raw", "tools"), ("raw", "chat_template"),
                    ("messages", "prompt_template")))  # fmt: skip
    if is_set("continue_"):
        _check_continuing(values)
    choices = choices_of(values)
    if is_set("parse_special") and not is_set("raw"):
        raise UsageError("--parse-special needs --raw", "a chat template places control tokens by itself")
    if values.whole("logprobs") is not None and not (is_set("json") or is_set("jsonl")):
        raise UsageError("--logprobs needs --json or --jsonl")
    if is_set("raw") and is_set("var") and text("prompt_template") is None:
        raise UsageError("--var has nothing to fill: --raw uses no template")
    _check_sources(values)
    n_samples = 1 if choices else n_samples_of(values)
    if "seed" in values.by_flag() and "temperature" not in sampling_of(values):
        raise UsageError("--seed has no meaning without sampling: the reply is greedy", "add -t")
    shared = read_showing(
        values,
        overflow=_overflow(values),
        n_samples=n_samples,
        variables=() if is_set("prompt_template") else values.texts("var"),
    )
    if choices:
        allowed = values.setting("choices", list(choices))
        shared = replace(shared, settings=(*shared.settings, allowed))
    return RunOptions(
        **vars(shared),
        words=values.texts("prompt"),
        messages=text("messages"),
        tools=text("tools"),
        raw=is_set("raw"),
        parse_special=is_set("parse_special"),
        prompt_template=text("prompt_template"),
        choices=choices,
        n_samples=n_samples,
        n_logprobs=values.number("logprobs", 0, MAX_LOGPROBS),
        format="json" if is_set("json") else "jsonl" if is_set("jsonl") else "text",
        show_params=is_set("show_params"),
        show_context=is_set("show_context"),
    )


def _check_continuing(values: Values) -> None:
    for name in ("messages", "tools", "raw", "private", "show_context"):
        if values.is_set(name):
            hint = PRIVATE_HINT if name == "private" else ""
            raise UsageError(f"--continue and {values.origin(name)} exclude each other", hint)
    if (values.whole("samples") or 1) > 1:
        raise UsageError("--continue and --samples exclude each other", "a conversation has one reply a turn")


def _check_sources(values: Values) -> None:
    """Before a model is loaded, perhaps downloaded."""
    others = (values.text("messages"), values.text("tools"), values.text("chat_template"))
    files = [name for name in values.texts("file") if not is_url(name)]
    for path in (*files, *(other for other in others if other is not None)):
        if path != "-" and not os.path.exists(path):
            raise UsageError(not_a_file(path), "check the path, and the directory that you are in")
    if not any(map(values.is_set, ("prompt", "file", "messages"))) and _nothing_piped():
        raise UsageError("the prompt is empty", "give it as an argument, with -f FILE, or on standard input")


def _overflow(values: Values) -> OverflowPolicy:
    if values.text("overflow") is None:
        return "drop-oldest" if values.is_set("continue_") else "error"
    from infer_cli.prompt.fitting import POLICIES

    return overflow_of(values, POLICIES, "error")


def _nothing_piped() -> bool:
    return sys.stdin is None or sys.stdin.isatty()
