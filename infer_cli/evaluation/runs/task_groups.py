"""Groups of tasks: `groups.json` says which tasks a name stood for, and what they come to together."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.folder import check_inside
from infer_cli.evaluation.runs.results import Estimated, Results
from infer_cli.evaluation.statistics.intervals import Z
from infer_cli.system.files import MOST_INPUT, read_regular, write_atomic

GROUPS_FILE = "groups.json"
GROUPS_VERSION = 1
_OF_PROPORTIONS = ("wilson", "clopper-pearson")


@dataclass(frozen=True)
class GroupMetric:
    """`filters` None: all that the tasks have. `by_size`: a task counts as often as it has items."""

    metric: str
    filters: tuple[str, ...] | None
    by_size: bool


@dataclass(frozen=True)
class TaskGroup:
    """`tasks` are the names of all tasks below it; `metrics` may be none."""

    name: str
    tasks: tuple[str, ...]
    metrics: tuple[GroupMetric, ...]


@dataclass(frozen=True)
class GroupScore:
    group: str
    model: str
    metric: str
    score: Estimated


@dataclass(frozen=True)
class TaskGroups:
    """`members`: what each name of the command line stood for."""

    members: Mapping[str, tuple[str, ...]]
    groups: tuple[TaskGroup, ...]

    def write(self, folder: Path, scores: Sequence[GroupScore] = ()) -> None:
        """Into a folder of runs. Raises UsageError where a file of that name is none of ours, OSError."""
        check_inside(folder, folder / GROUPS_FILE)
        read_groups(folder)
        folder.mkdir(parents=True, exist_ok=True)
        value = {
            "version": GROUPS_VERSION,
            **asdict(self),
            "scores": [{**vars(score), "score": score.score.as_json()} for score in scores],
        }
        data = json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        write_atomic(folder / GROUPS_FILE, [data], durable=True)


def read_groups(folder: Path) -> TaskGroups | None:
    """None where there is no such file. Raises UsageError for one that is none of ours."""
    path = folder / GROUPS_FILE
    try:
        value = json.loads(read_regular(path, MOST_INPUT))
        if value["version"] != GROUPS_VERSION:
            raise ValueError("another version")
        return TaskGroups(
            {str(name): tuple(map(str, tasks)) for name, tasks in value["members"].items()},
            tuple(
                TaskGroup(
                    str(group["name"]),
                    tuple(map(str, group["tasks"])),
                    tuple(
                        GroupMetric(
                            str(each["metric"]),
                            None if each["filters"] is None else tuple(map(str, each["filters"])),
                            bool(each["by_size"]),
                        )
                        for each in group["metrics"]
                    ),
                )
                for group in value["groups"]
            ),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise UsageError(f"{path} can't be read: {e.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{path} is not what `infer eval` wrote", "name another folder with -o") from None


def forget_groups(folder: Path) -> None:
    """Of a folder that has runs of single tasks now. Raises UsageError as `read_groups`, OSError."""
    if read_groups(folder) is not None:
        (folder / GROUPS_FILE).unlink()


def score_groups(folder: Path, found: Sequence[Results]) -> list[GroupScore]:
    """What the groups of a folder of runs come to, which is written there too; nothing where it has none."""
    groups = read_groups(folder)
    if groups is None:
        return []
    scores = group_scores(groups, found)
    groups.write(folder, scores)
    return scores


def group_scores(groups: TaskGroups, found: Sequence[Results]) -> list[GroupScore]:
    """Of each model. Tasks that lack a metric are left out of its mean, which a note says."""
    scores = []
    for model in dict.fromkeys(results.model for results in found):
        own = {results.task_name: results for results in found if results.model == model}
        for group in groups.groups:
            there = [own[name] for name in group.tasks if name in own]
            for asked in group.metrics:
                for name in _names(asked, there):
                    score = _mean(name, there, by_size=asked.by_size)
                    scores.append(GroupScore(group.name, model.name, name, score))
    return scores


def _names(asked: GroupMetric, tasks: Sequence[Results]) -> list[str]:
    """`metric,filter`."""
    if asked.filters is not None:
        return [f"{asked.metric},{each}" for each in asked.filters]
    start = f"{asked.metric},"
    return sorted({s.metric for task in tasks for s in task.scores if s.metric.startswith(start)})


def _mean(name: str, tasks: Sequence[Results], *, by_size: bool) -> Estimated:
    """The tasks are these and no sample of others: the spread is that of their items. Values, not items, are
    weighed, so that the number is that of the program whose group it is."""
    scores = [score.score for task in tasks if (score := task.score(name)) is not None]
    n = sum(score.n for score in scores)
    values = [score.value for score in scores if score.value is not None]
    errors = [score.stderr for score in scores if score.stderr is not None]
    if not scores or len(values) < len(scores):
        return Estimated(None, None, None, None, n, None, f"{len(scores) - len(values)} tasks have no value")
    weights = [score.n / n for score in scores] if by_size else [1 / len(scores)] * len(scores)
    value = (
        math.fsum(v * score.n for v, score in zip(values, scores, strict=True)) / n
        if by_size
        else math.fsum(values) / len(values)
    )
    without = len(tasks) - len(scores)
    note = f"{without} of {len(tasks)} tasks have no such metric" if without else None
    if len(errors) < len(scores):
        return Estimated(value, None, None, None, n, None, note or "a task has no standard error")
    error = math.sqrt(math.fsum((w * e) ** 2 for w, e in zip(weights, errors, strict=True)))
    lo, hi = value - Z * error, value + Z * error
    if all(score.method in _OF_PROPORTIONS for score in scores):
        lo, hi = max(lo, 0.0), min(hi, 1.0)
    return Estimated(value, error, (lo, hi), "normal", n, None, note)
