"""A task from its tables: those of a TOML file, or of a Python task's `TASK`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.data_format import FORMATS
from infer_cli.evaluation.tasks.table import Table
from infer_cli.evaluation.tasks.task import (
    TASK_KINDS,
    AnswerTemplates,
    DataSource,
    Draw,
    Extraction,
    ExtractionKind,
    Fewshot,
    Generation,
    MessageTemplate,
    PromptTemplates,
    ScorerSpec,
    Task,
    TaskFunctions,
    TaskKind,
    is_task_name,
)
from infer_cli.prompt.messages import ROLES
from infer_cli.settings.defaults import MOST_TOKENS
from infer_cli.settings.sampling import SAMPLING_NAMES, checked
from infer_cli.system.hashing import sha256_hex

MOST_EXAMPLES = 100  # of one item: far more than a window holds
# Keys of an extraction of each kind, beside `kind`.
_OF_EXTRACTION: Mapping[ExtractionKind, tuple[str, ...]] = {
    "whole": (),
    "regex": ("pattern", "group", "first"),
    "last_number": ("first",),
    "json_path": ("path", "first"),
    "code_block": ("language", "first"),
    "letter": ("letters", "first"),
}
_WITH_PROMPT: tuple[TaskKind, ...] = ("generate", "choice", "likelihood")
# The scorer that is a Python task's `score`, and what its score is called where no table says.
_FUNCTION, _OF_FUNCTION = "function", "score"
_OWN_NAME = "give each score a name of its own"


@dataclass(frozen=True)
class TaskSource:
    """Where tables come from. `shown` is what errors call it."""

    shown: str
    path: str
    text: str
    is_code: bool = False
    functions: TaskFunctions = field(default_factory=TaskFunctions)


def task_of(tables: object, source: TaskSource) -> Task:
    """Raises UsageError naming file, table and key for whatever is missing, wrong or unknown."""
    top = Table(source.shown, "", tables)
    kind = top.one_of("kind", TASK_KINDS)
    functions = source.functions
    if kind != "generate":
        for name in ("references", "extract", "score"):
            if getattr(functions, name) is not None:
                raise UsageError(f"{source.shown}: {name}() is for tasks of the kind generate, not {kind}")
    if functions.prompt is not None and kind not in _WITH_PROMPT:
        raise UsageError(f"{source.shown}: prompt() has no place in a task of the kind {kind}")
    name = top.needed_text("name")
    if not is_task_name(name):
        raise top.wrong(
            "name", f"can't be {name!r:.60}", "it is of letters, digits and _ . - and names a folder"
        )
    task = Task(
        name=name,
        version=top.needed_text("version", 'write one, such as version = "1": a score names it'),
        kind=kind,
        path=source.path,
        text=source.text,
        sha256=sha256_hex(source.text.encode("utf-8", "surrogatepass")),
        description=top.text("description") or "",
        is_code=source.is_code,
        data=_data(top, functions),
        prompt=_prompt(top, kind, functions),
        answer=_answer(top, kind, functions),
        fewshot=_fewshot(top, kind),
        generation=_generation(top, kind),
        extractions=_extractions(top, kind, functions),
        licence=top.text("licence") or "",
        citation=top.text("citation") or "",
        functions=functions,
        # Last: without any, a key that is left is the likelier mistake.
        scorers=_scorers(top, kind, functions),
    )
    top.end()
    return task


def _data(top: Table, functions: TaskFunctions) -> DataSource:
    table = top.table("data")
    if table is None:
        return DataSource()
    id_ = table.text_or_texts("id")
    source = DataSource(
        path=table.text("path", empty=False),
        format=None if not table.has("format") else table.one_of("format", FORMATS),
        id=(id_,) if isinstance(id_, str) else id_ or (),
        group=table.text("group", empty=False),
        cluster=table.text("cluster", empty=False),
    )
    if functions.items is not None and (source.path or source.format):
        raise table.wrong("path" if source.path else "format", "has no place beside items()")
    table.end()
    return source


def _prompt(top: Table, kind: TaskKind, functions: TaskFunctions) -> PromptTemplates:
    table = top.table("prompt")
    if table is None:
        if kind == "generate" and functions.prompt is None:
            raise top.missing("[prompt]", 'write text = "{{ question }}" below it')
        return PromptTemplates(chat=kind == "generate")
    if kind not in _WITH_PROMPT:
        raise top.wrong("[prompt]", f"has no place in a task of the kind {kind}", "its texts are in [answer]")
    text, messages = table.text("text"), _messages(table)
    prompt = PromptTemplates(
        text=text,
        messages=messages,
        system=table.text("system"),
        chat=table.flag("chat", default=kind == "generate" or bool(messages)),
    )
    table.end()
    if text is not None and messages:
        raise table.wrong("messages", "has no place beside text")
    if functions.prompt is not None and (text is not None or messages):
        raise table.wrong("text" if messages == () else "messages", "has no place beside prompt()")
    if functions.prompt is None and text is None and not messages and kind == "generate":
        raise table.missing("text", "write it, or messages")
    if not prompt.chat:
        for key, given in (("messages", messages), ("system", prompt.system)):
            if given:
                raise table.wrong(key, "needs the chat template", "leave out chat = false")
    return prompt


def _messages(prompt: Table) -> tuple[MessageTemplate, ...]:
    found = []
    for table in prompt.tables("messages"):
        found.append(MessageTemplate(table.one_of("role", sorted(ROLES)), table.needed_text("content")))
        table.end()
    return tuple(found)


def _answer(top: Table, kind: TaskKind, functions: TaskFunctions) -> AnswerTemplates:
    table = top.table("answer")
    if table is None:
        if kind != "generate":
            raise top.missing("[answer]", f"a task of the kind {kind} has one")
        return AnswerTemplates()
    if kind == "generate":
        references = table.text_or_texts("references")
        if references is not None and functions.references is not None:
            raise table.wrong("references", "has no place beside references()")
        is_list = isinstance(references, str)
        answer = AnswerTemplates(
            references=() if is_list else references or (),  # type: ignore[arg-type]
            reference_list=references if is_list else None,  # type: ignore[arg-type]
            delimiter=_delimiter(table, " "),
        )
    elif kind == "choice":
        choices = table.text_or_texts("choices")
        if choices is None:
            raise table.missing("choices", "an array of templates, or one template that gives a JSON array")
        if not isinstance(choices, str) and len(choices) < 2:
            raise table.wrong("choices", "has one template: there is nothing to choose")
        gold = table.needed_text("gold", "the right choice's place from 0, letter from A, or text")
        delimiter = _delimiter(table, " ")
        if isinstance(choices, str):
            answer = AnswerTemplates(choice_list=choices, gold=gold, delimiter=delimiter)
        else:
            answer = AnswerTemplates(choices=choices, gold=gold, delimiter=delimiter)
    elif kind == "likelihood":
        answer = AnswerTemplates(
            continuation=table.needed_text("continuation"), delimiter=_delimiter(table, "")
        )
    elif kind == "minimal_pairs":
        answer = AnswerTemplates(good=table.needed_text("good"), bad=table.needed_text("bad"))
    else:
        answer = AnswerTemplates(text=table.needed_text("text"))
    table.end()
    return answer


def _delimiter(table: Table, default: str) -> str:
    given = table.text("delimiter")
    return default if given is None else given


def _fewshot(top: Table, kind: TaskKind) -> Fewshot | None:
    table = top.table("fewshot")
    if table is None:
        return None
    if kind not in _WITH_PROMPT:
        raise top.wrong("[fewshot]", f"has no place in a task of the kind {kind}")
    separator = table.text("separator")
    draw: tuple[Draw, ...] = get_args(Draw)
    fewshot = Fewshot(
        answer=table.needed_text("answer", "the template of an example's answer"),
        n=table.whole("n", 0, 0, MOST_EXAMPLES),
        path=table.text("path", empty=False),
        draw=table.one_of("draw", draw, "fixed"),
        seed=table.whole("seed", 0, 0, 2**63 - 1),
        separator="\n\n" if separator is None else separator,
    )
    table.end()
    return fewshot


def _generation(top: Table, kind: TaskKind) -> Generation:
    table = top.table("generation")
    if table is None:
        return Generation()
    if kind != "generate":
        raise top.wrong("[generation]", f"has no place in a task of the kind {kind}: nothing is generated")
    sampling: dict[str, float] = {}
    for name in SAMPLING_NAMES:
        if (value := table.take(name)) is not None:
            try:
                sampling[name] = checked(name, value, table.name)
            except UsageError as e:
                raise UsageError(f"{top.file}: {e.message}") from None
    stop = table.texts("stop") or ()
    if "" in stop:
        raise table.wrong("stop", "has an empty string")
    max_tokens = table.whole("max_tokens", 0, 1, MOST_TOKENS)
    generation = Generation(sampling, max_tokens or None, stop, table.flag("cut_is_wrong", True))
    table.end()
    return generation


def _extractions(top: Table, kind: TaskKind, functions: TaskFunctions) -> tuple[Extraction, ...]:
    tables = top.tables("extraction")
    if tables and kind != "generate":
        raise top.wrong("[[extraction]]", f"has no place in a task of the kind {kind}")
    if tables and functions.extract is not None:
        raise top.wrong("[[extraction]]", "has no place beside extract()")
    return tuple(map(_extraction, tables))


def _extraction(table: Table) -> Extraction:
    kind = table.one_of("kind", tuple(_OF_EXTRACTION))
    keys = _OF_EXTRACTION[kind]
    values: dict[str, object] = {}
    for key in ("pattern", "path"):
        if key in keys:
            values[key] = table.needed_text(key)
    for key in ("language", "letters"):
        if key in keys and (text := table.text(key, empty=False)) is not None:
            values[key] = text
    if "group" in keys:
        values["group"] = table.whole("group", 1, 0, 99)
    if "first" in keys:
        values["first"] = table.flag("first", False)
    table.end()
    return Extraction(kind, **values)  # type: ignore[arg-type]


def _scorers(top: Table, kind: TaskKind, functions: TaskFunctions) -> tuple[ScorerSpec, ...]:
    tables = top.tables("scorer")
    if kind != "generate":
        if tables:
            raise top.wrong(
                "[[scorer]]", f"has no place in a task of the kind {kind}: it has its own metrics"
            )
        return ()
    specs: list[ScorerSpec] = []
    for table in tables:
        scorer_kind = table.needed_text("kind")
        name = table.text("name", empty=False) or scorer_kind
        if any(spec.name == name for spec in specs):
            raise table.wrong("name", f"{name!r:.60} is another score's too", _OWN_NAME)
        specs.append(ScorerSpec(scorer_kind, name, table.rest()))
    if functions.score is not None and not any(spec.kind == _FUNCTION for spec in specs):
        if any(spec.name == _OF_FUNCTION for spec in specs):
            raise top.wrong("[[scorer]]", f"has the name {_OF_FUNCTION}, which is that of score()", _OWN_NAME)
        specs.append(ScorerSpec(_FUNCTION, _OF_FUNCTION))
    if not specs:
        top.end()
        raise top.missing("[[scorer]]", "say how answers are scored")
    return tuple(specs)
