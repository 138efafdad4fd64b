"""A task that is a Python module: its `TASK` has the tables of a task's file, its functions do the rest.

It is code, and runs as this program does: whoever calls this has asked for it. What it prints goes to
standard error, and what it raises is one line.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeGuard

from infer_cli.errors import UsageError
from infer_cli.evaluation.strict_numbers import number_of
from infer_cli.evaluation.tasks.task import Task, TaskCodeFailed, TaskFunctions
from infer_cli.evaluation.tasks.task_file import TaskSource, task_of
from infer_cli.prompt.messages import ROLES

_NAMES = ("items", "prompt", "references", "extract", "score")
_OF_ANSWERS = ("extract", "score")
_MOST_REASON = 300  # characters


def read_python_task(text: str, path: str) -> Task:
    """Run a module and read its task. Raises UsageError: for what its tables lack, and for what it raises."""
    module = types.ModuleType("infer_task")
    module.__file__ = path
    with _called(path, f"{path}: the module"):
        code = compile(text, path, "exec")
        # Lines of a traceback are this text's, whatever the file holds by then.
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
        exec(code, module.__dict__)
    tables = module.__dict__.get("TASK")
    if tables is None:
        raise UsageError(f"{path} has no TASK", 'write TASK = {"name": …, "version": …, "kind": …}')
    functions = {}
    for name in _NAMES:
        function = module.__dict__.get(name)
        if function is None:
            continue
        if not callable(function):
            raise UsageError(f"{path}: {name} is not a function")
        functions[name] = function
    return task_of(tables, TaskSource(path, path, text, is_code=True, functions=_wrapped(path, functions)))


def _wrapped(path: str, functions: Mapping[str, Callable[..., Any]]) -> TaskFunctions:
    """The functions, which raise TaskCodeFailed only, and whose values are what they may be.

    What `extract` and `score` raise stands in samples, which are the same wherever the folder lies: it does
    not name the file.
    """

    def place(name: str) -> str:
        return f"{name}()" if name in _OF_ANSWERS else f"{path}: {name}()"

    def called(name: str, *arguments: object) -> object:
        with _called(path, place(name)):
            return functions[name](*arguments)

    def wrong(name: str, value: object, wanted: str) -> TaskCodeFailed:
        return TaskCodeFailed(f"{place(name)} gave {_shown(value)}, not {wanted}")

    def items() -> Iterator[Mapping[str, object]]:
        given = called("items")
        if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
            raise wrong("items", given, "rows")
        rows = iter(given)
        while True:
            with _called(path, place("items")):
                row = next(rows, None)
            if row is None:
                return
            if not isinstance(row, Mapping):
                raise wrong("items", row, "rows")
            yield dict(row)

    def prompt(doc: Mapping[str, object]) -> str | tuple[Mapping[str, str], ...]:
        value = called("prompt", doc)
        if _is_text(value):
            return value
        if isinstance(value, (list, tuple)) and value and all(map(_is_message, value)):
            return tuple(dict(message) for message in value)
        raise wrong("prompt", value, 'a string or a list of {"role": …, "content": …}')

    def references(doc: Mapping[str, object]) -> tuple[str, ...]:
        value = called("references", doc)
        if _is_text(value):
            return (value,)
        if isinstance(value, (list, tuple)) and all(map(_is_text, value)):
            return tuple(value)
        raise wrong("references", value, "a string or a list of strings")

    def extract(text: str, doc: Mapping[str, object]) -> str | None:
        value = called("extract", text, doc)
        if value is None or _is_text(value):
            return value
        raise wrong("extract", value, "a string or None")

    def score(text: str, doc: Mapping[str, object]) -> float:
        value = called("score", text, doc)
        number = float(value) if isinstance(value, bool) else number_of(value)
        if number is not None:
            return number
        raise wrong("score", value, "a finite number")

    wrappers = (items, prompt, references, extract, score)
    return TaskFunctions(**{each.__name__: each for each in wrappers if each.__name__ in functions})  # type: ignore[arg-type]


@contextlib.contextmanager
def _called(path: str, what: str) -> Iterator[None]:
    """Raises TaskCodeFailed that begins with `what` for whatever the code inside raises."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # also SystemExit: a task may not end this program
        raise TaskCodeFailed(f"{what} failed{_line_of(e, path)}: {_reason(e)}") from None


def _line_of(error: BaseException, path: str) -> str:
    if isinstance(error, SyntaxError) and error.filename == path:
        return f" in line {error.lineno}"
    lines = [
        number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == path
    ]
    return f" in line {lines[-1]}" if lines else ""


def _reason(error: BaseException) -> str:
    try:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:  # its own __str__ may fail too
        said = ""
    line = " ".join(said.split())[:_MOST_REASON]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _is_message(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) == {"role", "content"}
        and value["role"] in ROLES
        and _is_text(value["content"])
    )


def _is_text(value: object) -> TypeGuard[str]:
    """A string that UTF-8 can hold."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    return (
        repr(value)[:60] if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    )
