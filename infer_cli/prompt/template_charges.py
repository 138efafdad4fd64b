"""Charges written into a template's syntax tree.

Jinja offers hooks for calls, operators and filters, but none for loops, comparisons, `~` and slices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.utils import pass_context
from jinja2.visitor import NodeTransformer

from infer_cli.prompt.template_errors import TemplateFailed
from infer_cli.prompt.template_work import (
    CHARS_PER_UNIT,
    FORWARD_SEARCH,
    check_int,
    current_work,
    without_generator,
)


@pass_context
def _spend(_context: Context, value: Any, units: int) -> Any:
    current_work.get().spend(units)
    return value


@pass_context
def walk(_context: Context, value: Any) -> Any:
    current_work.get().walk(value)
    return value


@pass_context
def _touch(_context: Context, value: Any) -> Any:
    current_work.get().touch(value)
    return value


@pass_context
def _spread(_context: Context, value: Any) -> Any:
    """What follows a `*` of a call becomes a tuple before the call is made."""
    value = without_generator(value)
    current_work.get().spend(len(value) if hasattr(value, "__len__") else 1)
    return value


@pass_context
def _haystack(_context: Context, value: Any) -> Any:
    work = current_work.get()
    if isinstance(value, str):
        work.spend(len(value) // CHARS_PER_UNIT * (FORWARD_SEARCH // CHARS_PER_UNIT))
    work.walk(value)
    return value


@pass_context
def _contains(_context: Context, container: Any, value: Any) -> bool:
    work = current_work.get()
    if isinstance(container, str):
        work.search(container, value)
    else:
        container = without_generator(container)
        # Most often constants are looked for: they differ from what is nested at its top.
        (work.touch if isinstance(value, (str, int, float)) else work.walk)(container)
    work.walk(value)
    return value in container


@pass_context
def _concat(_context: Context, values: list[Any]) -> str:
    work = current_work.get()
    work.walk(values)
    return work.join(map(str, values))


def _call(node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


class Charges(NodeTransformer):
    """Writes charges into a template's tree. What one pass over a body may cost is its number of nodes."""

    def __init__(self) -> None:
        self._sizes: dict[nodes.Node, int] = {}

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        if not self._sizes:
            self._measure(node)
        return super().visit(node, *args, **kwargs)

    def _measure(self, node: nodes.Node) -> int:
        """Nodes below this one, and it."""
        self._sizes[node] = size = 1 + sum(map(self._measure, node.iter_child_nodes()))
        return size

    def _charge(self, node: Any) -> nodes.Node:
        size = 1 + sum(self._sizes[child] for child in node.body)
        # Jinja looks through the body of everything that has one, so compiling nested bodies is quadratic.
        current_work.get().spend(size)
        charge = _call(nodes.Const(None, lineno=node.lineno), "_spend", nodes.Const(size, lineno=node.lineno))
        return nodes.ExprStmt(charge, lineno=node.lineno)

    def _visit_body(self, node: Any) -> Any:
        charge = self._charge(node)
        self.generic_visit(node)
        node.body = [charge, *node.body]
        return node

    def visit_For(self, node: nodes.For) -> Any:
        test_size = 1 + (self._sizes[node.test] if node.test else 0)
        self._visit_body(node)
        if node.test is not None:  # turns that the condition skips never reach the body
            node.test = _call(
                cast(nodes.Expr, node.test), "_spend", nodes.Const(test_size, lineno=node.lineno)
            )
        return node

    visit_Macro = visit_CallBlock = visit_Block = _visit_body

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        if isinstance(node.value, int):
            check_int(node.value)
        if isinstance(node.value, float) and not math.isfinite(node.value):
            raise TemplateFailed("a number is too large", node.lineno)
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        self.generic_visit(node)
        if node.dyn_args is not None:
            node.dyn_args = _call(node.dyn_args, "_spread")
        return node

    visit_Filter = visit_Test = visit_Call

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call(nodes.List(node.nodes, lineno=node.lineno), "_concat")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        return _call(node, "_touch") if isinstance(node.arg, nodes.Slice) else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        for pair in node.items:
            if not isinstance(pair.key, nodes.Const):
                pair.key = _call(pair.key, "_walk")
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        constant = any(isinstance(side, nodes.Const) for side in (node.expr, *(op.expr for op in node.ops)))
        if len(node.ops) == 1 and node.ops[0].op in ("in", "notin"):
            found = _call(node.ops[0].expr, "_contains", node.expr)
            return found if node.ops[0].op == "in" else nodes.Not(found, lineno=node.lineno)
        if len(node.ops) == 1 and constant:
            return node
        node.expr = _call(node.expr, "_walk")
        for operand in node.ops:
            charge = "_haystack" if operand.op in ("in", "notin") else "_walk"
            operand.expr = _call(operand.expr, charge)
        return node


# What the charged tree calls.
CHARGING_FILTERS: dict[str, Callable[..., Any]] = {
    "_spend": _spend,
    "_walk": walk,
    "_touch": _touch,
    "_concat": _concat,
    "_spread": _spread,
    "_haystack": _haystack,
    "_contains": _contains,
}
