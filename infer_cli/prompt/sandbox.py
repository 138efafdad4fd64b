"""Jinja for templates nobody vouches for: every render has a finite allowance of work.

Jinja's immutable sandbox keeps a template away from Python, not from `'x' * 10**9`, `10**10**8`, nested
loops, doubling (`x ~ x`, `[x, x]`) or wide padding. Here every loop turn, macro call and operation on a
string or container is charged by size, *before* its result is built where that can outgrow its operands.
Filters, methods and globals are allow-lists, so that nothing reachable is uncharged. Work is counted, never
timed: a template fails on every machine or on none.

Counting leaks: a cost that nobody thought of (a search backwards, a hash that collides) is not charged. So it
is the first line only; `infer_cli.prompt.renderer` runs this module in a process with ceilings that hold
whatever the count says.

It knows nothing of chats, models, processes or exit codes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, cast

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.environment import Template
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import FILTERS
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.tests import TESTS
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer

from infer_cli.prompt.template_errors import TemplateFailed, TemplateRaised

# A few seconds of Python at the very slowest; published chat templates need a hundredth of it.
BASE_ALLOWANCE = 2_000_000
# Charging a string costs 1 unit per this many characters (copying is that much cheaper than interpreting) ...
CHARS_PER_UNIT = 16
# ... so 16 units per character of input let a template pass over its input 256 times.
ALLOWANCE_PER_CHAR = 16
# A value of the input (a message, a key, a number) may cost this many evaluated expressions.
ALLOWANCE_PER_VALUE = 2_000
# Published chat templates are below 32 KiB; compiling time grows with the source.
MAX_SOURCE_CHARS = 256 * 1024
# Widths, precisions, counts given to filters and methods: nobody pads further.
MAX_WIDTH = 10_000
# Integers of a template are positions and dates; arithmetic on longer ones is not linear.
MAX_INT_BITS = 1024
# The output may be this long, and longer by this much for each character and each value of the input: markup
# around messages, and each text some times. What is longer would keep the tokenizer busy, not the template.
BASE_OUTPUT_CHARS = 1_000_000
OUTPUT_CHARS_PER_CHAR = 8
OUTPUT_CHARS_PER_VALUE = 10_000
# Forward searches of CPython compare at most this many characters at a place; backward ones all.
FORWARD_SEARCH = 100
# Longer texts are no numbers: int() is quadratic.
MAX_DIGITS = 400


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS = _words(
    """abs batch capitalize center count d default dictsort e escape first float forceescape format groupby
    indent int items join last length list lower map max min reject rejectattr replace reverse round safe
    select selectattr slice sort string sum title trim truncate unique upper wordcount"""
)
# These do not look below the top level of what they are given.
_SHALLOW_FILTERS = _words(
    """abs batch count d default first float int items last length list map reject rejectattr reverse select
    selectattr slice"""
)
_CONSTANT_TIME_TESTS = _words(
    """boolean callable defined divisibleby even false filter float integer iterable mapping none number odd
    sameas sequence string test true undefined"""
)
_STR_METHODS = _words(
    """capitalize casefold center count endswith find index isalnum isalpha isdecimal isdigit islower
    isnumeric isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix replace
    rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title upper
    zfill"""
)
_SEARCHES = _words("count find index partition rfind rindex rpartition rsplit split")
_METHODS: dict[type, frozenset[str]] = {
    str: _STR_METHODS,
    dict: _words("copy get items keys values"),
    list: _words("copy count index"),
    tuple: _words("count index"),
}
_VIEWS: Any = (type({}.keys()), type({}.values()), type({}.items()))
_CONTAINERS: Any = (list, tuple, set, frozenset, *_VIEWS)
_SIZED: Any = (str, bytes, dict, range, *_CONTAINERS)
_PRINTF_SIZES = re.compile(r"[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?")
_PARENTHESES = re.compile("[()]")
_DIGITS = re.compile(r"\d+")


class _TooMuchWork(Exception):
    """The allowance is spent. Not a ValueError or TypeError: Jinja's filters swallow some of those."""


