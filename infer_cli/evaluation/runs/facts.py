"""What a run was begun with: `run.json`. All that can't be computed from the folder's other files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.task import TASK_KINDS, TaskKind, is_part_of_file_names, is_task_name
from infer_cli.system.files import MOST_INPUT, read_regular, write_atomic

RUN_VERSION = 1
Interval = Literal["wilson", "clopper-pearson"]
INTERVALS: tuple[Interval, ...] = get_args(Interval)
OWN_SOURCE = "task"


@dataclass(frozen=True)
class TaskFacts:
    """`given` is what the command line called it, `sha256` of its file, `template_sha256` of all its
    templates. `source` says what reads the copy in the folder: `OWN_SOURCE` is a task file of ours."""

    name: str
    version: str
    kind: TaskKind
    sha256: str
    template_sha256: str
    given: str
    description: str = ""
    is_code: bool = False
    licence: str = ""
    citation: str = ""
    source: str = OWN_SOURCE


@dataclass(frozen=True)
class DataFacts:
    """`n_all` rows are in the file or folder at `path`."""

    path: str
    sha256: str
    n_all: int


@dataclass(frozen=True)
class SelectionFacts:
    """Which items, and how they became prompts. `fewshot` examples before each, drawn by `fewshot_seed`.
    `seeds` are empty where replies are made once. `chat`: by the model's chat template."""

    limit: int | None = None
    ids: tuple[str, ...] = ()
    fewshot: int = 0
    fewshot_seed: int | None = None
    seeds: tuple[int, ...] = ()
    chat: bool = False


@dataclass(frozen=True)
class GenerationFacts:
    """How replies are made where the command line says nothing."""

    sampling: Mapping[str, float] = field(default_factory=dict)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scoring:
    """How scores are summed up: no answer depends on it. `bootstrap_seed` is that of the resamples."""

    exclude_errors: bool = False
    interval: Interval = "wilson"
    bootstrap_seed: int = 0


