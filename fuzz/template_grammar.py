"""Hostile templates by the thousand: programs that compile and try to take time and memory.

`template(random)` is one; the same state of `random` gives the same one. Expressions have types (text, list,
number, anything), because a program that fails at once tries nothing; a few are wrong all the same.
"""

from __future__ import annotations

import re
from random import Random

# `T`, `L`, `N`, `A` stand for an expression: a text, a list, a number, any. Two spaces are between forms.
_FORMS = {
    kind: re.split(r"\s{2,}", forms.strip())
    for kind, forms in {
        "T": r"""
            text  a  ns.t  'x' * 99999  'ab' * 30000  '😀' * 20000  text * 99  'a ' * 20000  'b'  ''
            '%(' * 2000  '%s' * 999  '{0}' * 2000  '\n' * 9999  (T) ~ (T)  (T) ~ (A)  (T) + (T)  (T) * (N)
            (T)[1:]  (T)[::-1]  (T)[:N]  (A)|string  (L)|join(T)  (T)|replace(T, T)  (T).replace(T, T, 9)
            (T)|upper  (T)|title  (T)|trim(T)  (T).strip(T)  (T)|indent(N)  (T)|indent(T, true)
            (T)|center(N)  (T).zfill(N)  (T).join(L)  (T).join((L)|map('string'))  (A)|tojson
            (A)|tojson(indent=N)  (T)|e  (T)|safe  (T)|truncate(N)  (T).casefold()  m(A, A)  m(*L)
            '%s %s' % (A, A)  '%s'|format(A)  (T).format(A, A)  (T).ljust(N, 'x')  (T).removeprefix(T)
        """,
        "L": r"""
            messages  b  ns.l  range(9999)  range(99999)|list  [0] * 9999  [A, A]  (A, A)
            [[[[[1]]]]] * 99  range(999)|map('string')|list
            [0, 2305843009213693951, 4611686018427387902] * 999  [A] * (N)  (L) + (L)  (L)[1:]  (L)[::-1]
            (T)|list  (L)|list  (T).split(T)  (T).rsplit(T)  (T).split()  (T).splitlines()
            (T).partition('b')  (T).rpartition('ab')  (L)|map('string')  (L)|select
            (L)|map('string')|map('upper')  (L)|map('string')|map('center', N)  (L)|reject
            (L)|unique|list  (L)|map('string')|map('replace', T, T)|list  (L)|map('string')|sort
            (L)|batch(N)  (L)|batch(N, A)  (L)|slice(N)  (L)|reverse|list  dict(x=A, y=A).items()
            dict(x=A)|dictsort  messages|groupby('role')  (L)|select('in', L)|list
            messages|selectattr('role', 'in', T)
        """,
        "N": r"""
            0  1  -1  7  300  9999  10 ** 4  3.5  1e308 * 10  2 ** 300  c  -(N)  (N) + (N)  (N) * (N)
            (N) // 7  (N) % 97  (N)|abs  (N)|round(N)  (L)|length  (T).rfind(T)  (T).find(T)  (T).count(T)
            (L|list).count(A)  (T)|int  (T)|int(0, 36)  ('f' * 99)|int(base=16)  (T)|float  (T)|wordcount
            [N, N]|sum  [N, N]|max
        """,
        "A": r"""
            (T)  (L)  (N)  none  true  dict(x=A)  {'k': A}  namespace(x=A)  cycler(*L).next()  joiner(T)()
            (A) == (A)  (A) != (A)  (A) in (L)  (T) in (T)  (T) not in (T)  (T) is in (T)  (A) is eq (A)
            (N) is odd  (N) is divisibleby 7  (A) if (A) else (A)  not (A)  (A) and (A)  (L)|first
            (L)|last  (T) < (T)  (T).startswith(T)  (A)|default(A)  dict(x=A).get(T)
            (L)|list|length is gt N
        """,
    }.items()
}
# Each of these fails, at once or when it is reached.
_WRONG = re.split(
    r"\s{2,}",
    r"""1e999  (A).__class__  ''|attr('x')  messages.append(1)  nothing.at.all  lipsum()  range(10**9)
    (T).format_map({})  (T).encode()  (A) < (A)  (A) + (A)  loop(A)  raise_exception(T)  -(T)  10 ** 9
    2 ** 900  '%*d' % (N, N)  (T) % (A)""",
)
_DEEPEST = 4


