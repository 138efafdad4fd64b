"""The command line of `infer eval`, checked and typed. Knows no model and no task."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from infer_cli import __version__
from infer_cli.batch.job import MAX_WIDTH, Shard
from infer_cli.cli.flags.shared import read_asking
from infer_cli.cli.flags.values import Values
from infer_cli.engine.mode_policy import OF_JOBS
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.beginning import Invocation
from infer_cli.evaluation.runs.facts import INTERVALS, Scoring
from infer_cli.evaluation.runs.layout import PlannedRun, folder_name, plan_runs
from infer_cli.evaluation.runs.requests import DEFAULT_SEED, Asking
from infer_cli.evaluation.tasks.selection import Selection
from infer_cli.settings.defaults import MAX_SAMPLES, MOST_TOKENS
from infer_cli.settings.origins import Given, Setting
from infer_cli.system.files import MOST_INPUT, read_regular
from infer_cli.types import MAX_SEED

MOST_SEEDS = 100
MODEL_VARIABLE = "INFER_MODEL"


class Bound(NamedTuple):
    """`--fail-under METRIC=VALUE`."""

    metric: str
    value: float


@dataclass(eq=False, repr=False)
class EvalCommand:
    """What is asked for. `data` is each task's, where it was given. `settings` need no model to be known.
    `given` are parameters that were given by flag."""

    runs: Sequence[PlannedRun]
    data: Mapping[str, str]
    selection: Selection
    asking: Asking
    scoring: Scoring
    invocation: Invocation
    settings: Sequence[Setting]
    given: frozenset[str]
    bounds: Sequence[Bound]
    judge: str | None
    allow_code: bool
    retry_errors: bool
    offline: bool
    quiet: bool
    json: bool
    no_record: bool


def check(given: Mapping[str, Given]) -> EvalCommand:
    """The command line's values, typed. Raises UsageError for the first that is wrong."""
    values = Values(given)
    tasks, output = values.texts("tasks"), values.text("output")
    if not tasks:
        raise UsageError("which task?", "name one of `infer task list`, or a task's file")
    if output is None:
        raise UsageError("where does the run go?", "give -o DIR: a folder that holds all of it")
    values.exclude([("chat", "raw"), ("raw", "system"), ("raw", "chat_template")])
    one_model = {name: value for name, value in given.items() if name != "model"}  # here it may be several
    asking = read_asking(Values(one_model), overflow="error", mode=OF_JOBS)
    seed = DEFAULT_SEED if asking.seed is None else asking.seed.value
    n_seeds = values.number("seeds", 1, MOST_SEEDS)
    if seed + (n_seeds or 1) - 1 > MAX_SEED:
        raise UsageError(f"--seed {seed} leaves no room for {n_seeds} seeds", "give a smaller one")
    shard = values.text("shard")
    return EvalCommand(
        runs=plan_runs(tasks, models_of(values), Path(output)),
        data=data_of(values.texts("data"), tasks),
        selection=Selection(
            limit=values.number("limit", 1, MOST_TOKENS),
            ids=ids_of(values.text("ids")),
            n_fewshot=values.number("fewshot", 0, MOST_TOKENS),
            fewshot_seed=values.number("fewshot_seed", 0, MAX_SEED),
            seeds=() if n_seeds is None else tuple(range(seed, seed + n_seeds)),
            chat=True if values.is_set("chat") else False if values.is_set("raw") else None,
        ),
        asking=Asking(
            engine=asking.engine,
            parallel=values.number("parallel", 1, MAX_WIDTH),
            shard=Shard() if shard is None else Shard.parse(shard),
            redo=values.is_set("redo"),
            variables=asking.variables,
            chat_template=asking.chat_template,
            sampling=asking.sampling,
            seed=seed,
            n_samples=values.number("samples", 1, MAX_SAMPLES) or 1,
            max_tokens=asking.max_tokens if values.given("max_tokens") is not None else None,
            stop=asking.stop,
            deadline_s=asking.deadline_s,
            system=asking.system,
            thinking=asking.thinking,
        ),
        scoring=Scoring(
            exclude_errors=values.is_set("exclude_errors"),
            interval=values.one_of("interval", INTERVALS) or INTERVALS[0],
        ),
        invocation=Invocation(("infer", *sys.argv[1:]), __version__),
        settings=asking.settings,
        given=values.by_flag(),
        bounds=[bound_of(text) for text in values.texts("fail_under")],
        judge=values.text("judge"),
        allow_code=values.is_set("allow_code"),
        retry_errors=values.is_set("retry_errors"),
        offline=values.is_set("offline"),
        quiet=values.is_set("quiet"),
        json=values.is_set("json"),
        no_record=values.is_set("no_record"),
    )


def models_of(values: Values) -> Sequence[str | None]:
    """Of the flags, the variable or the settings, the first that is there."""
    if "model" in values.by_flag():
        return values.texts("model")
    if variable := os.environ.get(MODEL_VARIABLE):
        return (variable,)
    return values.texts("model") or (None,)


def data_of(texts: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    """By task. `PATH` is that of all tasks, `TASK=PATH` of one. Raises UsageError for two of one task."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        of = [task for task in tasks if equals and name in (task, folder_name(task))]
        for task in of or tasks:
            if task in found:
                raise UsageError(f"--data {text}: {task} has {found[task]} already", "write TASK=PATH")
            found[task] = path if of else text
    return found


def ids_of(text: str | None) -> tuple[str, ...]:
    """`a,b`, or `@FILE` with one a line."""
    if text is None:
        return ()
    if not text.startswith("@"):
        found = [each.strip() for each in text.split(",")]
    else:
        try:
            data = read_regular(text[1:], MOST_INPUT)
        except OSError as e:
            raise UsageError(f"--ids {text}: {e.strerror}", "name a file with an id a line") from None
        found = [line.strip() for line in data.decode(errors="replace").splitlines()]
    ids = tuple(each for each in found if each)
    if not ids:
        raise UsageError(f"--ids {text}: there is no id", "write --ids a,b or --ids @FILE")
    return ids


def bound_of(text: str) -> Bound:
    """`acc=0.40`."""
    metric, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not metric or not equals or not math.isfinite(value):
        raise UsageError(f"--fail-under {text!r} is not METRIC=VALUE", "write --fail-under acc=0.40")
    return Bound(metric.strip(), value)
