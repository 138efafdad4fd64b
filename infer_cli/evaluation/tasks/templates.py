"""A task's templates, rendered over a row in the process for untrusted templates (`prompt/renderer.py`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from infer_cli.batch.records import json_value
from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.doc import Doc, MissingField, named_fields
from infer_cli.evaluation.tasks.task import Task
from infer_cli.prompt.renderer import TemplateSource, shared
from infer_cli.prompt.template_errors import TemplateFailed, TemplateRaised

WHOLE_ROW = "doc"  # the name by which a template has all of a row
_MOST_REASON = 300  # characters
# A field and nothing else: where it is a text, that is what the template gives.
_FIELD = re.compile(r"\{\{\s*(?!(?:true|false|none)\b)(?P<name>[a-z_]\w*)\s*\}\}", re.ASCII)
_UNDEFINED = re.compile(r"'(?P<name>\w+)' is undefined")


class TaskTemplate(NamedTuple):
    """`key`: table and key, as errors name it."""

    key: str
    source: str


class Templates:
    """Renders templates of one task. A row's fields are names in a template, and `doc` is the row."""

    def __init__(self, task: Task) -> None:
        self._path = task.path
        self._renderer = shared()

    def check(self, template: TaskTemplate) -> None:
        """Raises UsageError naming file, table and key where it does not compile."""
        try:
            self._renderer.compile(TemplateSource(template.source, strict=True))
        except TemplateFailed as e:
            raise self._failed(template, "", e) from None

    def text(self, template: TaskTemplate, doc: Doc, where: str) -> str:
        """Raises UsageError naming file, table, key and row (`where`) where it fails."""
        if (field := _FIELD.fullmatch(template.source)) is not None:
            value = doc.get(field["name"])
            if isinstance(value, str):
                return value
        variables = {WHOLE_ROW: doc, **doc}
        try:
            text = self._renderer.render(TemplateSource(template.source, strict=True), variables)
            text.encode()
        except UnicodeEncodeError:
            raise self._wrong(template, where, "it gives half a surrogate pair, which is no text") from None
        except TemplateFailed as e:
            raise self._failed(template, where, e, doc) from None
        except TemplateRaised as e:
            raise self._wrong(template, where, f"it raised: {_one_line(str(e))}") from None
        return text

    def filled(self, template: TaskTemplate, doc: Doc, where: str) -> str:
        """As `text`, and an empty one is an error."""
        text = self.text(template, doc, where)
        if not text:
            raise self._wrong(template, where, "the text is empty")
        return text

    def texts(self, template: TaskTemplate, doc: Doc, where: str) -> tuple[str, ...]:
        """Of a template that gives a JSON array of strings."""
        text = self.text(template, doc, where)
        try:
            value = json_value(text.encode())
        except UsageError as e:
            raise self._wrong(
                template, where, e.message.replace("the line", "what it gives"), _LIST
            ) from None
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self._wrong(template, where, "what it gives is not a JSON array of strings", _LIST)
        return tuple(value)

    def _failed(
        self, template: TaskTemplate, where: str, error: TemplateFailed, doc: Doc | None = None
    ) -> UsageError:
        if doc is not None and (found := _UNDEFINED.fullmatch(error.reason)) and found["name"] not in doc:
            # The row comes first: with a task that others use too, it is the data that are not its own.
            return MissingField(
                f"{where} has no field {found['name']!r}, which is needed by {self._path}: {template.key}",
                f"it has {named_fields(list(doc))}",
            )
        line = "" if error.line is None else f" in line {error.line}"
        return self._wrong(template, where, f"the template fails{line}: {_one_line(error.reason)}")

    def _wrong(self, template: TaskTemplate, where: str, what: str, hint: str = "") -> UsageError:
        place = f"{self._path}: {template.key}: "
        return UsageError(f"{place}{where}: {what}" if where else place + what, hint)


_LIST = "write it as {{ choices | tojson }}, or give an array of templates"


def templates_of(task: Task) -> Iterator[TaskTemplate]:
    """All that a task has."""
    prompt, answer = task.prompt, task.answer
    named = [
        ("[prompt] text", prompt.text),
        ("[prompt] system", prompt.system),
        *(message_key(i, message.content) for i, message in enumerate(prompt.messages, 1)),
        *(("[answer] references", source) for source in answer.references),
        ("[answer] references", answer.reference_list),
        *(("[answer] choices", source) for source in answer.choices),
        ("[answer] choices", answer.choice_list),
        ("[answer] gold", answer.gold),
        ("[answer] continuation", answer.continuation),
        ("[answer] good", answer.good),
        ("[answer] bad", answer.bad),
        ("[answer] text", answer.text),
        ("[fewshot] answer", None if task.fewshot is None else task.fewshot.answer),
    ]
    return (TaskTemplate(key, source) for key, source in named if source is not None)


def message_key(number: int, source: str) -> TaskTemplate:
    return TaskTemplate(f"[[prompt.messages]] {number} content", source)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MOST_REASON]
