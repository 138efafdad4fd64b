"""Going on with a conversation: the command line with what it was told before."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from infer_cli.cli.chat.options import ChatOptions
from infer_cli.cli.flags.values import variables_of
from infer_cli.cli.run.options import RunOptions
from infer_cli.conversation.continuing import model_of
from infer_cli.conversation.earlier_settings import ORIGIN, EarlierSettings
from infer_cli.records.record import making_sense
from infer_cli.settings.durations import parse_duration
from infer_cli.settings.origins import RunSeed, Setting
from infer_cli.types import ThinkingParams

if TYPE_CHECKING:
    from infer_cli.conversation.continuing import KeptConversation

Options = TypeVar("Options", ChatOptions, RunOptions)
T = TypeVar("T")


def as_before(options: Options, kept: KeptConversation) -> Options:
    """The command line with what the conversation was told, where no flag says otherwise.

    Raises UsageError, ModelNotFound.
    """
    told_last = kept.thread.told
    if told_last is not None and told_last.model is not None and "model" not in options.flags:
        options = replace(options, model=told_last.model, flags=options.flags | {"model"})
    with making_sense(kept.last):
        return _as_before(options, kept)


def _as_before(options: Options, kept: KeptConversation) -> Options:
    flags, earlier = options.flags, EarlierSettings(kept.last, options.flags)
    engine = earlier.engine(options.engine)
    max_tokens = _else(earlier.number("max_tokens"), options.max_tokens)
    now = options.thinking
    thinking = ThinkingParams(
        _else(earlier.truth("think"), now.think), _else(earlier.number("reasoning_budget"), now.budget)
    )
    stop = _else(earlier.texts("stop"), options.stop)
    overflow = _else(earlier.overflow(), options.overflow)
    deadline, deadline_s = earlier.text("deadline"), options.deadline_s
    if deadline is not None:
        deadline_s = parse_duration(deadline, "--deadline")
    seed, template, pairs = earlier.number("seed"), earlier.text("chat_template"), earlier.texts("var")
    values = {
        "mode": engine.mode,
        "ctx": engine.ctx or "auto",
        "threads": engine.threads,
        "gpu_layers": engine.gpu_layers,
        "max_tokens": max_tokens,
        "think": thinking.think,
        "reasoning_budget": thinking.budget,
        "stop": list(stop),
        "overflow": overflow,
        **({} if deadline is None else {"deadline": deadline}),
    }
    settings: tuple[Setting, ...] = earlier.merged(options.settings, values)
    for name, value in (("chat_template", template), ("var", None if pairs is None else list(pairs))):
        if value is not None:
            rest: list[Setting] = [setting for setting in settings if setting.name != name]
            settings = (*rest, Setting(name, value, ORIGIN))
    return replace(
        options,
        model=options.model if "model" in flags else model_of(kept.last),
        system=options.system if "system" in flags else kept.system,
        variables=options.variables if pairs is None else variables_of(pairs),
        chat_template=_else(template, options.chat_template),
        sampling=earlier.sampling(options.sampling),
        seed=options.seed if seed is None else RunSeed(seed, ORIGIN),
        max_tokens=max_tokens,
        thinking=thinking,
        stop=stop,
        deadline_s=deadline_s,
        overflow=overflow,
        engine=engine,
        settings=settings,
    )


def _else(told: T | None, now: T) -> T:
    return now if told is None else told
