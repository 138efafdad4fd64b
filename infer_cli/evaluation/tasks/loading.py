"""Finds a task by its name or path, and reads it."""

from __future__ import annotations

from pathlib import Path

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.shipped_tasks import shipped_names, shipped_path
from infer_cli.evaluation.tasks.task import Task
from infer_cli.evaluation.tasks.task_file import TaskSource, task_of
from infer_cli.prompt.messages import decode_input
from infer_cli.settings.toml_file import parse_toml
from infer_cli.system.files import not_a_file, open_regular, read_file

CODE = ".py"
_FILES = (".toml", CODE)


def load_task(name: str, *, allow_code: bool = False) -> Task:
    """A shipped task, or one of a file: a path that ends in `.toml` or `.py`.

    Raises UsageError where there is none, for what is wrong with it, naming file, table and key, and for code
    that is not allowed.
    """
    path = shipped_path(name)
    if path is None:
        path = Path(name).expanduser()
        if path.suffix not in _FILES:
            known = f"shipped are {', '.join(shipped_names())}"
            raise UsageError(f"there is no task {name!r:.100}", f"{known}; a file ends in .toml or .py")
        _check_there(path)
    text = decode_input(read_file(path, str(path)), str(path))
    return read_task(text, str(path), allow_code=allow_code)


def read_task(text: str, path: str, *, allow_code: bool = False) -> Task:
    """A task from the text of its file. `path` says where that was, and by its ending what it is. Raises as
    `load_task`."""
    if not path.endswith(CODE):
        return task_of(parse_toml(text.encode(), Path(path)), TaskSource(path, path, text))
    if not allow_code:
        raise UsageError(
            f"{path} is a Python task: code that would run with all that you may do",
            "read it, then give --allow-code",
        )
    from infer_cli.evaluation.tasks.python_task import read_python_task

    return read_python_task(text, path)


def shipped_tasks() -> list[Task]:
    """All that come with this program, by name."""
    return [load_task(name) for name in shipped_names()]


def _check_there(path: Path) -> None:
    try:
        open_regular(path).close()
    except OSError:
        raise UsageError(not_a_file(path), "name a task's file, or one of `infer task list`") from None
