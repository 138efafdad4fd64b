"""The command line of `infer chat`, checked and typed. Knows no model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

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
from infer_cli.conversation.shortening import DEFAULT, OVERFLOW_POLICIES, OverflowPolicy
from infer_cli.errors import UsageError
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.defaults import MAX_TOKENS
from infer_cli.settings.origins import Given, Setting
from infer_cli.system.files import not_a_file

Keys = Literal["emacs", "vi"]
Reasoning = Literal["show", "hide", "only"]


@dataclass(frozen=True)
class ChatOptions:
    """A checked command line of `infer chat`."""

    model: str | None
    offline: bool
    system: str | None
    files: tuple[str, ...]  # before the first message
    variables: Mapping[str, str]
    chat_template: str | None
    overflow: OverflowPolicy
    sampling: Mapping[str, Given]
    seed: Given | None  # an int
    max_tokens: int
    stop: tuple[str, ...]
    deadline_s: float | None  # of each reply
    keys: Keys
    reasoning: Reasoning | None
    plain: bool
    markdown: bool
    stats: bool
    quiet: bool
    private: bool
    no_record: bool
    no_cache: bool
    cache_bytes: int | None  # most that the prefix cache may hold
    continues: bool
    resume: str | None
    engine: EngineOptions
    settings: tuple[Setting, ...]  # those that need no model to be known
    flags: frozenset[str]  # parameters that were given by flag


def check(given: Mapping[str, Given]) -> ChatOptions:
    """The command line's values, typed. Raises UsageError for the first that is wrong."""

    values = Values(given)
    value, text, texts, setting = values.get, values.text, values.texts, values.setting

    values.exclude([("plain", "markdown")])
    reasoning = values.one_of("reasoning", "show", "hide", "only")
    keys = values.one_of("keys", "emacs", "vi")
    stop = values.stop()
    template = text("chat_template")
    if template is not None and not os.path.exists(template):
        raise UsageError(not_a_file(template))
    for path in texts("file"):
        if path == "-":
            raise UsageError("-f - has nothing to read: the messages come from standard input")
        if not os.path.exists(path):
            raise UsageError(not_a_file(path))
    if value("continue_") and value("resume") is not None:
        raise UsageError("--continue and --resume exclude each other")
    if value("private") and (value("continue_") or value("resume") is not None):
        other = "--continue" if value("continue_") else "--resume"
        raise UsageError(f"{given['private'].origin} and {other} exclude each other", PRIVATE_HINT)
    overflow = overflow_of(given, OVERFLOW_POLICIES) if "overflow" in given else DEFAULT
    max_tokens = values.number("max_tokens", 1, 2**31 - 1) or MAX_TOKENS
    engine, engine_settings = engine_options(given)

    return ChatOptions(
        model=text("model"),
        offline=bool(value("offline")),
        system=text("system"),
        files=texts("file"),
        variables=variables_of(texts("var")),
        chat_template=template,
        overflow=overflow,
        sampling=sampling_of(given, texts("set_")),
        seed=seed_of(given),
        max_tokens=max_tokens,
        stop=stop,
        deadline_s=values.seconds("deadline"),
        keys=cast("Keys", keys or "emacs"),
        reasoning=cast("Reasoning | None", reasoning),
        plain=bool(value("plain")),
        markdown=bool(value("markdown")),
        stats=bool(value("stats")),
        quiet=bool(value("quiet")),
        private=bool(value("private")),
        no_record=bool(value("no_record")),
        no_cache=bool(value("no_cache")),
        cache_bytes=cache_bytes(given),
        continues=bool(value("continue_")),
        resume=text("resume"),
        engine=engine,
        settings=(
            *engine_settings,
            setting("max_tokens", max_tokens),
            setting("stop", list(stop)),
            setting("deadline", text("deadline")),
            setting("overflow", overflow),
            *template_settings(given, template, texts("var")),
        ),
        flags=flags_of(given),
    )
