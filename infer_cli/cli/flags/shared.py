"""What commands that ask a model are told alike, checked and typed. Knows no model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from infer_cli.cli.flags.engine import engine_options
from infer_cli.cli.flags.values import Values, variables_of
from infer_cli.engine.mode_policy import OF_TALKS, DefaultMode
from infer_cli.errors import UsageError
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.defaults import MAX_SAMPLES, MAX_TOKENS, MOST_TOKENS
from infer_cli.settings.origins import Given, RunSeed, Setting
from infer_cli.settings.sampling import SAMPLING_NAMES, parse_set
from infer_cli.settings.seeds import check_seed
from infer_cli.settings.sizes import parse_size
from infer_cli.types import TEMPLATE_DECIDES, ThinkingParams

if TYPE_CHECKING:
    from infer_cli.conversation.shortening import OverflowPolicy

Reasoning = Literal["show", "hide", "only"]
REASONING_VIEWS: tuple[Reasoning, ...] = ("show", "hide", "only")
PRIVATE_HINT = "a conversation whose turns are not kept can't be continued"
P = TypeVar("P", bound=str)


# Nobody changes, compares or prints these: what `dataclass` writes for that would cost each start 1 ms.
@dataclass(eq=False, repr=False)
class AskingOptions:
    """What `run`, `chat` and `batch` are told alike."""

    model: str | None
    offline: bool
    system: str | None
    variables: Mapping[str, str]
    chat_template: str | None
    overflow: OverflowPolicy  # `summarize` only where a conversation was told so
    sampling: Mapping[str, Given]
    seed: RunSeed | None
    max_tokens: int
    thinking: ThinkingParams
    stop: tuple[str, ...]
    deadline_s: float | None  # of each reply
    quiet: bool
    no_record: bool
    engine: EngineOptions
    settings: tuple[Setting, ...]  # those that need no model to be known


@dataclass(eq=False, repr=False)
class ShowingOptions(AskingOptions):
    """What `run` and `chat` are told alike, which show a reply as it comes."""

    files: tuple[str, ...]
    reasoning: Reasoning | None
    plain: bool
    markdown: bool
    stats: bool | None  # None: it was not said
    private: bool
    no_cache: bool
    cache_bytes: int | None  # most that the prefix cache may hold
    flags: frozenset[str]  # parameters that were given by flag


def read_asking(
    values: Values,
    *,
    overflow: OverflowPolicy,
    n_samples: int | None = None,
    mode: DefaultMode = OF_TALKS,
    template: Sequence[Setting] = (),
) -> AskingOptions:
    """`overflow`, `n_samples`, `template`: what the command made of its own; `settings` names them.

    Raises UsageError for the first value that is wrong.
    """
    stop = values.texts("stop")
    if "" in stop:
        raise UsageError("--stop: a stop string is empty")
    engine, engine_settings = engine_options(values, mode)
    max_tokens = _max_tokens(values)
    thinking = _thinking(values)
    return AskingOptions(
        model=values.text("model"),
        offline=values.is_set("offline"),
        system=values.text("system"),
        variables=variables_of(values.texts("var")),
        chat_template=values.text("chat_template"),
        overflow=overflow,
        sampling=sampling_of(values),
        seed=_seed(values),
        max_tokens=max_tokens,
        thinking=thinking,
        stop=stop,
        deadline_s=values.seconds("deadline"),
        quiet=values.is_set("quiet"),
        no_record=values.is_set("no_record"),
        engine=engine,
        settings=(
            *engine_settings,
            values.setting("max_tokens", max_tokens),
            values.setting("think", thinking.think),
            values.setting("reasoning_budget", thinking.budget),
            *([] if n_samples is None else [values.setting("samples", n_samples)]),
            values.setting("stop", list(stop)),
            values.setting("deadline", values.text("deadline")),
            values.setting("overflow", overflow),
            *template,
        ),
    )


def read_showing(
    values: Values, *, overflow: OverflowPolicy, n_samples: int | None = None, variables: tuple[str, ...]
) -> ShowingOptions:
    """`variables`: those of the chat template, as they were given. Otherwise as `read_asking`."""
    asking = read_asking(
        values, overflow=overflow, n_samples=n_samples, template=template_settings(values, variables)
    )
    return ShowingOptions(
        **vars(asking),
        files=values.texts("file"),
        reasoning=values.one_of("reasoning", REASONING_VIEWS),
        plain=values.is_set("plain"),
        markdown=values.is_set("markdown"),
        stats=values.is_set("stats") if values.given("stats") is not None else None,
        private=values.is_set("private"),
        no_cache=values.is_set("no_cache"),
        cache_bytes=_cache_bytes(values),
        flags=values.by_flag(),
    )


def overflow_of(values: Values, known: Sequence[P], default: P) -> P:
    """Raises UsageError for a word that the command does not know."""
    from infer_cli.prompt.fitting import policy_named

    name = values.text("overflow")
    if name is None:
        return default
    policy = policy_named(name, known)
    if policy is None:
        raise UsageError(f"{values.origin('overflow')} {name!r} is not one of {', '.join(known)}")
    return policy


def sampling_of(values: Values) -> dict[str, Given]:
    """The sampling parameters that the user gave, by flag and with `--set`. Raises UsageError."""
    chosen = {name: given for name in SAMPLING_NAMES if (given := values.given(name)) is not None}
    for name, given in parse_set(list(values.texts("set_"))).items():
        if name in chosen and chosen[name].by_flag:
            raise UsageError(f"{chosen[name].origin} and {given.origin} say the same thing twice")
        chosen[name] = given
    return chosen


def n_samples_of(values: Values) -> int:
    """Raises UsageError for a number that is out of its bounds, or has no meaning without a temperature."""
    n_samples = values.number("samples", 1, MAX_SAMPLES) or 1
    if n_samples > 1 and values.given("temperature") is None:
        raise UsageError("--samples above 1 needs -t: greedy replies would all be the same")
    return n_samples


def choices_of(values: Values) -> tuple[str, ...]:
    """The answers that are allowed: those of one flag are split, as they stand with --raw. Raises
    UsageError for no choices, and for what has no meaning beside them."""
    given = values.texts("choices")
    if not given:
        return ()
    unused = ("seed", "samples", "max_tokens", "stop", "logprobs", "reasoning_budget")
    others = [values.given(name) for name in unused]
    for other in (*sampling_of(values).values(), *others):
        if other is not None and other.by_flag:
            raise UsageError(
                f"{other.origin} has no meaning beside --choices: nothing is sampled", "leave it out"
            )
    from infer_cli.answering.choosing import check_choices

    if len(given) == 1:
        parts = given[0].split(",")
        given = tuple(parts if values.is_set("raw") else (part.strip() for part in parts))
    check_choices(given, values.origin("choices"))
    return given


def template_settings(values: Values, pairs: tuple[str, ...]) -> list[Setting]:
    """A chat template of the user's own and its variables, where there are any."""
    template = values.text("chat_template")
    found = [] if template is None else [values.setting("chat_template", os.path.abspath(template))]
    return [*found, values.setting("var", list(pairs))] if pairs else found


