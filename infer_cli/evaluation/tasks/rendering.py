"""From a row of data to an item: what the model is asked, and what is right.

A function of the task, the selection, the row and its examples alone: who has these can make an item again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.doc import Doc, field_text
from infer_cli.evaluation.tasks.item import Item
from infer_cli.evaluation.tasks.pieces import pieces_of
from infer_cli.evaluation.tasks.selection import Selection, is_chat
from infer_cli.evaluation.tasks.task import Task
from infer_cli.evaluation.tasks.templates import TaskTemplate, Templates, message_key, templates_of

Turn = Mapping[str, str]  # role and content


class _Right(NamedTuple):
    """What is right of an item, as `Item` has it."""

    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    gold: int | None = None


class _ShownExample(NamedTuple):
    """An example's question, a text or turns, and its answer."""

    doc: Doc
    question: str | list[Turn]
    answer: str


class ItemRenderer:
    """Makes items of a task. Raises UsageError naming file, table, key and row for what a row lacks."""

    def __init__(self, task: Task, selection: Selection) -> None:
        self._task, self._selection = task, selection
        self._chat = is_chat(task, selection)
        self._templates = Templates(task)
        self._shown: dict[str, _ShownExample] = {}  # by id: many items are shown the same

    def check_templates(self) -> None:
        """Raises UsageError where one does not compile."""
        for template in templates_of(self._task):
            self._templates.check(template)

    def item(
        self, index: int, id_: str, doc: Doc, examples: Sequence[Mapping[str, object]], where: str
    ) -> Item:
        """`examples`: those that it is shown, in their order, each with its `id` and `doc`."""
        right = self._right(doc, where)
        data, file = self._task.data, self._task.path
        return Item(
            index=index,
            id=id_,
            doc=doc,
            rows=tuple(self._rows(id_, doc, right, examples, where)),
            references=right.references,
            choices=right.choices,
            gold=right.gold,
            group=None if data.group is None else field_text(doc, data.group, where, f"{file}: [data] group"),
            cluster=None
            if data.cluster is None
            else field_text(doc, data.cluster, where, f"{file}: [data] cluster"),
            fewshot=tuple(str(example["id"]) for example in examples),
        )

    def question(self, doc: Doc, where: str) -> object:
        """What a row asks without its examples: two rows that ask the same are one question."""
        question: list[object] = [self._turns(doc, where) if self._chat else self._text(doc, where)]
        if self._task.kind == "choice":
            question.append(self._choices(doc, where))
        return question

    # --- what is asked ---------------------------------------------------------------------------

    def _rows(
        self,
        id_: str,
        doc: Doc,
        right: _Right,
        examples: Sequence[Mapping[str, object]],
        where: str,
    ) -> list[dict[str, object]]:
        kind = self._task.kind
        if kind == "perplexity":
            pieces = pieces_of(self._text_of("text", doc, where))
            befores = ["", *pieces]
            asked: list[dict[str, object]] = [
                {"context": befores[i], "continuation": piece} for i, piece in enumerate(pieces)
            ]
        elif kind == "minimal_pairs":
            asked = [{"context": "", "continuation": text} for text in right.choices]
        else:
            question = self._question(doc, examples, where)
            if kind == "generate":
                return self._seeded(id_, question)
            between = "" if self._chat else self._task.answer.delimiter
            asked = [{**question, "continuation": between + text} for text in right.choices]
        if len(asked) == 1:
            return [{"custom_id": id_, **asked[0]}]
        return [{"custom_id": f"{id_}/{i}", **row} for i, row in enumerate(asked)]

    def _seeded(self, id_: str, question: Mapping[str, object]) -> list[dict[str, object]]:
        seeds = self._selection.seeds
        if not seeds:
            return [{"custom_id": id_, **question}]
        return [{"custom_id": f"{id_}@{seed}", **question, "seed": seed} for seed in seeds]

    def _question(self, doc: Doc, examples: Sequence[Mapping[str, object]], where: str) -> dict[str, object]:
        """The keys of a row that hold the prompt."""
        shown = [self._shown_example(example) for example in examples]
        if self._chat:
            return self._conversation(doc, shown, where)
        delimiter, fewshot = self._task.answer.delimiter, self._task.fewshot
        parts = [f"{example.question}{delimiter}{example.answer}" for example in shown]
        separator = "" if fewshot is None else fewshot.separator
        text = separator.join([*parts, self._text(doc, where)])
        if self._task.kind != "generate":
            return {"context": text}
        if not text.strip():
            raise UsageError(f"{self._task.path}: [prompt] text: {where}: the prompt is empty")
        return {"prompt": text}

    def _shown_example(self, example: Mapping[str, object]) -> _ShownExample:
        id_, doc, fewshot = str(example["id"]), example["doc"], self._task.fewshot
        assert isinstance(doc, Mapping) and fewshot is not None
        known = self._shown.get(id_)
        if known is None or known.doc != doc:
            where = f"the example {id_!r:.60}"
            answer = self._templates.filled(TaskTemplate("[fewshot] answer", fewshot.answer), doc, where)
            question = self._turns(doc, where) if self._chat else self._text(doc, where)
            known = self._shown[id_] = _ShownExample(doc, question, answer)
        return known

    def _conversation(self, doc: Doc, shown: Sequence[_ShownExample], where: str) -> dict[str, object]:
        turns: list[Turn] = []
        if self._task.prompt.system is not None:
            template = TaskTemplate("[prompt] system", self._task.prompt.system)
            turns.append({"role": "system", "content": self._templates.filled(template, doc, where)})
        for example in shown:
            assert not isinstance(example.question, str)
            # What the system is told stands once, at the beginning.
            turns += [turn for turn in example.question if turn["role"] != "system"]
            turns.append({"role": "assistant", "content": example.answer})
        turns = _system_first(turns, self._turns(doc, where))
        if self._task.kind == "generate" and len(turns) == 1 and turns[0]["role"] == "user":
            return {"prompt": turns[0]["content"]}
        return {"messages": turns}

    def _turns(self, doc: Doc, where: str) -> list[Turn]:
        prompt = self._task.prompt
        if self._task.functions.prompt is not None:
            made = self._task.functions.prompt(doc)
            turns: list[Turn] = [{"role": "user", "content": made}] if isinstance(made, str) else [*made]
        elif prompt.messages:
            turns = []
            for number, message in enumerate(prompt.messages, 1):
                text = self._templates.text(message_key(number, message.content), doc, where)
                turns.append({"role": message.role, "content": text})
        else:
            turns = [{"role": "user", "content": self._text(doc, where)}]
        if not all(turn["content"].strip() for turn in turns):
            raise UsageError(f"{self._task.path}: [prompt]: {where}: a message is empty")
        return turns

    def _text(self, doc: Doc, where: str) -> str:
        if self._task.functions.prompt is not None:
            made = self._task.functions.prompt(doc)
            if not isinstance(made, str):
                raise UsageError(
                    f"{self._task.path}: prompt(): {where}: it gave messages, which need the chat template"
                )
            return made
        text = self._task.prompt.text
        return "" if text is None else self._templates.text(TaskTemplate("[prompt] text", text), doc, where)

    # --- what is right ---------------------------------------------------------------------------

    def _right(self, doc: Doc, where: str) -> _Right:
        kind = self._task.kind
        if kind == "generate":
            return _Right(self._references(doc, where))
        if kind == "choice":
            choices = self._choices(doc, where)
            gold = self._gold(choices, doc, where)
            return _Right((choices[gold],), choices, gold)
        if kind == "likelihood":
            text = self._text_of("continuation", doc, where)
            return _Right((text,), (text,))
        if kind == "minimal_pairs":
            good, bad = self._text_of("good", doc, where), self._text_of("bad", doc, where)
            if good == bad:
                raise UsageError(
                    f"{self._task.path}: [answer] bad: {where}: it is the same text as the good one"
                )
            return _Right((good,), (good, bad), 0)
        return _Right()

    def _text_of(self, key: str, doc: Doc, where: str) -> str:
        source = getattr(self._task.answer, key)
        return self._templates.filled(TaskTemplate(f"[answer] {key}", source), doc, where)

    def _references(self, doc: Doc, where: str) -> tuple[str, ...]:
        answer = self._task.answer
        if self._task.functions.references is not None:
            return self._task.functions.references(doc)
        if answer.reference_list is not None:
            return self._templates.texts(
                TaskTemplate("[answer] references", answer.reference_list), doc, where
            )
        made = (TaskTemplate("[answer] references", source) for source in answer.references)
        return tuple(self._templates.text(template, doc, where) for template in made)

    def _choices(self, doc: Doc, where: str) -> tuple[str, ...]:
        answer = self._task.answer
        key = "[answer] choices"
        if answer.choice_list is None:
            return tuple(
                self._templates.filled(TaskTemplate(key, each), doc, where) for each in answer.choices
            )
        choices = self._templates.texts(TaskTemplate(key, answer.choice_list), doc, where)
        if len(choices) < 2 or "" in choices:
            what = "a choice is empty" if "" in choices else "there is nothing to choose"
            raise UsageError(f"{self._task.path}: {key}: {where}: {what}")
        return choices

    def _gold(self, choices: tuple[str, ...], doc: Doc, where: str) -> int:
        source = self._task.answer.gold
        assert source is not None
        text = self._templates.text(TaskTemplate("[answer] gold", source), doc, where).strip()
        meant = {i for i, choice in enumerate(choices) if choice.strip() == text}
        if text.isascii() and text.isdigit() and len(text) < 4:
            meant.add(int(text))
        elif len(text) == 1 and text.isascii() and text.isalpha() and text.isupper():
            meant.add(ord(text) - ord("A"))
        meant &= set(range(len(choices)))
        if len(meant) == 1:
            return meant.pop()
        what = f"could mean the choices {_listed(meant)}" if meant else "is none of the choices"
        hint = "give the right one's place from 0, its letter from A, or its text"
        if meant:
            hint += ", the one that means no other: such as {{ 'ABCD'[place] }} where choices are numbers"
        raise UsageError(f"{self._task.path}: [answer] gold: {where}: {text!r:.60} {what}", hint)


def _listed(places: set[int]) -> str:
    return " and ".join(map(str, sorted(places)))


def _system_first(turns: list[Turn], last: Sequence[Turn]) -> list[Turn]:
    """The item's own turns after these; a system message that it begins with stands before all."""
    if turns and last and last[0]["role"] == "system":
        return [last[0], *turns, *last[1:]]
    return [*turns, *last]


def item_from(
    task: Task,
    selection: Selection,
    index: int,
    id_: str,
    doc: Doc,
    examples: Sequence[Mapping[str, object]],
) -> Item:
    """An item again, from its row and the examples that it was shown, in their order. Raises UsageError."""
    return ItemRenderer(task, selection).item(index, id_, doc, examples, f"item {id_!r:.60}")
