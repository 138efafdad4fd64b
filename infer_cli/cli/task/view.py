"""What `infer task` prints: the list of tasks, and the report of a check.

Items, prompts and answers are others' text: on a terminal it is shown without control sequences.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from infer_cli.cli.screen.table import Column, print_facts, print_table
from infer_cli.cli.screen.terminal import columns_of, is_coloured
from infer_cli.process.stream_filter import styled
from infer_cli.text.sanitize import Sanitizer, single_line

if TYPE_CHECKING:
    from infer_cli.evaluation.runs.sample import Sample
    from infer_cli.evaluation.task_check import ShownItem, TaskCheck, TokenCounts
    from infer_cli.evaluation.tasks.items import ItemSet
    from infer_cli.evaluation.tasks.task import Task

_MOST_NAME = 40  # columns; --json has all
_MOST_CHARS = 4000  # of a prompt that is shown; --json has all


def print_tasks(tasks: Sequence[Task]) -> None:
    """A table on a terminal; in a pipe name, version, kind and description with tabs between."""
    rows = [(task.name, task.version, task.kind, task.description) for task in tasks]
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(map(single_line, row)))
        return
    columns = (
        Column("task"),
        Column("version", rank=2),
        Column("kind", rank=1),
        Column("what", is_text=True),
    )
    print_table(columns, rows)


def write_tasks(tasks: Sequence[Task]) -> None:
    from infer_cli.text.json_text import json_text

    print(json_text([{**_told(task), "licence": task.licence, "citation": task.citation} for task in tasks]))


def print_check(task: Task, items: ItemSet, model: str, checked: TaskCheck) -> None:
    """The report for people."""
    facts = [
        ("task", f"{task.name}, version {task.version}: {task.kind}", ""),
        ("data", items.data_path, ""),
        ("items", f"{items.n}", ""),
        ("sha256", items.data_sha256, ""),
        ("model", model, ""),
        *((name, value, "") for name, value in _token_facts(checked.tokens, model)),
        *(("judge", f"{name}: it is not asked here", "") for name in checked.judges),
    ]
    print_facts([(name, single_line(value), origin) for name, value, origin in facts])
    for shown in checked.shown:
        _print_item(shown)


def write_check(task: Task, items: ItemSet, model: str, checked: TaskCheck) -> None:
    """The report as one JSON object, with nothing cut."""
    from infer_cli.answering.reply import json_line

    value = {
        "task": _told(task),
        "data": {"path": items.data_path, "sha256": items.data_sha256},
        "n_items": items.n,
        "model": model,
        "tokens": checked.tokens._asdict(),
        "judges": checked.judges,
        "items": [_item_object(shown) for shown in checked.shown],
    }
    sys.stdout.buffer.write(json_line(value))


def _told(task: Task) -> dict[str, object]:
    return {
        "name": task.name,
        "version": task.version,
        "kind": task.kind,
        "description": task.description,
    }


def _item_object(shown: ShownItem) -> dict[str, object]:
    item = shown.item
    return {
        "id": item.id,
        "group": item.group,
        "cluster": item.cluster,
        "references": item.references,
        "choices": item.choices,
        "gold": item.gold,
        "fewshot": item.fewshot,
        "prompts": [
            {"text": prompt.text, "continuation": prompt.continuation, "n_tokens": prompt.n_tokens}
            for prompt in shown.prompts
        ],
        "answers": [
            {
                "what": answer.what,
                "text": answer.sample.answer,
                "extracted": answer.sample.extracted,
                "outcome": answer.sample.outcome,
                "scores": answer.sample.scores,
                "explanations": answer.sample.explanations,
            }
            for answer in shown.answers
        ],
    }


def _token_facts(tokens: TokenCounts, model: str) -> list[tuple[str, str]]:
    facts = [("tokens", f"least {tokens.least}, median {tokens.median}, most {tokens.most}")]
    if tokens.window is None:
        return [*facts, ("window", f"{model} does not say how large it is")]
    if not tokens.n_too_long:
        return [*facts, ("window", f"{tokens.window}: all items fit")]
    more = ", …" if tokens.n_too_long > len(tokens.too_long) else ""
    named = ", ".join(map(_name, tokens.too_long)) + more
    do = "does" if tokens.n_too_long == 1 else "do"
    return [*facts, ("window", f"{tokens.window}: {tokens.n_too_long} {do} not fit ({named})")]


def _print_item(shown: ShownItem) -> None:
    item = shown.item
    bold, off = ("\x1b[1m", "\x1b[0m") if is_coloured(sys.stdout) else ("", "")
    told = [f"item {_name(item.id)}"]
    if item.group is not None:
        told.append(f"group {_name(item.group)}")
    if item.cluster is not None:
        told.append(f"cluster {_name(item.cluster)}")
    if item.fewshot:
        told.append(f"examples {', '.join(item.fewshot)}")
    heading = f"--- {single_line(' · '.join(told))} "
    styled(sys.stdout).write(f"\n{bold}{heading.ljust(columns_of(sys.stdout), '-')}{off}\n")
    _print_text(shown.prompts[0].text)
    if shown.answers:
        print()
        _print_answers(shown)
    else:
        _print_continuations(shown)


def _print_continuations(shown: ShownItem) -> None:
    """What likelihoods are asked of; of a text in pieces the first one."""
    item = shown.item
    prompts = shown.prompts if item.choices else shown.prompts[:1]
    for i, prompt in enumerate(prompts):
        what = "text" if item.gold is None else "right" if i == item.gold else "wrong"
        _print_text(f"[{what}] {prompt.continuation}")
    if len(prompts) < len(shown.prompts):
        print(f"… and {len(shown.prompts) - 1} more pieces")


def _print_text(text: str) -> None:
    if not text:
        return
    shown = text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"
    if sys.stdout.isatty():
        shown = Sanitizer().feed(shown)
    print(shown.removesuffix("\n"))


def _print_answers(shown: ShownItem) -> None:
    names = list(shown.answers[0].sample.scores)  # none where a judge gives all
    columns = (
        Column("answer"),
        Column("extracted", rank=len(names) + 1),
        *(Column(name, rank=i, right=True) for i, name in enumerate(names)),
        Column("text", rank=len(names) + 2, is_text=True),
    )
    print_table(columns, [_answer_row(answer.what, answer.sample, names) for answer in shown.answers])
    for answer in shown.answers:
        if answer.sample.outcome == "scorer_failed":
            reasons = "; ".join(answer.sample.explanations.values())
            print(single_line(f"{answer.what}: a scorer failed: {reasons}"))


def _answer_row(what: str, sample: Sample, names: Sequence[str]) -> list[str]:
    extracted = "-" if sample.extracted is None else _short(sample.extracted)
    scores = [_score(sample.scores, name) for name in names]
    return [what, extracted, *scores, sample.answer or ""]


def _score(scores: Mapping[str, float], name: str) -> str:
    return f"{scores[name]:.4g}" if name in scores else "-"


def _name(text: str) -> str:
    """Of an item, a group or a cluster."""
    return _short(text, _MOST_NAME)


def _short(text: str, columns: int = 20) -> str:
    from infer_cli.text.graphemes import shortened

    return shortened(single_line(text), columns)
