"""Effective values and where each came from.

Precedence: flag > `INFER_*` > config.toml > (when sampling: model entry > the GGUF's `general.sampling.*`)
> ours. The command line hands in what the first three gave; the rest is merged here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import NamedTuple

from infer_cli.errors import ModelInvalid, UsageError
from infer_cli.settings.defaults import SAMPLING_TEMPERATURE
from infer_cli.settings.origins import Given, RunSeed, Setting
from infer_cli.settings.seeds import draw_seed
from infer_cli.types import TEMPLATE_DECIDES, SamplingParams, ThinkingParams

_SAMPLING = {f.name: f for f in fields(SamplingParams)}
SAMPLING_NAMES = tuple(_SAMPLING)
# Meaningless to an argmax; penalties are not among them.
_ONLY_WHEN_SAMPLING = (
    "top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "xtc_probability", "xtc_threshold",
    "dynatemp_range", "dynatemp_exponent", "mirostat", "mirostat_tau", "mirostat_eta",
)  # fmt: skip

# What `general.sampling.*` of a GGUF file calls differently.
_NAMES_IN_FILE = {
    "temperature": "temp",
    "repeat_penalty": "penalty_repeat",
    "repeat_last_n": "penalty_last_n",
}
_FROM_FILE = "model file"

# (least, most) of each sampling parameter.
_BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_k": (0, 2**31 - 1),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "top_n_sigma": (-1.0, 1e6),
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 1.0),
    "repeat_penalty": (1e-6, 100.0),
    "repeat_last_n": (-1, 2**31 - 1),
    "frequency_penalty": (-100.0, 100.0),
    "presence_penalty": (-100.0, 100.0),
    "dry_multiplier": (0.0, 100.0),
    "dry_base": (1.0, 100.0),
    "dry_allowed_length": (0, 2**31 - 1),
    "dry_penalty_last_n": (-1, 2**31 - 1),
    "dynatemp_range": (0.0, 100.0),
    "dynatemp_exponent": (0.0, 100.0),
    "mirostat": (0, 2),
    "mirostat_tau": (0.0, 100.0),
    "mirostat_eta": (0.0, 1.0),
}


def checked(name: str, value: object, origin: str) -> float | int:
    """A sampling parameter's value, in its own type and bounds. Raises UsageError naming both."""
    whole = isinstance(_SAMPLING[name].default, int)
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if math.isnan(number) or isinstance(value, bool) or (whole and not number.is_integer()):
        what = "a whole number" if whole else "a number"
        raise UsageError(f"{origin}: {name} must be {what}, not {value!r}")
    least, most = _BOUNDS[name]
    if not least <= number <= most:
        raise UsageError(f"{origin}: {name} must be between {least:g} and {most:g}, not {number:g}")
    return int(number) if whole else number


def parse_set(pairs: list[str]) -> dict[str, Given]:
    """`--set NAME=VALUE` arguments. Raises UsageError for a name that is no sampling parameter."""
    given: dict[str, Given] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"--set {pair!r} is not NAME=VALUE")
        if name not in _SAMPLING:
            raise UsageError(f"--set knows no parameter {name!r}", "it knows: " + ", ".join(_SAMPLING))
        given[name] = Given(value.strip(), f"--set {name}")
    return given


