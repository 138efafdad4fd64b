"""The engine flags of a command line, checked and typed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from infer_cli.backend.spec import LoraSpec
from infer_cli.cli.flags.values import Values
from infer_cli.engine.mode_policy import OF_TALKS, DefaultMode
from infer_cli.errors import UsageError
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.origins import Setting
from infer_cli.system.processors import MAX_THREADS, default_threads
from infer_cli.types import Mode

_FLASH_ATTN: tuple[Literal["auto", "on", "off"], ...] = ("auto", "on", "off")


def engine_options(values: Values, default: DefaultMode = OF_TALKS) -> tuple[EngineOptions, list[Setting]]:
    """`default`: the command's mode where none is given. Raises UsageError naming the flag, variable or
    setting that is wrong."""
    mode = _mode(values)
    options = EngineOptions(
        threads=values.number("threads", 1, MAX_THREADS) or min(default_threads(), MAX_THREADS),
        mode=mode or default.mode,
        fallback=default.fallback if mode is None else None,
        ctx=_ctx(values),
        gpu_layers=values.text("gpu_layers") or "auto",
        devices=values.texts("device"),
        type_k=values.text("cache_type_k"),
        type_v=values.text("cache_type_v"),
        flash_attn=values.one_of("flash_attn", _FLASH_ATTN),
        use_mmap=not values.is_set("no_mmap"),
        use_mlock=values.is_set("mlock"),
        loras=tuple(lora_of(text) for text in values.texts("lora")),
        speculate=not values.is_set("no_speculation"),
    )
    options.check()
    settings = [
        Setting("mode", options.mode, "default" if mode is None else values.origin(mode)),
        values.setting("ctx", options.ctx or "auto"),
        Setting("threads", options.threads, values.origin("threads", "physical cores")),
        values.setting("gpu_layers", options.gpu_layers),
    ]
    return options, settings


def _mode(values: Values) -> Mode | None:
    """The mode that is asked for; None where none is."""
    modes: tuple[Mode, ...] = get_args(Mode)
    wanted = [mode for mode in modes if values.is_set(mode)]
    # A flag outdoes a variable that asks for another.
    wanted = [mode for mode in wanted if mode in values.by_flag()] or wanted
    if len(wanted) > 1:
        raise UsageError(f"{values.origin(wanted[0])} and {values.origin(wanted[1])} exclude each other")
    return wanted[0] if wanted else None


def _ctx(values: Values) -> int | None:
    text = values.text("ctx")
    if text in (None, "auto"):
        return None
    try:
        n_ctx = int(text)
    except ValueError:
        n_ctx = 0
    if not 0 < n_ctx < 2**31:
        raise UsageError(f"{values.origin('ctx')} {text!r} is not a number of tokens above 0, nor auto")
    return n_ctx


def lora_of(text: str) -> LoraSpec:
    """`PATH[:SCALE]`."""
    path, colon, scale = text.rpartition(":")
    if colon and not Path(text).exists():
        try:
            return LoraSpec(Path(path), float(scale))
        except ValueError:
            pass  # a colon in a path, as of a Windows drive
    return LoraSpec(Path(text))
