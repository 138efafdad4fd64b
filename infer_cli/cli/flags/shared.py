"""Values of flags that several commands have: sampling, seed, overflow, cache, variables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TypeVar

from infer_cli.errors import UsageError
from infer_cli.settings.origins import Given, Setting
from infer_cli.settings.sampling import parse_set
from infer_cli.settings.seeds import check_seed
from infer_cli.settings.sizes import parse_size

P = TypeVar("P", bound=str)

PRIVATE_HINT = "a conversation whose turns are not kept can't be continued"


def overflow_of(given: Mapping[str, Given], known: Sequence[P]) -> P:
    """`--overflow`, which was given. Raises UsageError for a word that the command does not know."""
    from infer_cli.prompt.fitting import policy_named

    name, origin = given["overflow"]
    policy = policy_named(name, known)
    if policy is None:
        raise UsageError(f"{origin} {name!r} is not one of {', '.join(known)}")
    return policy


def template_settings(
    given: Mapping[str, Given], template: str | None, pairs: tuple[str, ...]
) -> list[Setting]:
    """A chat template of the user's own and its variables, where there are any."""
    found = []
    if template is not None:
        found.append(Setting("chat_template", os.path.abspath(template), given["chat_template"].origin))
    if pairs:
        found.append(Setting("var", list(pairs), given["var"].origin))
    return found


def cache_bytes(given: Mapping[str, Given]) -> int | None:
    """`--cache-size` in bytes. Raises UsageError."""
    if "cache_size" not in given:
        return None
    return parse_size(str(given["cache_size"].value), given["cache_size"].origin)


def seed_of(given: Mapping[str, Given]) -> Given | None:
    """The seed that was given. Raises UsageError."""
    if "seed" not in given:
        return None
    value, origin = given["seed"]
    return Given(check_seed(int(str(value)), origin), origin)


def flags_of(given: Mapping[str, Given]) -> frozenset[str]:
    """Names of the parameters that were given by flag."""
    return frozenset(name for name, value in given.items() if value.by_flag)


_SAMPLING_FLAGS = (
    "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "frequency_penalty", "presence_penalty",
)  # fmt: skip


def sampling_of(given: Mapping[str, Given], sets: tuple[str, ...]) -> dict[str, Given]:
    """The sampling parameters that the user gave, by flag and with `--set`. Raises UsageError."""
    chosen = {name: given[name] for name in _SAMPLING_FLAGS if name in given}
    for name, value in parse_set(list(sets)).items():
        if name in chosen and chosen[name].by_flag:
            raise UsageError(f"{chosen[name].origin} and {value.origin} say the same thing twice")
        chosen[name] = value
    return chosen


def variables_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """`--var KEY=VALUE` arguments. Raises UsageError."""
    variables = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--var {pair!r} is not KEY=VALUE")
        variables[name] = value
    return variables
