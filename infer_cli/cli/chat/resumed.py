"""Going on with a conversation: which one, and the command line with what it was told before."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

from infer_cli.cli.chat.options import ChatOptions
from infer_cli.cli.flags.shared import variables_of
from infer_cli.cli.run.options import RunOptions
from infer_cli.conversation import continuing
from infer_cli.records.record import making_sense
from infer_cli.records.store import Store, store_path
from infer_cli.settings.durations import parse_duration
from infer_cli.settings.origins import Given, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from infer_cli.conversation.continuing import Continued
    from infer_cli.conversation.shortening import TalkPolicy

_OF_THE_MODEL = {"chat_template", "var", "lora"}  # mean nothing to another one

Options = TypeVar("Options", ChatOptions, RunOptions)


def conversation(name: str | None, warn: Callable[[str], None]) -> Continued:
    """The conversation of this name or id; None is the last one. Raises UsageError."""
    with Store.open(store_path(), warn) as store:
        found = continuing.latest(store) if name is None else continuing.named(store, name)
    if found.has_gaps:
        warn("turns of this conversation are missing: it goes on without them")
    return found


def as_before(options: Options, continued: Continued) -> Options:
    """The command line with what the conversation was told, where no flag says otherwise.

    Raises UsageError, ModelNotFound.
    """
    told_last = continued.thread.told
    if told_last is not None and told_last.model is not None and "model" not in options.flags:
        options = replace(options, model=told_last.model, flags=options.flags | {"model"})
    with making_sense(continued.last):
        return _as_before(options, continued)


def _as_before(options: Options, continued: Continued) -> Options:
    record, flags = continued.last, options.flags
    not_kept = flags | _OF_THE_MODEL if "model" in flags else flags

    def told(name: str, now: object) -> object:
        before = None if name in not_kept else continuing.told(record, name)
        return now if before is None else before

    engine = continuing.engine_as_before(record, options.engine, not_kept)
    max_tokens = int(str(told("max_tokens", options.max_tokens)))
    stop = tuple(map(str, cast("Sequence[object]", told("stop", options.stop))))
    overflow = cast("TalkPolicy", told("overflow", options.overflow))
    deadline = told("deadline", {setting.name: setting.value for setting in options.settings}["deadline"])
    seed, variables = told("seed", None), options.variables
    if (pairs := told("var", None)) is not None:
        variables = variables_of(tuple(map(str, cast("Sequence[object]", pairs))))
    values = {
        "mode": engine.mode,
        "ctx": engine.ctx or "auto",
        "threads": engine.threads,
        "gpu_layers": engine.gpu_layers,
        "max_tokens": max_tokens,
        "stop": list(stop),
        "deadline": deadline,
        "overflow": overflow,
    }
    settings: tuple[Setting, ...] = continuing.settings_as_before(record, options.settings, values)
    for name in ("chat_template", "var"):
        if (value := told(name, None)) is not None:
            rest: list[Setting] = [setting for setting in settings if setting.name != name]
            settings = (*rest, Setting(name, value, continuing.ORIGIN))
    return replace(
        options,
        model=options.model if "model" in flags else continuing.model_of(record),
        system=options.system if "system" in flags else continued.system,
        variables=variables,
        chat_template=cast("str | None", told("chat_template", options.chat_template)),
        sampling=continuing.sampling_as_before(record, options.sampling),
        seed=options.seed if seed is None else Given(seed, continuing.ORIGIN),
        max_tokens=max_tokens,
        stop=stop,
        deadline_s=None if deadline is None else parse_duration(str(deadline), "--deadline"),
        overflow=overflow,
        engine=engine,
        settings=settings,
    )
