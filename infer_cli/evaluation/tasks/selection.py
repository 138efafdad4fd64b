"""What the command line says of a task's items: where its data is, which of it, and how it is asked."""

from __future__ import annotations

from dataclasses import dataclass

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.task import Fewshot, Task


@dataclass(frozen=True)
class Selection:
    """None and empty: what the task says; of `ids`, all. `limit`: the first so many of these. `offline`: data
    is not fetched."""

    data: str | None = None
    limit: int | None = None
    ids: tuple[str, ...] = ()
    n_fewshot: int | None = None
    fewshot_seed: int | None = None
    seeds: tuple[int, ...] = ()
    chat: bool | None = None
    offline: bool = False


def check_selection(task: Task, selection: Selection) -> None:
    """Raises UsageError for what has no meaning for a task of this kind."""
    kind = task.kind
    if selection.seeds and kind != "generate":
        raise UsageError(f"--seeds has no meaning for {task.name}: a task of the kind {kind} samples nothing")
    if task.fewshot is None and (selection.n_fewshot or selection.fewshot_seed is not None):
        raise UsageError(f"the task {task.name} has no [fewshot]", "leave out --fewshot, or write the table")
    if selection.fewshot_seed is not None and task.fewshot is not None and task.fewshot.draw == "fixed":
        raise UsageError(
            f"--fewshot-seed has no meaning for {task.name}: its examples are fixed",
            'write draw = "seeded" into its [fewshot]',
        )
    if selection.chat is not None and kind in ("minimal_pairs", "perplexity"):
        raise UsageError(f"a task of the kind {kind} asks nothing of a chat template", "leave the flag out")
    if not is_chat(task, selection):
        for key, given in (("messages", task.prompt.messages), ("system", task.prompt.system)):
            if given:
                raise UsageError(f"the task {task.name} needs the chat template: it has [prompt] {key}")


def is_chat(task: Task, selection: Selection) -> bool:
    """Whether the model's chat template is applied."""
    if task.kind in ("minimal_pairs", "perplexity"):
        return False
    return task.prompt.chat if selection.chat is None else selection.chat


def examples_asked(task: Task, selection: Selection) -> tuple[Fewshot, int, int] | None:
    """The examples' table, how many and the seed of the draw; None where there are none."""
    fewshot = task.fewshot
    if fewshot is None:
        return None
    n = fewshot.n if selection.n_fewshot is None else selection.n_fewshot
    seed = fewshot.seed if selection.fewshot_seed is None else selection.fewshot_seed
    return (fewshot, n, seed) if n else None
