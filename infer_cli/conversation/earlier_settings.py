"""What a conversation was told in an earlier process, for the one that goes on with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from infer_cli.conversation.shortening import OVERFLOW_POLICIES, OverflowPolicy
from infer_cli.records.record import Record
from infer_cli.records.recorded_job import engine_options
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.origins import Given, Setting
from infer_cli.types import Mode, SamplingParams

ORIGIN = "conversation"  # of a setting that an earlier turn was given
_NOT_SAID = ("default", "physical cores", "model entry", "model file", "drawn", "/regen")
_OF_THE_MODEL = {"chat_template", "var", "lora", "think"}  # mean nothing to another one
_SAMPLING = {f.name for f in dataclasses.fields(SamplingParams)}
# Flag -> field of the engine's options.
_ENGINE_FLAGS = {
    "ctx": "ctx", "threads": "threads", "gpu_layers": "gpu_layers", "device": "devices", "lora": "loras",
    "cache_type_k": "type_k", "cache_type_v": "type_v", "flash_attn": "flash_attn",
}  # fmt: skip


class EarlierSettings:
    """The settings of a conversation's last record, where the user says nothing else now: `flags` names what
    was given by flag. A value is None where it had its default.

    What is no value that this program writes raises ValueError or TypeError: see `making_sense`.
    """

    def __init__(self, record: Record, flags: frozenset[str]) -> None:
        self._record = record
        self._flags = flags | _OF_THE_MODEL if "model" in flags else flags
        self._told = [setting for setting in record.settings if setting.origin not in _NOT_SAID]

    def _value(self, name: str) -> object:
        if name in self._flags:
            return None
        return next((setting.value for setting in self._told if setting.name == name), None)

    def number(self, name: str) -> int | None:
        value = self._value(name)
        return None if value is None else _whole(name, value)

    def truth(self, name: str) -> bool | None:
        value = self._value(name)
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{name} is neither true nor false: {value!r}")
        return value

    def text(self, name: str) -> str | None:
        value = self._value(name)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name} is no text: {value!r}")
        return value

    def texts(self, name: str) -> tuple[str, ...] | None:
        value = self._value(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} is no list: {value!r}")
        return tuple(map(str, value))

    def overflow(self) -> OverflowPolicy | None:
        value = self._value("overflow")
        if value is None:
            return None
        for policy in OVERFLOW_POLICIES:
            if policy == value:
                return policy
        raise ValueError(f"there is no overflow policy {value!r}")

    def engine(self, now: EngineOptions) -> EngineOptions:
        """The engine that answered, but for the flags. Raises UsageError."""
        said = {setting.name: setting.value for setting in self._record.settings}
        ctx = said.get("ctx", "auto")
        before = replace(
            engine_options(self._record),
            ctx=None if ctx == "auto" else _whole("ctx", ctx),
            gpu_layers=str(said.get("gpu_layers", "auto")),
            use_mmap=now.use_mmap,
            use_mlock=now.use_mlock,
            exact_width=now.exact_width,
        )
        if self._flags & set(get_args(Mode)) and now.mode != before.mode:  # it chooses its own cache types
            before = replace(before, mode=now.mode, type_k=None, type_v=None, flash_attn=None)
        given = {name: getattr(now, name) for flag, name in _ENGINE_FLAGS.items() if flag in self._flags}
        options = replace(before, **given)
        options.check()
        return options

    def sampling(self, now: Mapping[str, Given]) -> dict[str, Given]:
        """The sampling parameters that were told, but for the flags."""
        said = {s.name: Given(s.value, ORIGIN) for s in self._told if s.name in _SAMPLING}
        return {**now, **said, **{name: given for name, given in now.items() if given.by_flag}}

    def merged(self, now: Sequence[Setting], values: Mapping[str, object]) -> tuple[Setting, ...]:
        """Settings with the `values` that are in use, and where those came from: a flag, or the
        conversation."""
        before = {setting.name: setting for setting in self._record.settings}

        def with_value(setting: Setting) -> Setting:
            was = before.get(setting.name)
            if setting.origin.startswith("-") or was is None or setting.name not in values:
                return setting
            origin = was.origin if was.origin in _NOT_SAID else ORIGIN
            return Setting(setting.name, values[setting.name], origin)

        return tuple(map(with_value, now))


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{name} is no whole number: {value!r}")
    return value