def template(random: Random) -> str:
    """A template that reads `text` (a string) and `messages` (of role and content)."""
    start = (
        f"{{% set ns = namespace(t='ab', l=[1, 'b']) %}}{{% set a = {_expression(random, 'T', 2)} %}}"
        f"{{% set b = {_expression(random, 'L', 2)} %}}{{% set c = {_expression(random, 'N', 2)} %}}"
    )
    macro = f"{{% macro m(p, q) %}}{{{{ p }}}}{{{{ varargs|length }}}}{_recursion(random)}{{% endmacro %}}"
    return macro + start + _body(random, 4)


def mutated(random: Random, source: str) -> str:
    """A template with parts of it left out, doubled or moved: most do not parse."""
    for _ in range(random.randint(1, 3)):
        start, end, to = sorted(random.randrange(len(source) + 1) for _ in range(3))
        part = source[start:end][:40]
        without = source[:start] + source[start + len(part) :]
        source = random.choice(
            (without, source[:to] + part + source[to:], without[:to] + part + without[to:])
        )
    return source


def _recursion(random: Random) -> str:
    return random.choice(("", "", "{{ m(q) }}", "{% if p %}{{ m(q, p) }}{{ m(q) }}{% endif %}"))


def _body(random: Random, depth: int) -> str:
    return "".join(_statement(random, depth) for _ in range(random.randint(1, 3)))


def _statement(random: Random, depth: int) -> str:
    kind = random.randrange(12) if depth else random.randrange(5)
    if kind < 2:
        return f"{{{{ {_expression(random, random.choice('TTLNA'), _DEEPEST)} }}}}"
    if kind < 5:
        grown = random.choice(
            (
                "{% set ns.t = ns.t ~ ns.t %}",
                "{% set ns.l = [ns.l, ns.l] %}",
                "{% set ns.l = ns.l + ns.l %}",
                f"{{% set ns.t = {_expression(random, 'T', _DEEPEST)} %}}",
                f"{{% set ns.l = {_expression(random, 'L', _DEEPEST)} %}}",
            )
        )
        return grown
    inner = _body(random, depth - 1)
    if kind < 9:
        condition = f" if {_expression(random, 'A', 2)}" if random.random() < 0.2 else ""
        recursive = " recursive" if random.random() < 0.1 else ""
        return f"{{% for i in {_expression(random, 'L', 2)}{condition}{recursive} %}}{inner}{{% endfor %}}"
    if kind == 9:
        return f"{{% if {_expression(random, 'A', 2)} %}}{inner}{{% else %}}{_body(random, 0)}{{% endif %}}"
    if kind == 10:
        return f"{{% set a %}}{inner}{{% endset %}}"
    return f"{{% filter {random.choice(('upper', 'e', 'indent', 'title'))} %}}{inner}{{% endfilter %}}"


def _expression(random: Random, kind: str, depth: int) -> str:
    """An expression of a type. The first forms of each are its leaves."""
    if random.random() < 0.004:
        form = random.choice(_WRONG)
    else:
        forms = _FORMS[kind] if kind != "A" or depth else _FORMS["N"]
        form = random.choice(forms if depth > 0 else [f for f in forms if not _holes(f)])
    return "".join(_expression(random, part, depth - 1) if part in _FORMS else part for part in _split(form))


def _holes(form: str) -> bool:
    return any(part in _FORMS for part in _split(form))


def _split(form: str) -> list[str]:
    """Letters that stand for an expression, and what is between them."""
    parts = [""]
    for i, char in enumerate(form):
        around = form[i - 1 : i] + form[i + 1 : i + 2]
        if char in _FORMS and not any(c.isalnum() or c in "_'" for c in around):
            parts += [char, ""]
        else:
            parts[-1] += char
    return parts