def _cache_bytes(values: Values) -> int | None:
    text = values.text("cache_size")
    return None if text is None else parse_size(text, values.origin("cache_size"))


def _max_tokens(values: Values) -> int:
    """-1 is what others write for all that the window holds."""
    n = values.whole("max_tokens")
    if n == -1:
        return MOST_TOKENS
    if n is not None and n < 1:
        raise UsageError(
            f"{values.origin('max_tokens')} {n} is not above 0", "-1 is as many tokens as the window holds"
        )
    return values.number("max_tokens", 1, MOST_TOKENS) or MAX_TOKENS


def _thinking(values: Values) -> ThinkingParams:
    """A text that is completed has no template that could be told. Raises UsageError."""
    if values.is_set("raw"):
        for given in (values.given("think"), values.given("reasoning_budget")):
            if given is not None and given.by_flag:
                flag = "--no-think" if given.value is False else given.origin
                raise UsageError(f"{values.origin('raw')} and {flag} exclude each other")
        return TEMPLATE_DECIDES
    return ThinkingParams(values.truth("think"), values.number("reasoning_budget", 0, MOST_TOKENS))


def _seed(values: Values) -> RunSeed | None:
    n = values.whole("seed")
    origin = values.origin("seed")
    return None if n is None else RunSeed(check_seed(n, origin), origin)
