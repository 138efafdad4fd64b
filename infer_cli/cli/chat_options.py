"""The command line of `infer chat`, checked and typed. Knows no model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from infer_cli.cli.engine_options import engine_options
from infer_cli.cli.run_options import sampling_of, variables_of
from infer_cli.errors import UsageError
from infer_cli.given import Given
from infer_cli.loading import EngineOptions
from infer_cli.seeds import check_seed
from infer_cli.settings import MAX_TOKENS, Setting

Keys = Literal["emacs", "vi"]
Reasoning = Literal["show", "hide", "only"]


@dataclass(frozen=True)
class ChatOptions:
    """A checked command line of `infer chat`."""

    model: str | None
    offline: bool
    system: str | None
    variables: Mapping[str, str]
    chat_template: str | None
    sampling: Mapping[str, Given]
    seed: int | None
    seed_by_flag: bool
    max_tokens: int
    stop: tuple[str, ...]
    keys: Keys
    reasoning: Reasoning | None
    plain: bool
    markdown: bool
    stats: bool
    quiet: bool
    private: bool
    engine: EngineOptions
    settings: tuple[Setting, ...]  # those of the engine


def check(given: Mapping[str, Given]) -> ChatOptions:
    """The command line's values, typed. Raises UsageError for the first that is wrong."""

    def value(name: str) -> object:
        return given[name].value if name in given else None

    def text(name: str) -> str | None:
        return None if value(name) is None else str(value(name))

    def texts(name: str) -> tuple[str, ...]:
        return tuple(str(v) for v in cast("list[object]", value(name) or []))

    if value("plain") and value("markdown"):
        raise UsageError(f"{given['plain'].origin} and {given['markdown'].origin} exclude each other")
    if value("reasoning") not in (None, "show", "hide", "only"):
        raise UsageError(f"{given['reasoning'].origin} {value('reasoning')!r} is not show, hide or only")
    if value("keys") not in (None, "emacs", "vi"):
        raise UsageError(f"{given['keys'].origin} {value('keys')!r} is not emacs or vi")
    if "" in texts("stop"):
        raise UsageError("--stop: a stop string is empty")
    template = text("chat_template")
    if template is not None and not os.path.exists(template):
        raise UsageError(f"no file {template}")
    max_tokens = check_max_tokens(value("max_tokens") or MAX_TOKENS, "--max-tokens")
    engine, engine_settings = engine_options(given)
    seed = check_seed(int(str(value("seed"))), given["seed"].origin) if "seed" in given else None
    return ChatOptions(
        model=text("model"),
        offline=bool(value("offline")),
        system=text("system"),
        variables=variables_of(texts("var")),
        chat_template=template,
        sampling=sampling_of(given, texts("set_")),
        seed=seed,
        seed_by_flag="seed" in given and given["seed"].by_flag,
        max_tokens=max_tokens,
        stop=texts("stop"),
        keys=cast("Keys", value("keys") or "emacs"),
        reasoning=cast("Reasoning | None", value("reasoning")),
        plain=bool(value("plain")),
        markdown=bool(value("markdown")),
        stats=bool(value("stats")),
        quiet=bool(value("quiet")),
        private=bool(value("private")),
        engine=engine,
        settings=tuple(engine_settings),
    )


def check_max_tokens(value: object, origin: str) -> int:
    """Raises UsageError for what is no number of tokens."""
    try:
        n = int(str(value))
    except ValueError:
        n = 0
    if not 1 <= n < 2**31:
        raise UsageError(f"{origin} {value} is not a number of tokens above 0")
    return n
