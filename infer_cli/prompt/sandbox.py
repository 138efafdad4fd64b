"""Jinja for templates nobody vouches for: every render has a finite allowance of work (`template_work`).

Jinja's immutable sandbox keeps a template away from Python, not from `'x' * 10**9`, `10**10**8`, nested
loops, doubling (`x ~ x`, `[x, x]`) or wide padding. Here every loop turn, macro call and operation on a
string or container is charged by size, *before* its result is built where that can outgrow its operands.
Filters, methods and globals are allow-lists, so that nothing reachable is uncharged. Where Jinja has no hook,
`template_charges` writes charges into the syntax tree.

Counting leaks: a cost that nobody thought of (a search backwards, a hash that collides) is not charged. So it
is the first line only; `infer_cli.prompt.renderer` runs this module in a process with ceilings that hold
whatever the count says.

It knows nothing of chats, models, processes or exit codes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

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

from infer_cli.prompt.template_charges import CHARGING_FILTERS, Charges, walk
from infer_cli.prompt.template_errors import TemplateFailed, TemplateRaised
from infer_cli.prompt.template_work import (
    CHARS_PER_UNIT,
    FORWARD_SEARCH,
    MAX_INT_BITS,
    VIEWS,
    Size,
    TooMuchWork,
    Work,
    charge_printf,
    charge_replace,
    charge_strip,
    check_width,
    current_work,
    size_of,
    without_generator,
)

# Published chat templates are below 32 KiB; compiling time grows with the source.
MAX_SOURCE_CHARS = 256 * 1024
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
_DIGITS = re.compile(r"\d+")


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
    # Indentation can outgrow the value: stop midway.
    return current_work.get().join(encoder.iterencode(value))


class _Formatter(SandboxedFormatter):
    """`str.format` with bounded widths."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        work = current_work.get()
        work.walk(value, format_spec)
        for digits in _DIGITS.findall(format_spec):
            check_width(int(digits.lstrip("0")[:9] or 0))
        return work.received(super().format_field(value, format_spec))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        current_work.get().walk(value)
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


# --- the environment ------------------------------------------------------------------------------


def _guarded(
    name: str, function: Callable[..., Any], charge: Callable[..., None] | None = None
) -> Callable[..., Any]:
    """A filter or test that pays first. It asks for the context, so Jinja never folds it while compiling."""
    wants = getattr(function, "jinja_pass_arg", None)
    pay = Work.touch if name in _SHALLOW_FILTERS else Work.walk

    @pass_context
    def paying(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        work = current_work.get()
        value, args = without_generator(value), tuple(map(without_generator, args))
        kwargs = {name: without_generator(arg) for name, arg in kwargs.items()}
        for operand in (value, *args, *kwargs.values()):
            pay(work, operand)
        for arg in (*args, *kwargs.values()):
            check_width(arg)
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
    n_items = len(value) if hasattr(value, "__len__") else 0
    current_work.get().spend(n_items * (1 + len(str(d))) // CHARS_PER_UNIT)


def _charge_indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> None:
    pad = len(width) if isinstance(width, str) else width
    current_work.get().spend((1 + len(str(s).splitlines())) * (1 + max(pad, 0)) // CHARS_PER_UNIT)


def _charge_sum(value: Any, attribute: object = None, start: object = 0) -> None:
    if not isinstance(start, (int, float)):
        raise SecurityError("sum() adds numbers only")


def _charge_format(value: str, *args: object, **kwargs: object) -> None:
    charge_printf(str(value), kwargs or args)


def _charge_int(value: object, default: object = 0, base: int = 10) -> None:
    if isinstance(value, str) and len(value) > MAX_DIGITS:
        raise SecurityError(f"a number of {len(value)} digits")


def _charge_in(value: object, container: object) -> None:
    if isinstance(container, str):
        current_work.get().search(container, value)


_FILTER_CHARGES: dict[str, Callable[..., None]] = {
    "float": _charge_int,
    "format": _charge_format,
    "indent": _charge_indent,
    "int": _charge_int,
    "join": _charge_join,
    "replace": lambda s, old, new, count=None: charge_replace(str(s), str(old), str(new), count),
    "sum": _charge_sum,
    "trim": lambda value, chars=None: charge_strip(str(value), chars),
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
            finalize=walk,
        )
        self.filters = {name: _guarded(name, FILTERS[name], _FILTER_CHARGES.get(name)) for name in _FILTERS}
        self.filters["tojson"] = _guarded("tojson", _tojson)
        self.filters.update(CHARGING_FILTERS)
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
        return current_work.get().join(parts)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        for kind, names in _METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        return not isinstance(obj, (bytes, int, float, complex, range, set, frozenset, *VIEWS, type))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        if value.__name__ == "format_map":
            raise SecurityError("format_map() is not allowed")
        text = str(value.__self__)
        current_work.get().spend(text.count("{") + text.count("}"))  # each is a step of the parser

        def formatted(*args: Any, **kwargs: Any) -> str:
            return _Formatter(self).vformat(text, args, kwargs)

        return formatted

    def getitem(self, obj: Any, argument: Any) -> Any:
        current_work.get().walk(argument)  # hashed, where obj is a dict
        return super().getitem(obj, argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        work = current_work.get()
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
            charge_printf(left, right)
        else:
            work.touch(left)
            work.touch(right)
        return super().call_binop(context, operator, left, right)

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        current_work.get().touch(arg)
        return super().call_unop(context, operator, arg)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        work = current_work.get()
        owner: Any = getattr(__obj, "__self__", None)
        method = isinstance(owner, tuple(_METHODS))
        # Inside loops and blocks Jinja passes their local names along.
        named = {key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")}
        if not isinstance(__obj, Macro):  # a macro's body pays for what it does with them
            args = tuple(map(without_generator, args))
            kwargs = {key: without_generator(value) for key, value in kwargs.items()}
        pay = work.touch if isinstance(__obj, (Macro, LoopContext)) else work.walk
        for arg in (*args, *named.values()):
            pay(arg)
        if method:
            name = __obj.__name__
            work.touch(owner)
            for arg in (*args, *named.values()):
                check_width(arg)
            if name in ("count", "index") and not isinstance(owner, str):
                work.walk(owner)
            elif name == "replace":
                charge_replace(owner, *args, **named)
            elif name.endswith("strip"):
                charge_strip(owner, *args)
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
        with _spending(Size(0, 0).allowance):
            tree = environment.parse(source)
            code = environment.compile(Charges().visit(tree), filename=_FILENAME)
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
    token = current_work.set(Work(units))
    try:
        yield
    except (TemplateFailed, TemplateRaised):
        raise
    except TooMuchWork as error:
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
        current_work.reset(token)


def free_variables(source: str) -> frozenset[str]:
    """Names that a template expects to be given. Raises TemplateFailed where it does not parse."""
    environment = _Environment(Undefined)
    with _spending(Size(0, 0).allowance):
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
