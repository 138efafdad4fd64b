"""Within the sandbox a hostile template ends in an error after a bounded count of steps, on every machine."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from infer_cli.prompt import template_work
from infer_cli.prompt.sandbox import BoundedTemplate
from infer_cli.prompt.template_errors import TemplateFailed, TemplateRaised

HI = {"messages": [{"role": "user", "content": "hi"}]}
DOUBLE = "{% set ns = namespace(x=START, y=START) %}{% for i in range(60) %}BODY{% endfor %}END"


def _doubling(start: str, body: str, end: str) -> str:
    return DOUBLE.replace("START", start).replace("BODY", body).replace("END", end)


_NESTED = "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}"
_TUPLES = "{% set ns.x = (ns.x, ns.x) %}"
_LOOPS = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"
_HUGE = "{% set x = ('f' * 1000000)|int(base=16) %}"


def _searching(expression: str) -> str:
    long = "{% set x = 'a' * 200000 %}{% set y = 'ab' ~ x[:100000] %}"
    short = "{% set z = 'a' * 29999 %}{% set w = 'a' * 97 ~ 'ba' %}"
    return f"{long}{short}{{% for i in range(2000) %}}{{% set found = {expression} %}}{{% endfor %}}"


HOSTILE = {
    "work given back": "{{ messages|map('_spend', -10**9)|list|length }}" + _LOOPS,
    "work of NaN": "{% set x = 'a'|indent('nan'|float) %}" + _LOOPS,
    "work below NaN": "{{ messages|map('_spend', 'nan'|float)|list|length }}" + _LOOPS,
    "negative indent": "{% set x = ('a\n' * 99999)|indent(-9999) %}" + _LOOPS,
    "string times": "{{ 'x' * 10**9 }}",
    "list times": "{{ ([0] * 10**9)|length }}",
    "power": "{{ 10**(10**8) }}",
    "squares": _doubling("3", "{% set ns.x = ns.x * ns.x %}", ""),
    "long integer": "{{ ('f'*1000000)|int(base=16) % 7 }}",
    "range": "{% for i in range(10**9) %}x{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "skipping loops": "{% for i in range(9999) %}{% for j in range(9999) if false %}{% endfor %}{% endfor %}",
    "long body": "{% for i in range(99999) %}" + "{% set x = i %}" * 2000 + "{% endfor %}",
    "generators": "{% for i in range(99999) %}{{ range(99999)|map('abs')|select|list|length }}{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "fan-out": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "recursive loop": "{% for x in [messages] recursive %}{{ loop([messages]) }}{% endfor %}",
    "recursive block": "{% block a %}{{ self.a() }}{% endblock %}",
    "concatenation": _doubling("'xx'", "{% set ns.x = ns.x ~ ns.x %}", ""),
    "addition": _doubling("'xx'", "{% set ns.x = ns.x + ns.x %}", ""),
    "list addition": _doubling("[0]", "{% set ns.x = ns.x + ns.x %}", ""),
    "set block": "{% set x %}aa{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "nested output": _doubling("[0]", _NESTED, "{{ ns.x }}"),
    "nested string": _doubling("[0]", _NESTED, "{{ ns.x|string|length }}"),
    "nested join": _doubling("[0]", _NESTED, "{{ ns.x|join }}"),
    "nested concatenation": _doubling("[0]", _NESTED, "{% set z = '' ~ ns.x %}"),
    "nested format": _doubling("[0]", _NESTED, "{{ '%s' % ns.x }}"),
    "nested str.format": _doubling("[0]", _NESTED, "{% set z = '{}'.format(ns.x) %}"),
    "nested str.format!r": _doubling("[0]", _NESTED, "{% set z = '{0!r:.3}'.format(ns.x) %}"),
    "nested tojson": _doubling("[0]", _NESTED, "{{ ns.x|tojson }}"),
    "nested equality": _doubling("[0]", _NESTED, "{{ ns.x == ns.y }}"),
    "nested eq test": _doubling("[0]", _NESTED, "{{ ns.x is eq ns.y }}"),
    "nested in": _doubling("[0]", _NESTED, "{{ ns.x in [ns.y] }}"),
    "nested index": _doubling("[0]", _NESTED, "{{ [ns.x].index(ns.y) }}"),
    "nested unique": _doubling("(0,)", _TUPLES, "{{ [ns.x]|unique|list|length }}"),
    "nested key": _doubling("(0,)", _TUPLES, "{{ {ns.x: 1}|length }}"),
    "nested look-up": _doubling("(0,)", _TUPLES, "{{ messages[0][ns.x] }}"),
    "nested get": _doubling("(0,)", _TUPLES, "{{ messages[0].get(ns.x) }}"),
    "nested in keys": _doubling("(0,)", _TUPLES, "{{ ns.x in messages[0] }}"),
    "nested change": _doubling(
        "[0]", _NESTED, "{% for x in [ns.x, ns.y] %}{{ loop.changed(x) }}{% endfor %}"
    ),
    "nested dict": _doubling("[0]", "{% set ns.x = dict(a=ns.x, b=ns.x) %}", "{{ ns.x }}"),
    "varargs": "{% macro m(n) %}{% if n %}{{ m(n-1, varargs, varargs) }}{% else %}{{ varargs }}{% endif %}"
    "{% endmacro %}{{ m(60, 1, 1) }}",
    "center": "{{ 'x'|center(10**9) }}",
    "constant center": "{{ 'x'|center(1000000000) }}",
    "ljust": "{{ 'x'.ljust(10**9) }}",
    "indent": "{{ ('x\n' * 100000)|indent(9999) }}",
    "printf": "{{ '%1000000000d' % 1 }}",
    "printf filter": "{{ '%.1000000000d'|format(1) }}",
    "printf star": "{{ '%*d' % (10**9, 1) }}",
    "printf many": "{{ ('%(a)s' * 100000) % {'a': 'x' * 100000} }}",
    "format": "{{ '{:1000000000}'.format(1) }}",
    "format width": "{{ '{:{w}}'.format(1, w=10**9) }}",
    "format many": "{{ ('{0}' * 100000).format('x' * 100000) }}",
    "format zeros": "{{ '{:000000000999999999}'.format(1) }}",
    "printf zeros": "{{ '%.000000000999999999d' % 1 }}",
    "replace": "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
    "replace empty": "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
    "join": "{{ range(99999)|join('x' * 100000) }}",
    "str.join": "{{ ('x' * 100000).join(['a'] * 100000) }}",
    "strip": "{{ ('ab' * 1000000).strip('cdefgh' * 1000000) }}",
    "batch": "{{ [1]|batch(10**9, 'x')|list|length }}",
    "slice": "{{ [1]|slice(10**9)|list|length }}",
    "round": "{{ 1.5|round(10**8) }}",
    "sum of lists": "{{ ([[1]] * 10000)|sum(start=[])|length }}",
    "json indent": "{{ [[1]]|tojson(indent=10**9) }}",
    "json long indent": "{{ ([[[[[1]]]]] * 100)|tojson(indent='x' * 100000) }}",
    "slices": "{% set x = 'x' * 1000000 %}{% for i in range(99999) %}{% set y = x[1:] %}{% endfor %}",
    "searches": "{% set x = 'x' * 1000000 %}{% for i in range(99999) %}{% set y = 'y' in x %}{% endfor %}",
    "long literal": "{% macro m() %}"
    + "x" * 100000
    + "{% endmacro %}{% for i in range(99999) %}{{ m() }}{% endfor %}",
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "fors": "{% for i in [1] %}" * 30 + "{% endfor %}" * 30,
    "long source": " " * 300_000,
    "python": "{{ ''.__class__.__mro__ }}",
    "python by format": "{{ '{0.__class__}'.format('') }}{{ ''|attr('__class__') }}",
    "python by format_map": "{{ '{a}'.format_map({'a': 1}) }}",
    "include": "{% include 'x' %}",
    "random": "{{ lipsum() }}",
    "random choice": "{{ [1, 2]|random }}",
    "mutation": "{{ messages.append(1) }}",
    # Work that a count of sizes alone does not see.
    "rfind": _searching("x.rfind(y)"),
    "rindex": _searching("x.rindex(y)"),
    "rsplit": _searching("x.rsplit(y)"),
    "rpartition": _searching("x.rpartition(y)"),
    "find": _searching("z.find(w)"),
    "in": _searching("w in z"),
    "not in a chain": _searching("w not in z < z"),
    "in test": _searching("w is in z"),
    "replace search": _searching("z|replace(w, '')"),
    "huge integer in a test": _HUGE + "{{ x is odd }}",
    "huge integer in a filter": _HUGE + "{{ x|abs }}",
    "huge integer negated": _HUGE + "{{ -x }}",
    "huge integer to another base": "{{ ('z' * 300000)|int(base=35) }}",
    "huge integer in the source": "{{ -0x" + "f" * 200_000 + " }}",
    "printf keys": "{{ ('%(' * 100000) % {'a': 1} }}",
    "printf filter keys": "{{ ('%(' * 100000)|format(a=1) }}",
    "str.join of a generator": "{% set x = 'x' * 1000000 %}{{ ''.join(([x] * 3000)|select)|length }}",
    "cycler": "{% set x = 'x' * 3000000 %}{% set c = cycler(*x) %}",
    "arguments of a macro": "{% macro m() %}{% endmacro %}{% set x = 'x' * 3000000 %}{{ m(*x) }}",
    "braces": "{% for i in range(99) %}{% set z = ('{{' * 1000000).format() %}{% endfor %}",
    "nested bodies": "{% for i in [1] %}" * 120 + "{{ a.b.c.d.e }}" * 5000 + "{% endfor %}" * 120,
    "infinity": "{{ 1e999 }}",
    "minus infinity": "{{ -1e999|int }}",
    "infinity as an integer": "{{ (1e308 * 10)|int }}",
    "long output": "{{ 'x' * 3000000 }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_in_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_work, "BASE_ALLOWANCE", 200_000)
    started = time.process_time()
    with pytest.raises(TemplateFailed):
        BoundedTemplate(HOSTILE[name]).render(HI)
    assert time.process_time() - started < 5  # a tenth of a second on an idle machine


@pytest.mark.parametrize(
    "name", ["str.join of a generator", "cycler", "arguments of a macro", "string times"]
)
def test_what_is_refused_was_not_built(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TemplateFailed):
            BoundedTemplate(HOSTILE[name]).render(HI)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_the_bound_is_a_count() -> None:
    """The same template fails at the same place, however fast the machine."""
    template = BoundedTemplate("{% for i in range(n) %}{% for j in range(1000) %}{% endfor %}{% endfor %}")
    fits = template_work.BASE_ALLOWANCE // 1000 // 4
    assert template.render({"n": fits}) == ""
    with pytest.raises(TemplateFailed, match="too much work"):
        template.render({"n": fits * 4})


def test_the_output_is_bounded_by_the_input() -> None:
    template = BoundedTemplate("{{ 'x' * n }}{{ text }}")
    assert len(template.render({"n": 1_000_000, "text": "y" * 1_000_000})) == 2_000_000
    with pytest.raises(TemplateFailed, match=r"it writes 3000000 characters"):
        template.render({"n": 3_000_000, "text": ""})


def test_the_templates_own_exceptions_are_told_apart() -> None:
    with pytest.raises(TemplateRaised, match="no"):
        BoundedTemplate("{{ raise_exception('no') }}").render({})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ '%(a(b))s%%%(c)-4d|' % {'a(b)': 'x', 'c': 7} }}", "x%7   |"),
        ("{{ '%s%%%.2f%c' % ('a', 1.5, 'b') }}", "a%1.50b"),
        (
            "{{ 'b' in 'abc' }}{{ 'x' not in ['x'] }}{{ 1 in {1: 2} }}{{ (1, 2) in [(1, 2)] }}",
            "TrueFalseTrueTrue",
        ),
        ("{{ 'a' in 'ab' in ['ab'] }}{{ 'c' not in 'ab' != 'x' }}", "TrueTrue"),
        ("{{ 'x' in nothing }}{{ 2 is in range(3) }}{{ 'a' in messages[0] }}", "FalseTrueFalse"),
        (
            "{% macro m() %}{{ varargs|join }}{% endmacro %}{{ m(*'abc') }}{{ '-'.join(*[['a', 'b']]) }}",
            "abca-b",
        ),
        (
            "{{ 'a b a'.rsplit(' ', 1) }}{{ 'abab'.rfind('b') }}{{ 'ab'.rpartition('a') }}",
            "['a b', 'a']3('', 'a', 'b')",
        ),
        (
            "{{ ','.join('ab'|map('upper')) }}{{ -(1.5) }}{{ +2 }}{{ '12'|int }}{{ 'ff'|int(base=16) }}",
            "A,B-1.5212255",
        ),
    ],
)
def test_charges_change_no_result(source: str, text: str) -> None:
    assert BoundedTemplate(source).render(HI) == text
