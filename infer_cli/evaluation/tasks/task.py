"""A task: where items come from, what a model is asked of each, and how its answers are scored."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.data_format import DataFormat

TaskKind = Literal["generate", "choice", "likelihood", "minimal_pairs", "perplexity"]
TASK_KINDS: tuple[TaskKind, ...] = ("generate", "choice", "likelihood", "minimal_pairs", "perplexity")
ExtractionKind = Literal["whole", "regex", "last_number", "json_path", "code_block", "letter"]
Draw = Literal["fixed", "seeded"]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def is_task_name(name: str) -> bool:
    """Whether a task of ours may be called so."""
    return _NAME.fullmatch(name) is not None


def is_part_of_file_names(name: str) -> bool:
    """Whether a task of another program, which has its own rule for names, can be in the name of a file."""
    return name.isprintable() and name != "" and not set(name) & set("/\\")


@dataclass(frozen=True)
class DataSource:
    """`path` is a file or a folder, relative to the task's file, or `hf:OWNER/NAME/FILE`; None: the user's
    matter (`--data`). `id`, `group` and `cluster` name fields of a row; of several fields an id has all, with
    `-` between."""

    path: str | None = None
    format: DataFormat | None = None  # told by the file's name
    id: tuple[str, ...] = ()  # the number of the row
    group: str | None = None
    cluster: str | None = None


@dataclass(frozen=True)
class MessageTemplate:
    role: str
    content: str


@dataclass(frozen=True)
class PromptTemplates:
    """Templates (Jinja, in the sandbox of chat templates) over the fields of a row. Either `text` or
    `messages`. `chat`: the model's chat template is applied; otherwise the text is completed as it is."""

    text: str | None = None
    messages: tuple[MessageTemplate, ...] = ()
    system: str | None = None
    chat: bool = True


@dataclass(frozen=True)
class AnswerTemplates:
    """What is right, as templates: those of the task's kind are set, the others are not.

    - `references` (generate): each gives a correct answer; `reference_list`: one that gives a JSON array.
    - `choices`, or `choice_list` (choice), with `gold`: the place from 0, a letter from A, or the text of the
      right one.
    - `continuation` (likelihood), `good` and `bad` (minimal_pairs), `text` (perplexity).

    `delimiter` stands between a question and what follows it, where no chat template is applied.
    """

    references: tuple[str, ...] = ()
    reference_list: str | None = None
    choices: tuple[str, ...] = ()
    choice_list: str | None = None
    gold: str | None = None
    continuation: str | None = None
    good: str | None = None
    bad: str | None = None
    text: str | None = None
    delimiter: str = " "


@dataclass(frozen=True)
class Fewshot:
    """Examples before the question: `n` of them. `path` None: the task's own data, without the item itself.
    `answer` is the template of an example's answer. `separator` stands between examples of a text."""

    answer: str
    n: int = 0
    path: str | None = None
    draw: Draw = "fixed"  # the first n, or n of all by the seed and the item's id (`fewshot.py`)
    seed: int = 0
    separator: str = "\n\n"


@dataclass(frozen=True)
class Generation:
    """How replies are made where the command line says nothing. `cut_is_wrong` False: a reply that the limit
    ended is scored as it is."""

    sampling: Mapping[str, float] = field(default_factory=dict)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    cut_is_wrong: bool = True


@dataclass(frozen=True)
class Extraction:
    """What is looked for in a reply. `pattern` and `group` are of `regex`, `path` of `json_path`, `language`
    of `code_block`, `letters` of `letter` (`ABCD`). `first`: the first match, else the last."""

    kind: ExtractionKind = "whole"
    pattern: str | None = None
    group: int = 1
    path: str | None = None
    language: str | None = None
    letters: str = "ABCD"
    first: bool = False


@dataclass(frozen=True)
class ScorerSpec:
    """One scorer: its kind, the name of its score, and what else its table says."""

    kind: str
    name: str
    options: Mapping[str, object] = field(default_factory=dict)


class TaskCodeFailed(UsageError):
    """A function of a Python task raised an exception, or gave what it may not."""


@dataclass(frozen=True)
class TaskFunctions:
    """What a Python task does itself: None is what its tables say. All raise TaskCodeFailed.

    - `items`: rows of data, again and again.
    - `prompt`: of a row, a text or messages.
    - `references`: correct answers of a row.
    - `extract`: what of a reply is the answer, None where there is none; the row is given too.
    - `score`: a finite number for what was extracted, and the row.
    """

    items: Callable[[], Iterable[Mapping[str, object]]] | None = None
    prompt: Callable[[Mapping[str, object]], str | tuple[Mapping[str, str], ...]] | None = None
    references: Callable[[Mapping[str, object]], tuple[str, ...]] | None = None
    extract: Callable[[str, Mapping[str, object]], str | None] | None = None
    score: Callable[[str, Mapping[str, object]], float] | None = None


@dataclass(frozen=True)
class Task:
    """`extractions` are tried in their order. `text` is the file's own, `path` where it was; `is_code`: it is
    a Python module, which has `functions`. `sha256` is of the file."""

    name: str
    version: str
    kind: TaskKind
    path: str
    text: str
    sha256: str
    description: str = ""
    is_code: bool = False
    data: DataSource = field(default_factory=DataSource)
    prompt: PromptTemplates = field(default_factory=PromptTemplates)
    answer: AnswerTemplates = field(default_factory=AnswerTemplates)
    fewshot: Fewshot | None = None
    generation: Generation = field(default_factory=Generation)
    extractions: tuple[Extraction, ...] = ()
    scorers: tuple[ScorerSpec, ...] = ()
    functions: TaskFunctions = field(default_factory=TaskFunctions)
    licence: str = ""
    citation: str = ""  # BibTeX of the task's data
