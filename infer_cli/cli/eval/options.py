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
from infer_cli.evaluation.runs.task_groups import TaskGroups
from infer_cli.evaluation.tasks.selection import Selection
from infer_cli.integrations.lm_eval.names import PREFIX, is_harness_task
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
    `given` are parameters that were given by flag. `lm_include` are folders of the harness's tasks."""

    tasks: Sequence[str]
    models: Sequence[str | None]
    output: Path
    lm_include: Sequence[str]
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

    @property
    def harness_tasks(self) -> list[str]:
        """Those that are lm-evaluation-harness's, as they were given."""
        return list(filter(is_harness_task, self.tasks))

    def runs(self, groups: TaskGroups | None) -> list[PlannedRun]:
        """`groups` say which tasks a name stands for, where it is not a task's."""
        members = {} if groups is None else groups.members
        tasks = [
            task if name == task else PREFIX + task
            for name in self.tasks
            for task in members.get(name, (name,))
        ]
        return plan_runs(tasks, self.models, self.output)


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
    data = data_of(values.texts("data"), tasks)
    _check_harness(tasks, values, data)
    return EvalCommand(
        tasks=tasks,
        models=models_of(values),
        output=Path(output),
        lm_include=values.texts("lm_include"),
        data=data,
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


def _check_harness(tasks: Sequence[str], values: Values, data: Mapping[str, str]) -> None:
    """Raises UsageError for what a task of the harness says itself, or has no place for."""
    theirs = next(filter(is_harness_task, tasks), None)
    if theirs is None:
        if values.texts("lm_include"):
            raise UsageError("--lm-include is for tasks lm:NAME", "name one, or leave it out")
        return
    for name, hint in (
        ("samples", "its own way is `repeats` in the task's file"),
        ("seeds", "its own way is `repeats` in the task's file"),
        ("system", "python -m infer_cli.integrations.lm_eval has --system_instruction"),
    ):
        if values.given(name) is not None:
            raise UsageError(f"--{name} has no meaning for {theirs}, a task of lm-evaluation-harness", hint)
    if theirs in data:
        raise UsageError(
            f"--data has no meaning for {theirs}: its file names its data",
            "write --data TASK=PATH for another",
        )


def models_of(values: Values) -> Sequence[str | None]:
    """Of the flags, the variable or the settings, the first that is there. Raises UsageError for one that is
    named twice."""
    if "model" in values.by_flag():
        models = values.texts("model")
        if again := next((name for i, name in enumerate(models) if name in models[:i]), None):
            raise UsageError(
                f"the model {again} is named twice",
                "name each model once; -o OTHER makes a second run, --seeds N several replies to each item",
            )
        return models
    if variable := os.environ.get(MODEL_VARIABLE):
        return (variable,)
    return values.texts("model") or (None,)


def data_of(texts: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    """By task. `PATH` is that of all tasks, `TASK=PATH` of one. Raises UsageError for two of one task."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        of = [task for task in tasks if equals and name in (task, folder_name(task))]
        for task in dict.fromkeys(of or tasks):
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
