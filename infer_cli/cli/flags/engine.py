"""The engine flags of a command line, checked and typed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast, get_args

from infer_cli.backend.spec import LoraSpec
from infer_cli.cli.flags.values import Values
from infer_cli.engine.mode_policy import OF_TALKS, DefaultMode
from infer_cli.errors import UsageError
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.origins import Given, Setting
from infer_cli.system.processors import MAX_THREADS, default_threads
from infer_cli.types import Mode


def engine_options(
    given: Mapping[str, Given], default: DefaultMode = OF_TALKS
) -> tuple[EngineOptions, list[Setting]]:
    """`default`: the command's mode where none is given. Raises UsageError naming the flag, variable or
    setting that is wrong."""

    values = Values(given)
    value, origin = values.get, values.origin

    mode, mode_origin = _mode(given) or (None, "default")
    threads = given.get("threads")
    n_threads = default_threads() if threads is None else int(str(threads.value))
    if not 1 <= n_threads <= MAX_THREADS:
        raise UsageError(f"{origin('threads')} {n_threads} is not between 1 and {MAX_THREADS}")
    flash_attn = value("flash_attn")
    if flash_attn not in (None, "auto", "on", "off"):
        raise UsageError(f"{origin('flash_attn')} {flash_attn!r} is not auto, on or off")
    options = EngineOptions(
        threads=n_threads,
        mode=mode or default.mode,
        fallback=default.fallback if mode is None else None,
        ctx=_ctx(given),
        gpu_layers=str(value("gpu_layers") or "auto"),
        devices=tuple(_texts(value("device"))),
        type_k=cast("str | None", value("cache_type_k")),
        type_v=cast("str | None", value("cache_type_v")),
        flash_attn=flash_attn,
        use_mmap=not value("no_mmap"),
        use_mlock=bool(value("mlock")),
        loras=tuple(lora_of(text) for text in _texts(value("lora"))),
        speculate=not value("no_speculation"),
    )
    options.check()
    settings = [
        Setting("mode", options.mode, mode_origin),
        Setting("ctx", options.ctx or "auto", origin("ctx")),
        Setting("threads", n_threads, origin("threads", "physical cores")),
        Setting("gpu_layers", options.gpu_layers, origin("gpu_layers")),
    ]
    return options, settings


def _mode(given: Mapping[str, Given]) -> tuple[Mode, str] | None:
    """The mode that is asked for, and by what; None where none is."""
    modes: tuple[Mode, ...] = get_args(Mode)
    wanted = [(mode, given[mode]) for mode in modes if mode in given and given[mode].value]
    flags = [w for w in wanted if w[1].by_flag] or wanted  # a flag outdoes a variable that asks for another
    if len(flags) > 1:
        raise UsageError(f"{flags[0][1].origin} and {flags[1][1].origin} exclude each other")
    return (flags[0][0], flags[0][1].origin) if flags else None


def _ctx(given: Mapping[str, Given]) -> int | None:
    if "ctx" not in given or given["ctx"].value == "auto":
        return None
    text = str(given["ctx"].value)
    try:
        n_ctx = int(text)
    except ValueError:
        n_ctx = 0
    if not 0 < n_ctx < 2**31:
        raise UsageError(f"{given['ctx'].origin} {text!r} is not a number of tokens above 0, nor auto")
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


def _texts(value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [str(v) for v in value]
    return [str(value)]