def resolve_sampling(
    given: Mapping[str, Given],
    entry: Mapping[str, object],
    gguf: Mapping[str, object],
    *,
    default_temperature: str,
) -> tuple[SamplingParams, list[Setting]]:
    """Merge what the user gave with what the model recommends.

    `given["temperature"]` may be "model". `default_temperature` is the command's own: "0" or "model".
    `entry` holds SamplingParams field names, `gguf` those of `general.sampling.*`. Greedy ignores their
    recommendations. Raises UsageError, and ModelInvalid for a value of the file that it would need and can't
    use.
    """
    temperature = given.get("temperature") or Given(default_temperature, "default")
    if temperature.value == "model":
        chosen = _first_of("temperature", {}, entry, gguf) or Setting(
            "temperature", SAMPLING_TEMPERATURE, "default"
        )
    else:
        if not is_temperature(temperature.value):
            raise UsageError(
                f"{temperature.origin}: a temperature is a number or `model`, not {temperature.value!r}"
            )
        chosen = Setting(
            "temperature", checked("temperature", temperature.value, temperature.origin), temperature.origin
        )
    settings = [chosen]
    sampled = checked("temperature", chosen.value, chosen.origin) > 0
    for name, field in _SAMPLING.items():
        if name == "temperature":
            continue
        if not sampled and name in _ONLY_WHEN_SAMPLING:
            if name in given and given[name].by_flag:
                raise UsageError(
                    f"{given[name].origin} has no meaning without sampling: the reply is greedy",
                    "add -t with a temperature, or `-t model`",
                )
            continue
        recommended = (entry, gguf) if sampled else ({}, {})
        settings.append(_first_of(name, given, *recommended) or Setting(name, field.default, "default"))
    values = {s.name: checked(s.name, s.value, s.origin) for s in settings}
    return replace(SamplingParams(), **values), settings  # type: ignore[arg-type]  # checked() gives field types


class SamplingChoice(NamedTuple):
    """How replies are sampled. `run_seed` is None where they are greedy. `settings` has every value and where
    it came from, that of the seed too."""

    params: SamplingParams
    run_seed: int | None
    settings: tuple[Setting, ...]


def choose_sampling(
    given: Mapping[str, Given],
    entry: Mapping[str, object],
    gguf: Mapping[str, object],
    seed: RunSeed | None,
    *,
    default_temperature: str,
) -> SamplingChoice:
    """As `resolve_sampling`, with a seed: the one that was given, or one that is drawn now."""
    params, settings = resolve_sampling(given, entry, gguf, default_temperature=default_temperature)
    if params.greedy:
        return SamplingChoice(params, None, tuple(settings))
    used = seed or RunSeed(draw_seed(), "drawn")
    return SamplingChoice(params, used.value, (*settings, Setting("seed", *used)))


def _first_of(
    name: str, given: Mapping[str, Given], entry: Mapping[str, object], gguf: Mapping[str, object]
) -> Setting | None:
    if name in given:
        return Setting(name, given[name].value, given[name].origin)
    if name in entry:
        return Setting(name, entry[name], "model entry")
    key = _NAMES_IN_FILE.get(name, name)
    if key in gguf:
        return Setting(name, _usable(name, key, gguf[key]), _FROM_FILE)
    return None


def _usable(name: str, key: str, value: object) -> float | int:
    """A value that a model's file recommends; the file is untrusted. Raises ModelInvalid naming the key."""
    try:
        if isinstance(value, str):
            raise UsageError(f"{name} must be a number, not text")
        return checked(name, value, _FROM_FILE)
    except UsageError as e:
        least, most = _BOUNDS[name]
        raise ModelInvalid(
            f"the model's file recommends a 'general.sampling.{key}' that can't be used: {value!r:.80}"
            f" (a number from {least:g} to {most:g} can)",
            f"give your own: --set {name}=VALUE",
        ) from e


def is_temperature(value: object) -> bool:
    """Whether a value is a number or `model`; its bounds are looked at later."""
    return not isinstance(value, str) or value == "model" or _is_number(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def effective_params(
    sampling: SamplingParams,
    max_tokens: int,
    stop: tuple[str, ...],
    thinking: ThinkingParams = TEMPLATE_DECIDES,
) -> dict[str, object]:
    """The parameters that decide a reply, as its record and digest hold them: no defaults that do nothing."""
    params: dict[str, object] = {"temperature": sampling.temperature}
    for name, field in _SAMPLING.items():
        value = getattr(sampling, name)
        if name == "temperature" or (sampling.greedy and name in _ONLY_WHEN_SAMPLING):
            continue
        if (not sampling.greedy and name in ("top_k", "top_p", "min_p")) or value != field.default:
            params[name] = value
    params["max_tokens"] = max_tokens
    params["stop"] = list(stop)
    if thinking.think is not None:
        params["think"] = thinking.think
    if thinking.budget is not None:
        params["reasoning_budget"] = thinking.budget
    return params