@dataclass(frozen=True)
class RunFacts:
    """`files` are hashes of the folder's items, requests and examples, by file name."""

    task: TaskFacts
    data: DataFacts
    selection: SelectionFacts
    generation: GenerationFacts
    scoring: Scoring
    files: Mapping[str, str]
    n_items: int
    command: tuple[str, ...]
    infer: str
    began_at: str
    libraries: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, object] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        value = {"version": RUN_VERSION, **asdict(self)}
        write_atomic(path, [json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"], durable=True)

    def differences(self, now: RunFacts) -> list[str]:
        """What decides the prompts and answers and is another in `now`, in words: `limit was 20, is 40`."""
        found = []
        if self.task.name != now.task.name:
            found.append(f"the task was {self.task.name}, is {now.task.name}")
        elif self.task.sha256 != now.task.sha256:
            found.append(f"the file of task {now.task.name} has changed")
        if self.data.sha256 != now.data.sha256:
            found.append(f"the data in {now.data.path} have changed")
        return found + _unlike(asdict(self.selection), asdict(now.selection))

    def differences_of_asking(self, now: RunFacts) -> list[str]:
        """What else was asked for of answers and scores, in the same words."""
        return [
            *_unlike(asdict(self.generation), asdict(now.generation)),
            *_unlike(asdict(self.scoring), asdict(now.scoring)),
        ]


def read_facts(path: Path) -> RunFacts:
    """Raises UsageError for a file that is none of ours, naming the value that is wrong."""
    try:
        value = json.loads(read_regular(path, MOST_INPUT))
    except FileNotFoundError:
        raise UsageError(
            f"{path.parent} is no directory of a run of `infer eval`: it has no {path.name}",
            "name the directory that was given with -o",
        ) from None
    except OSError as e:
        raise UsageError(f"{path} can't be read: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise UsageError(f"{path} can't be read: {e}") from None
    if not isinstance(value, dict) or value.get("version") != RUN_VERSION:
        raise UsageError(f"{path} was not written by this version of infer")
    return _Reader(path).facts(value)


class _Reader:
    """Values of a file that may be anyone's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def facts(self, value: Mapping[str, object]) -> RunFacts:
        task, data = self._object(value, "task"), self._object(value, "data")
        selection, scoring = self._object(value, "selection"), self._object(value, "scoring")
        kind, interval = self._text(task, "kind"), self._text(scoring, "interval")
        name, is_ours = self._text(task, "name"), self._text(task, "source") == OWN_SOURCE
        if not (is_task_name(name) if is_ours else is_part_of_file_names(name)):
            raise self._wrong("task.name")
        if kind not in TASK_KINDS:
            raise self._wrong("task.kind")
        if interval not in INTERVALS:
            raise self._wrong("scoring.interval")
        generation = self._object(value, "generation")
        sampling, most = self._object(generation, "sampling"), generation.get("max_tokens")
        limit, fewshot_seed = selection.get("limit"), selection.get("fewshot_seed")
        return RunFacts(
            task=TaskFacts(
                **{
                    name: self._text(task, name)
                    for name in (
                        "name", "version", "sha256", "template_sha256", "given", "description", "licence",
                        "citation", "source",
                    )
                },
                kind=kind,
                is_code=self._bool(task, "is_code"),
            ),
            data=DataFacts(
                self._text(data, "path"), self._text(data, "sha256"), self._whole(data, "n_all")
            ),
            selection=SelectionFacts(
                None if limit is None else self._whole(selection, "limit"),
                self._texts(selection, "ids"),
                self._whole(selection, "fewshot"),
                None if fewshot_seed is None else self._whole(selection, "fewshot_seed"),
                tuple(self._whole({"seeds": seed}, "seeds") for seed in self._list(selection, "seeds")),
                self._bool(selection, "chat"),
            ),
            generation=GenerationFacts(
                {name: self._number(sampling, name) for name in sampling},
                None if most is None else self._whole(generation, "max_tokens"),
                self._texts(generation, "stop"),
            ),
            scoring=Scoring(
                self._bool(scoring, "exclude_errors"), interval, self._whole(scoring, "bootstrap_seed")
            ),
            files={name: str(sha256) for name, sha256 in self._object(value, "files").items()},
            n_items=self._whole(value, "n_items"),
            command=self._texts(value, "command"),
            infer=self._text(value, "infer"),
            began_at=self._text(value, "began_at"),
            libraries={name: str(text) for name, text in self._object(value, "libraries").items()},
            hardware=self._object(value, "hardware"),
        )  # fmt: skip

    def _wrong(self, name: str) -> UsageError:
        return UsageError(f"{self._path}: {name} is missing or wrong", "put back the file that the run wrote")

    def _object(self, value: Mapping[str, object], name: str) -> dict[str, object]:
        found = value.get(name)
        if not isinstance(found, dict):
            raise self._wrong(name)
        return found

    def _text(self, value: Mapping[str, object], name: str) -> str:
        found = value.get(name)
        if not isinstance(found, str):
            raise self._wrong(name)
        return found

    def _bool(self, value: Mapping[str, object], name: str) -> bool:
        found = value.get(name)
        if not isinstance(found, bool):
            raise self._wrong(name)
        return found

    def _whole(self, value: Mapping[str, object], name: str) -> int:
        found = value.get(name)
        if not isinstance(found, int) or isinstance(found, bool) or found < 0:
            raise self._wrong(name)
        return found

    def _number(self, value: Mapping[str, object], name: str) -> float:
        found = value.get(name)
        if not isinstance(found, (int, float)) or isinstance(found, bool):
            raise self._wrong(name)
        return found

    def _list(self, value: Mapping[str, object], name: str) -> list[object]:
        found = value.get(name)
        if not isinstance(found, list):
            raise self._wrong(name)
        return found

    def _texts(self, value: Mapping[str, object], name: str) -> tuple[str, ...]:
        found = self._list(value, name)
        if not all(isinstance(text, str) for text in found):
            raise self._wrong(name)
        return tuple(cast("Sequence[str]", found))


def _unlike(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    return [
        f"{name} was {_shown(value)}, is {_shown(after[name])}"
        for name, value in before.items()
        if value != after[name]
    ]


def _shown(value: object) -> str:
    if value is None:
        return "none"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
