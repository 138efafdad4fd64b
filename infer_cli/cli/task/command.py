"""`infer task`: the tasks that there are, and what one asks and how it scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from infer_cli.cli.flags import options as o

if TYPE_CHECKING:
    from infer_cli.process.worker import Worker

# Typer reads the signatures at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045

app = typer.Typer(help="Tasks of evaluations: list and check them.")


@app.command("list")
def list_tasks(
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON array, with licence and citation.")
    ] = False,
) -> None:
    """List the tasks that come with infer. Their data does not."""
    from infer_cli.cli.task.view import print_tasks, write_tasks
    from infer_cli.evaluation.tasks.loading import shipped_tasks

    tasks = shipped_tasks()
    if as_json:
        write_tasks(tasks)
    else:
        print_tasks(tasks)


@app.command()
def check(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="A shipped task's name, or a task's file (.toml, .py).")
    ],
    data: Annotated[
        Optional[str],
        typer.Option(
            "--data", metavar="PATH", help="The task's data: a file, a folder, or hf:OWNER/NAME/FILE."
        ),
    ] = None,
    model: o.Model = None,
    fewshot: Annotated[
        Optional[int],
        typer.Option(
            "--fewshot", metavar="N", min=0, help="Examples before each question (the task's number)."
        ),
    ] = None,
    fewshot_seed: Annotated[
        Optional[int],
        typer.Option("--fewshot-seed", metavar="N", min=0, help="Which examples are drawn (the task's)."),
    ] = None,
    allow_code: Annotated[
        bool,
        typer.Option("--allow-code", help="Run the code of a Python task, and scorers that run replies."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    offline: o.Offline = False,
) -> int:
    """Show how a task's items read, and how answers score. No weights are loaded."""
    from infer_cli.evaluation.tasks.selection import Selection
    from infer_cli.process.supervisor import supervise

    selection = Selection(data=data, n_fewshot=fewshot, fewshot_seed=fewshot_seed, offline=offline)

    def work(worker: Worker) -> int:
        from infer_cli.cli.screen.terminal import Notices
        from infer_cli.cli.screen.unloaded_model import DEFAULT, find_unloaded
        from infer_cli.cli.task.view import print_check, write_check
        from infer_cli.evaluation.task_check import check_task
        from infer_cli.evaluation.tasks.asked_prompt import PromptReader
        from infer_cli.evaluation.tasks.items import read_items
        from infer_cli.evaluation.tasks.loading import load_task
        from infer_cli.evaluation.tasks.selection import is_chat
        from infer_cli.process.explain import explained
        from infer_cli.prompt.renderer import closed_at_end
        from infer_cli.prompt.template import compiled_template

        notices = Notices(quiet=quiet, stats=False)
        try:
            with explained(worker), closed_at_end():
                found_task = load_task(task, allow_code=allow_code)
                items = read_items(found_task, selection)
                found = find_unloaded(model, offline=offline, quiet=quiet)
                vocab = found.vocab(worker)
                reader = PromptReader(
                    found_task,
                    is_chat(found_task, selection),
                    vocab,
                    lambda: compiled_template(found.templates.get(DEFAULT), vocab, None),
                )
                checked = check_task(
                    found_task,
                    items,
                    reader,
                    found.window,
                    allow_code=allow_code,
                    on_item=lambda n: notices.status(f"{n} of {items.n} items read"),
                )
                notices.clear()
                (write_check if as_json else print_check)(found_task, items, found.name, checked)
        finally:
            notices.clear()
        return 0

    return supervise(work, verbose=verbose)
