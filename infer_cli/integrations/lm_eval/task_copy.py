"""A task of the harness as a file of a run's folder: all that is needed to score answers again, and no data.

What is code is no part of it: it says where that is, and what it was.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import getsourcefile
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from infer_cli.errors import UsageError
from infer_cli.system.files import MOST_INPUT, read_regular
from infer_cli.system.hashing import sha256_hex

_VERSION = 1
# Of a task's values those that scores are made with, or texts of items.
_KEPT = (
    "task", "dataset_path", "dataset_name", "output_type", "doc_to_text", "doc_to_target", "doc_to_choice",
    "process_results", "use_prompt", "target_delimiter", "fewshot_delimiter", "metric_list",
    "generation_kwargs", "repeats", "filter_list", "gen_prefix", "description",
)  # fmt: skip


@dataclass(frozen=True)
class TaskCopy:
    """`values` are those of the task's configuration that are no code, `code` names the others, which are in
    `yaml`; `modules` are hashes of the files that these come from. `first_doc` decides what the harness takes
    for a list of answers. `place`: what is code, in words."""

    lm_eval: str
    version: str
    values: Mapping[str, Any]
    first_doc: Mapping[str, Any]
    yaml: str | None = None
    code: tuple[str, ...] = ()
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    place: str | None = None

    def as_text(self) -> str:
        value = {"version_of_file": _VERSION, **dataclasses.asdict(self)}
        return json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def copy_of(task: Any, first_doc: Mapping[str, Any], yaml: Path | None, place: str | None) -> TaskCopy:
    """Raises UsageError for a task of a class of its own, whose code can't be told from its values."""
    if type(task) is not ConfigurableTask:
        raise UsageError(
            f"the task {task.task_name} is a class of its own, {type(task).__name__}",
            "python -m infer_cli.integrations.lm_eval runs it",
        )
    config = dataclasses.asdict(task.config)
    code = tuple(name for name in _KEPT if any(map(callable, _leaves(config[name]))))
    functions = [leaf for name in code for leaf in _leaves(config[name]) if callable(leaf)]
    values = {name: config[name] for name in _KEPT if name not in code and config[name] is not None}
    return TaskCopy(
        lm_eval=lm_eval.__version__,
        version=str(task.VERSION),
        values=json.loads(json.dumps(values)),
        first_doc=first_doc,
        yaml=str(yaml.resolve()) if code and yaml is not None else None,
        code=code,
        modules=_hashes(functions),
        place=place,
    )


def read_copy(path: Path) -> TaskCopy:
    """Raises UsageError for a file that is none of ours."""
    try:
        value = json.loads(read_regular(path, MOST_INPUT))
        if value.pop("version_of_file") != _VERSION:
            raise ValueError("another version")
        value["code"] = tuple(value["code"])
        return TaskCopy(**value)
    except OSError as e:
        raise UsageError(f"{path} can't be read: {e.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise UsageError(f"{path} is no copy of a task of lm-evaluation-harness: {e}") from None


class _Docs(list[Mapping[str, Any]]):
    """One row, as the harness wants data: with the names of its fields."""

    @property
    def features(self) -> Mapping[str, object]:
        return self[0]


def task_of(copy: TaskCopy) -> tuple[Any, bool]:
    """The task again, without its data, and whether its code is what it was. It runs the code that the copy
    names. Raises UsageError where that is gone."""
    values = dict(copy.values)
    if copy.code and copy.yaml is not None:
        try:
            own = load_yaml(copy.yaml, resolve_func=True)
            values |= {name: own[name] for name in copy.code}
        except Exception as e:  # it runs a task's module
            text = " ".join(str(e).split())
            raise UsageError(
                f"the code of {copy.yaml} can't be read: {type(e).__name__}: {text[:200]}"
            ) from None
    docs = _Docs([copy.first_doc])
    own_data = {"test_split": "test", "custom_dataset": lambda **_: {"test": docs}}
    try:
        task = ConfigurableTask(config={**values, **own_data})
    except Exception as e:  # the harness asserts, and raises what its parts do
        text = " ".join(str(e).split())
        raise UsageError(f"the copy of the task can't be used: {type(e).__name__}: {text[:200]}") from None
    functions = [leaf for name in copy.code for leaf in _leaves(values[name]) if callable(leaf)]
    return task, _hashes(functions) == dict(copy.modules)


def _hashes(functions: Sequence[Callable[..., object]]) -> dict[str, str]:
    """Of the files that functions come from."""
    found = {path for function in functions if (path := getsourcefile(function)) is not None}
    return {path: sha256_hex(Path(path).read_bytes()) for path in sorted(found)}


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _leaves(each)
    else:
        yield value
