"""Hints begin alike: after `hint: ` they go on in lower case and end without a full stop."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

from infer_cli import errors
from tests.project.test_imports import PACKAGE

FAILURES = {name for name, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, Exception)}


def texts(node: ast.expr) -> Iterator[str]:
    """Literal texts that an expression may be; a value inside one is `{}`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from (*texts(node.body), *texts(node.orelse))


def hints(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FAILURES:
            for hint in node.args[1:2]:
                yield from texts(hint)
        elif isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id.endswith("_HINT") for target in node.targets
        ):
            yield from texts(node.value)


def test_hints_begin_alike() -> None:
    found = [(path.name, hint) for path in PACKAGE.rglob("*.py") for hint in hints(path) if hint]
    assert len(found) > 150
    # A variable (INFER_HOME) keeps its capitals.
    assert not [each for each in found if each[1][0].isupper() and not each[1].split()[0].isupper()]
    assert not [each for each in found if each[1].endswith(".")]
