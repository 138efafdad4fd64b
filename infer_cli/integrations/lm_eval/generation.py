"""What a task asks of generated text (`generation_kwargs`), in infer's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lm_eval.models.utils import normalize_gen_kwargs

from infer_cli.errors import UsageError

MAX_GEN_TOKS = 256  # the harness's own models' default

# The harness's and transformers' names, and ours.
_SAMPLING = {
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repeat_penalty",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}
_PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")  # they change greedy replies too


class Generation(NamedTuple):
    """`sampling` is empty for a greedy reply without penalties."""

    until: tuple[str, ...]
    max_tokens: int
    sampling: dict[str, object]
    seed: int | None


def read_generation(asked: Mapping[str, Any]) -> Generation:
    """Where `do_sample` is false, or the temperature 0, what shapes the draw is of no consequence and left
    out, as in the harness's own models. `do_sample` without a temperature has 1, as in transformers.

    Raises UsageError for a name that is not known here.
    """
    given = dict(normalize_gen_kwargs(dict(asked), MAX_GEN_TOKS))
    until = tuple(text for text in given.pop("until") if text)
    max_tokens = int(given.pop("max_gen_toks"))
    samples = bool(given.pop("do_sample"))
    temperature = float(given.pop("temperature", 1.0))
    seed = given.pop("seed", None)
    if unknown := set(given) - set(_SAMPLING):
        raise UsageError(
            f"generation_kwargs has {min(unknown)!r}, which infer does not know",
            f"it knows until, max_gen_toks, do_sample, temperature, seed, {', '.join(_SAMPLING)}",
        )
    sampled = samples and temperature > 0
    sampling: dict[str, object] = {
        _SAMPLING[name]: value for name, value in given.items() if sampled or name in _PENALTIES
    }
    if sampled:
        sampling["temperature"] = temperature
    return Generation(until, max_tokens, sampling, seed if sampled else None)