class _Work:
    """The allowance of one render."""

    def __init__(self, units: int) -> None:
        self.left = units

    def spend(self, units: int) -> None:
        if not units >= 0:  # a template's own number, NaN included, must not give work back
            raise SecurityError("a size is not a number from 0 up")
        self.left -= units
        if self.left < 0:
            raise _TooMuchWork

    def touch(self, value: Any) -> None:
        """Charge one pass over a string or over the top level of a container."""
        if isinstance(value, _SIZED):
            self.spend(1 + len(value) // CHARS_PER_UNIT)
        else:
            if isinstance(value, int):
                _check_int(value)
            self.spend(1)

    def walk(self, *values: Any) -> None:
        """Charge a pass over everything inside: what comparing, hashing or printing costs.

        Shared parts count as often as they occur, as they do for `str` and `==`.
        """
        pending: list[Any] = list(values)
        while pending:
            value = pending.pop()
            if isinstance(value, dict):
                self.spend(1 + len(value))
                pending.extend(value.keys())
                pending.extend(value.values())
            elif isinstance(value, _CONTAINERS):
                self.spend(1 + len(value))
                pending.extend(value)
            else:
                self.touch(value)

    def counted(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.spend(4)  # drawing an item runs a filter, a test or an attribute look-up
            yield item

    def join(self, parts: Iterable[str]) -> str:
        kept: list[str] = []
        for part in parts:
            self.spend(1 + len(part) // CHARS_PER_UNIT)
            kept.append(part)
        return "".join(kept)

    def search(self, text: str, wanted: object, most: int = FORWARD_SEARCH) -> None:
        """Charge looking through `text`, at each place up to `most` characters of `wanted`."""
        size = min(len(wanted), most) if isinstance(wanted, str) else 1
        self.spend((1 + len(text) // CHARS_PER_UNIT) * (1 + size // CHARS_PER_UNIT))

    def received(self, value: Any) -> Any:
        """Charge a result; a generator is charged as it is drawn from."""
        if isinstance(value, Iterator):
            return self.counted(value)
        if isinstance(value, list):
            self.spend(len(value))  # its items were made too
        self.touch(value)
        return value


_work: ContextVar[_Work] = ContextVar("_work")


class Size(NamedTuple):
    """How large an input is: values of every kind, keys included, and the characters of its strings."""

    n_values: int
    n_chars: int

    @property
    def allowance(self) -> int:
        """Units of work for a render over it."""
        return BASE_ALLOWANCE + ALLOWANCE_PER_VALUE * self.n_values + ALLOWANCE_PER_CHAR * self.n_chars

    @property
    def most_output(self) -> int:
        """Characters that a render over it may write."""
        return (
            BASE_OUTPUT_CHARS + OUTPUT_CHARS_PER_VALUE * self.n_values + OUTPUT_CHARS_PER_CHAR * self.n_chars
        )


def size_of(values: object) -> Size:
    """The size of an input of strings, numbers, lists and dicts with str keys."""
    n_values = n_chars = 0
    pending = [values]
    while pending:
        value = pending.pop()
        n_values += 1
        if isinstance(value, str):
            n_chars += len(value)
        elif isinstance(value, Mapping):
            pending.extend(value.keys())
            pending.extend(value.values())
        elif isinstance(value, (list, tuple)):
            pending.extend(value)
    return Size(n_values, n_chars)


def _check_int(value: int) -> None:
    if value.bit_length() > MAX_INT_BITS:
        raise SecurityError(f"an integer of over {MAX_INT_BITS} bits")


def _check_width(value: object) -> None:
    if isinstance(value, int) and abs(value) > MAX_WIDTH:
        raise SecurityError(
            f"the number {_short(value)} is too large for a filter or method (most: {MAX_WIDTH})"
        )


def _no_generator(value: Any) -> Any:
    """The value, or what a generator gives, so that it can be charged before it is used."""
    return list(value) if isinstance(value, Iterator) else value


def _short(value: int) -> str:
    return str(value) if value.bit_length() <= 64 else f"of {value.bit_length()} bits"


def _charge_replace(text: str, old: str, new: str, count: int | None = None) -> None:
    _work.get().search(text, old)
    hits = text.count(old)
    if count is not None and count >= 0:
        hits = min(hits, count)
    _work.get().spend(hits * (1 + len(new)) // CHARS_PER_UNIT)


def _charge_strip(text: str, chars: str | None = None) -> None:
    if chars:
        _work.get().spend((1 + len(text) // CHARS_PER_UNIT) * (1 + len(chars) // CHARS_PER_UNIT))


def _charge_printf(text: str, values: object) -> None:
    """Charge `text % values`: each conversion may print all of `values`."""
    work = _work.get()
    before = work.left
    work.walk(values)
    cost = before - work.left
    position = text.find("%")
    while position >= 0:
        start = _after_key(text, position + 1)
        sizes = _PRINTF_SIZES.match(text, start)
        assert sizes is not None  # it matches nothing, too
        chars = 0
        for digits in sizes.groups():
            if digits == "*":
                raise SecurityError("a width of '*' is not allowed in a format")
            if digits:
                size = int(digits.lstrip("0")[:9] or 0)
                _check_width(size)
                chars += size
        work.spend(cost + chars // CHARS_PER_UNIT)
        # Past the kind of the conversion, so that the second half of `%%` does not begin another.
        position = text.find("%", sizes.end() + 1)


def _after_key(text: str, start: int) -> int:
    """Where the `(key)` of a conversion ends; parentheses nest in it, as in Python."""
    if not text.startswith("(", start):
        return start
    depth = 0
    for match in _PARENTHESES.finditer(text, start):
        depth += 1 if match.group() == "(" else -1
        if depth == 0:
            return match.end()
    return len(text)  # Python refuses it


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers' chat templates write it: not sorted, not ASCII, not HTML-safe."""
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    if indent is None and separators is None:
        return encoder.encode(value)
    return _work.get().join(encoder.iterencode(value))  # indentation can outgrow the value: stop midway


class _Formatter(SandboxedFormatter):
    """`str.format` with bounded widths."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        work = _work.get()
        work.walk(value, format_spec)
        for digits in _DIGITS.findall(format_spec):
            _check_width(int(digits.lstrip("0")[:9] or 0))
        return work.received(super().format_field(value, format_spec))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        _work.get().walk(value)
        return super().convert_field(value, conversion)


class _Namespace(Namespace):
    """Jinja's, but printing one does not print what it holds (namespaces can hold each other)."""

    def __repr__(self) -> str:
        return "<namespace>"


class _Pass(Extension):
    """`{% generation %}` marks training spans in transformers' templates; its body is kept as it is."""

    tags = {"generation"}  # noqa: RUF012  (Jinja declares it a set on the class)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


# --- charges written into the template's syntax tree ----------------------------------------------
# Jinja offers hooks for calls, operators and filters, but none for loops, comparisons, `~` and slices.


@pass_context
def _spend(_context: Context, value: Any, units: int) -> Any:
    _work.get().spend(units)
    return value


@pass_context
def _walk(_context: Context, value: Any) -> Any:
    _work.get().walk(value)
    return value


@pass_context
def _touch(_context: Context, value: Any) -> Any:
    _work.get().touch(value)
    return value


@pass_context
def _spread(_context: Context, value: Any) -> Any:
    """What follows a `*` of a call becomes a tuple before the call is made."""
    value = _no_generator(value)
    _work.get().spend(len(value) if hasattr(value, "__len__") else 1)
    return value


@pass_context
def _haystack(_context: Context, value: Any) -> Any:
    work = _work.get()
    if isinstance(value, str):
        work.spend(len(value) // CHARS_PER_UNIT * (FORWARD_SEARCH // CHARS_PER_UNIT))
    work.walk(value)
    return value


@pass_context
def _contains(_context: Context, container: Any, value: Any) -> bool:
    work = _work.get()
    if isinstance(container, str):
        work.search(container, value)
    else:
        container = _no_generator(container)
        # Most often constants are looked for: they differ from what is nested at its top.
        (work.touch if isinstance(value, (str, int, float)) else work.walk)(container)
    work.walk(value)
    return value in container


@pass_context
def _concat(_context: Context, values: list[Any]) -> str:
    work = _work.get()
    work.walk(values)
    return work.join(map(str, values))


def _call(node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


class _Charges(NodeTransformer):
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
        _work.get().spend(size)
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
            _check_int(node.value)
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


# --- the environment ------------------------------------------------------------------------------


def _guarded(
    name: str, function: Callable[..., Any], charge: Callable[..., None] | None = None
) -> Callable[..., Any]:
    """A filter or test that pays first. It asks for the context, so Jinja never folds it while compiling."""
    wants = getattr(function, "jinja_pass_arg", None)
    pay = _Work.touch if name in _SHALLOW_FILTERS else _Work.walk

    @pass_context
    def paying(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        work = _work.get()
        value, args = _no_generator(value), tuple(map(_no_generator, args))
        kwargs = {name: _no_generator(arg) for name, arg in kwargs.items()}
        for operand in (value, *args, *kwargs.values()):
            pay(work, operand)
        for arg in (*args, *kwargs.values()):
            _check_width(arg)
        if charge is not None:
            charge(value, *args, **kwargs)
        first: tuple[Any, ...] = ()
        if wants is not None:
            first = (
                {"context": context, "eval_context": context.eval_ctx}.get(wants.name, context.environment),
            )
        return work.received(function(*first, value, *args, **kwargs))

    paying.__name__ = name
    return paying


def _charge_join(value: Any, d: str = "", attribute: object = None) -> None:
    _work.get().spend(len(value) * (1 + len(str(d))) // CHARS_PER_UNIT if hasattr(value, "__len__") else 0)


def _charge_indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> None:
    pad = len(width) if isinstance(width, str) else width
    _work.get().spend((1 + len(str(s).splitlines())) * (1 + max(pad, 0)) // CHARS_PER_UNIT)


def _charge_sum(value: Any, attribute: object = None, start: object = 0) -> None:
    if not isinstance(start, (int, float)):
        raise SecurityError("sum() adds numbers only")


def _charge_format(value: str, *args: object, **kwargs: object) -> None:
    _charge_printf(str(value), kwargs or args)


def _charge_int(value: object, default: object = 0, base: int = 10) -> None:
    if isinstance(value, str) and len(value) > MAX_DIGITS:
        raise SecurityError(f"a number of {len(value)} digits")


def _charge_in(value: object, container: object) -> None:
    if isinstance(container, str):
        _work.get().search(container, value)


_FILTER_CHARGES: dict[str, Callable[..., None]] = {
    "float": _charge_int,
    "format": _charge_format,
    "indent": _charge_indent,
    "int": _charge_int,
    "join": _charge_join,
    "replace": lambda s, old, new, count=None: _charge_replace(str(s), str(old), str(new), count),
    "sum": _charge_sum,
    "trim": lambda value, chars=None: _charge_strip(str(value), chars),
}


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)
    intercepted_unops = frozenset(ImmutableSandboxedEnvironment.default_unop_table)

    def __init__(self, undefined: type[Undefined]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=undefined,
            extensions=[_Pass, LoopControlExtension],
            finalize=_walk,
        )
        self.filters = {name: _guarded(name, FILTERS[name], _FILTER_CHARGES.get(name)) for name in _FILTERS}
        self.filters["tojson"] = _guarded("tojson", _tojson)
        self.filters.update(_spend=_spend, _walk=_walk, _touch=_touch, _concat=_concat)
        self.filters.update(_spread=_spread, _haystack=_haystack, _contains=_contains)
        self.tests = {
            name: test
            if name in _CONSTANT_TIME_TESTS
            else _guarded(name, cast(Callable[..., Any], test), _charge_in if name == "in" else None)
            for name, test in TESTS.items()
        }
        self.globals["namespace"] = _Namespace
        del self.globals["lipsum"]  # random
        self.globals["raise_exception"] = _raise_exception

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Joins every buffer of a compiled template: macros, set blocks, the output itself."""
        return _work.get().join(parts)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        for kind, names in _METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        return not isinstance(obj, (bytes, int, float, complex, range, set, frozenset, *_VIEWS, type))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        if value.__name__ == "format_map":
            raise SecurityError("format_map() is not allowed")
        text = str(value.__self__)
        _work.get().spend(text.count("{") + text.count("}"))  # each is a step of the parser

        def formatted(*args: Any, **kwargs: Any) -> str:
            return _Formatter(self).vformat(text, args, kwargs)

        return formatted

    def getitem(self, obj: Any, argument: Any) -> Any:
        _work.get().walk(argument)  # hashed, where obj is a dict
        return super().getitem(obj, argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        work = _work.get()
        if isinstance(left, int) and isinstance(right, int):
            bits = (left.bit_length(), right.bit_length())
            size = {"*": sum(bits), "**": bits[0] * max(abs(right), 1)}.get(operator, max(bits))
            if max(size, *bits) > MAX_INT_BITS:
                raise SecurityError(f"{operator!r} would make an integer of over {MAX_INT_BITS} bits")
            work.spend(1)
        elif operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(value, (str, list, tuple)) and isinstance(times, int):
                    work.spend(1 + len(value) * max(times, 0) // CHARS_PER_UNIT)
        elif operator == "%" and isinstance(left, str):
            _charge_printf(left, right)
        else:
            work.touch(left)
            work.touch(right)
        return super().call_binop(context, operator, left, right)

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        _work.get().touch(arg)
        return super().call_unop(context, operator, arg)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        work = _work.get()
        owner: Any = getattr(__obj, "__self__", None)
        method = isinstance(owner, tuple(_METHODS))
        # Inside loops and blocks Jinja passes their local names along.
        named = {key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")}
        if not isinstance(__obj, Macro):  # a macro's body pays for what it does with them
            args = tuple(map(_no_generator, args))
            kwargs = {key: _no_generator(value) for key, value in kwargs.items()}
        pay = work.touch if isinstance(__obj, (Macro, LoopContext)) else work.walk
        for arg in (*args, *named.values()):
            pay(arg)
        if method:
            name = __obj.__name__
            work.touch(owner)
            for arg in (*args, *named.values()):
                _check_width(arg)
            if name in ("count", "index") and not isinstance(owner, str):
                work.walk(owner)
            elif name == "replace":
                _charge_replace(owner, *args, **named)
            elif name.endswith("strip"):
                _charge_strip(owner, *args)
            elif name == "join" and args and hasattr(args[0], "__len__"):
                work.spend(len(args[0]) * (1 + len(owner)) // CHARS_PER_UNIT)
            elif name in _SEARCHES and args:
                work.search(owner, args[0], len(owner) if name.startswith("r") else FORWARD_SEARCH)
        return work.received(super().call(__context, __obj, *args, **kwargs))


def _raise_exception(message: object) -> None:
    raise TemplateRaised(str(message))


_FILENAME = "<template>"


class BoundedTemplate:
    """A compiled template. Safe to render from several threads.

    Raises TemplateFailed where the source does not compile.
    """

    def __init__(
        self,
        source: str,
        *,
        functions: Mapping[str, Callable[..., object]] | None = None,
        undefined: type[Undefined] = Undefined,
    ) -> None:
        if len(source) > MAX_SOURCE_CHARS:
            raise TemplateFailed(f"it is {len(source)} characters long (most: {MAX_SOURCE_CHARS})")
        environment = _Environment(undefined)
        environment.globals.update(functions or {})
        with _spending(BASE_ALLOWANCE):
            tree = environment.parse(source)
            code = environment.compile(_Charges().visit(tree), filename=_FILENAME)
            self._template = Template.from_code(environment, code, environment.globals)

    def render(self, variables: Mapping[str, object]) -> str:
        """Raises TemplateFailed, or TemplateRaised where the template itself raised an exception."""
        size = size_of(variables)
        with _spending(size.allowance):
            text = self._template.render(variables)
        if len(text) > size.most_output:
            raise TemplateFailed(
                f"it writes {len(text)} characters (most for this input: {size.most_output})"
            )
        return text


@contextmanager
def _spending(units: int) -> Iterator[None]:
    """An allowance of work, and what goes wrong as TemplateFailed."""
    token = _work.set(_Work(units))
    try:
        yield
    except (TemplateFailed, TemplateRaised):
        raise
    except _TooMuchWork as error:
        raise TemplateFailed(
            f"it does too much work (over {units} steps for this input)", _line_of(error)
        ) from error
    except RecursionError as error:
        raise TemplateFailed("it is nested too deeply or calls itself without end") from error
    except MemoryError as error:
        raise TemplateFailed("it needs too much memory", _line_of(error)) from error
    except TemplateSyntaxError as error:
        raise TemplateFailed(error.message or "syntax error", error.lineno) from error
    except (TemplateError, ArithmeticError, AssertionError, AttributeError) as error:
        raise TemplateFailed(str(error) or type(error).__name__, _line_of(error)) from error
    except Exception as error:  # a template can provoke any, in Python that is generated from it
        raise TemplateFailed(f"{type(error).__name__}: {error}", _line_of(error)) from error
    finally:
        _work.reset(token)


def free_variables(source: str) -> frozenset[str]:
    """Names that a template expects to be given. Raises TemplateFailed where it does not parse."""
    environment = _Environment(Undefined)
    with _spending(BASE_ALLOWANCE):
        return frozenset(find_undeclared_variables(environment.parse(source)) - environment.globals.keys())


def _line_of(error: BaseException) -> int | None:
    """Line of the template that was running."""
    line = None
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == _FILENAME:
            line = frame.tb_lineno
        frame = frame.tb_next
    return line
