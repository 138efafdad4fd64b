"""The harness's tasks by their names: found by its own task manager, looked at for code, and loaded."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.group import Group
from lm_eval.api.metrics import mean
from lm_eval.api.registry import metric_registry
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.tasks import TaskManager

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.task_groups import GroupMetric, TaskGroup, TaskGroups
from infer_cli.evaluation.tasks.selection import Selection
from infer_cli.integrations.lm_eval.code_in_tasks import code_of_config, code_of_file
from infer_cli.integrations.lm_eval.harness_task import HarnessTask
from infer_cli.integrations.lm_eval.names import PREFIX
from infer_cli.integrations.lm_eval.sandboxed_templates import use_sandbox

_ALLOW = "read it; --allow-code runs it"
_OWN_COMMAND = "python -m infer_cli.integrations.lm_eval has all that the harness can do"


class Harness:
    """The tasks that names stand for: a task's, a group's or a tag's. Each name begins with `lm:`.

    `include` are folders with tasks' files, which go before the harness's own. Raises UsageError for a name
    that is not known, for code that is not allowed, which is then not run, and for what can't be loaded.
    """

    def __init__(self, names: Sequence[str], include: Sequence[str], *, allow_code: bool) -> None:
        for folder in include:
            if not Path(folder).is_dir():
                raise UsageError(f"--lm-include {folder}: there is no such folder")
        use_sandbox()
        random.seed(DEFAULT_RANDOM_SEED)  # the seeds of the harness's own command line
        np.random.seed(DEFAULT_OTHER_SEED)
        wanted = [name.removeprefix(PREFIX) for name in names]
        self._manager = _manager_of(wanted, include)
        self._code: dict[str, str] = {}
        for name in wanted:
            for leaf, place in self._code_of(name):
                if not allow_code:
                    raise UsageError(f"the task {leaf} is code: {place}", _ALLOW)
                self._code[leaf] = place
        self._tasks: dict[str, Any] = {}
        self._groups: dict[str, Group] = {}
        self._members: dict[str, tuple[str, ...]] = {}
        for given, name in zip(names, wanted, strict=True):
            tasks, groups = self._loaded(name)
            self._tasks |= tasks
            self._groups |= groups
            self._members[given] = tuple(tasks)

    @property
    def groups(self) -> TaskGroups:
        """What the names stood for, and the groups whose tasks have a score together."""
        return TaskGroups(self._members, tuple(map(_group, self._groups.values())))

    def task(self, name: str, given: str, selection: Selection) -> HarnessTask:
        """One of the members. Raises UsageError for a selection that it can't have."""
        return HarnessTask(self._tasks[name], given, selection, self._yaml(name), self._code.get(name))

    def _yaml(self, name: str) -> Path | None:
        entry = self._manager.task_index.get(name)
        return None if entry is None else entry.yaml_path

    def _loaded(self, name: str) -> tuple[dict[str, Any], dict[str, Group]]:
        try:
            found = self._manager.load([name])
        except Exception as e:  # a task is a program: whatever it raises is told
            text = " ".join(str(e).split())
            raise UsageError(
                f"the harness can't load {PREFIX}{name}: {type(e).__name__}: {text[:300]}",
                "are its data here? without --offline they are fetched",
            ) from None
        return found["tasks"], found.get("groups", {})

    def _code_of(self, name: str) -> Iterator[tuple[str, str]]:
        """Tasks below a name that are code, each with what of it is."""
        entry = self._manager.task_index[name]
        config = entry.cfg or {}
        if entry.yaml_path is None:  # a tag
            for each in sorted(entry.tags):
                yield from self._code_of(each)
            return
        place = f"class in {entry.yaml_path}" if "class" in config else code_of_file(entry.yaml_path)
        if place is None:
            place = code_of_config(config, metric_registry)
        if place is not None:
            yield name, place
        for member in _members(config.get("task")):
            if member in self._manager.task_index:
                yield from self._code_of(member)


def _manager_of(names: Sequence[str], include: Sequence[str]) -> TaskManager:
    """To read the harness's thousands of tasks takes long: where the folders have all that is asked for, they
    are left out."""
    folders = [str(folder) for folder in include]
    if folders:
        manager = TaskManager(include_path=folders, include_defaults=False)
        if all(_has(manager, name) for name in names):
            return manager
    manager = TaskManager(include_path=folders or None)
    for name in names:
        if name not in manager.task_index:
            raise UsageError(
                f"the harness has no task {name!r}",
                "`python -m infer_cli.integrations.lm_eval ls tasks` lists them; --lm-include adds yours",
            )
    return manager


def _has(manager: TaskManager, name: str) -> bool:
    entry = manager.task_index.get(name)
    if entry is None:
        return False
    below = sorted(entry.tags) if entry.yaml_path is None else _members((entry.cfg or {}).get("task"))
    return all(_has(manager, each) for each in below)


def _members(task: object) -> Iterator[str]:
    """Names in the `task` of a group's file; a task's own is its name."""
    if not isinstance(task, list):
        return
    for each in task:
        if isinstance(each, str):
            yield each
        elif isinstance(each, Mapping):
            name = each.get("group", each.get("task"))
            if isinstance(name, str):
                yield name
            yield from _members(each.get("task"))


def _group(group: Group) -> TaskGroup:
    metrics = []
    for asked in group.aggregate_metric_list or ():
        if asked.aggregation not in ("mean", mean):
            raise UsageError(
                f"the group {group.name} has a function of its own for {asked.metric}", _OWN_COMMAND
            )
        filters = None if asked.filter_list is None else tuple(asked.filter_list)
        metrics.append(GroupMetric(asked.metric, filters, bool(asked.weight_by_size)))
    return TaskGroup(group.name, tuple(task.task_name for task in group.get_all_tasks()), tuple(metrics))
