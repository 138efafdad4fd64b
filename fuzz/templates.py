"""Chat templates and prompt templates: what nobody vouches for, compiled and rendered.

`jinja`: a model's own, with conversations of several kinds. `prompt`: a user's, with variables and an input.
Half of the generated ones are programs of `fuzz.template_grammar`. The others are real templates, taken apart
into pieces of expressions and put together otherwise; with INFER_TEST_SDIST (the unpacked sdist of
llama-cpp-python) those that llama.cpp ships are among them.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from fuzz import template_grammar
from fuzz.target import Input, Target
from infer_cli.errors import ExitStatus, InferError
from infer_cli.prompt.stored_prompts import PromptTemplate
from infer_cli.prompt.template import ChatTemplate
from infer_cli.prompt.template_check import STANDARD
from infer_cli.types import Message

_NOW = datetime(2026, 7, 26, 12, 30, tzinfo=timezone.utc)
_TOKEN = re.compile(r"\{%-?|-?%\}|\{\{-?|-?\}\}|\{#|#\}|'[^'\n]*'|\"[^\"\n]*\"|\w+|\s+|[^\w\s]|.", re.DOTALL)
_HOSTILE = (
    "'x' * 10**9", "10**10**8", "range(10**9)", "(m ~ m)", "m.rfind(m)", "m.rsplit(m)", "m.rpartition('a')",
    "m.replace('', m)", "('9' * 5000) | int", "('9' * 5000) | int(base=36)", "'%099999d' % 1",
    "'%*d' % (9, 9)",
    "'{:>99999}'.format(1)", "messages | map('string') | join(m)", "[m] * 10**6", "cycler(*range(10**6))",
    "joiner(m)", "namespace(a=m)", "messages | tojson(indent=9999)", "m | center(10**9)", "m | indent(10**9)",
    "m | wordwrap(1)", "m | batch(10**9) | list", "m | slice(10**9) | list", "messages | sum(start=[])",
    "1e999 | int", "1e999 | round", "-(1e999)", "0 / 0", "m[::-1]", "m[0:10**9]", "''.__class__.__mro__",
    "messages.__class__", "self", "caller()", "varargs", "loop", "m | attr('__class__')", "m.format_map({})",
    "raise_exception(m)", "strftime_now('%' * 199)", "strftime_now('%99999d')", "'a' < 1", "{} | dictsort",
    "{m: m}", "m in m", "messages | groupby('role')", "messages | selectattr('role', 'in', m) | list",
    "undefined_name", "undefined_name.x", "none.x", "m | truncate(10**9)", "m | escape | e | safe",
    "m | xmlattr",
    "m.encode()", "m.zfill(10**9)", "m.expandtabs(10**9)", "m.translate({})", "m.split('') ",
)  # fmt: skip
_STATEMENTS = (
    "{% for i in range(1000) %}", "{% for m in messages recursive %}", "{% endfor %}", "{% if m %}",
    "{% endif %}",
    "{% macro f(a) %}{{ f(a) }}{% endmacro %}{{ f(1) }}", "{% set x = m ~ m %}", "{% set ns.x = m %}",
    "{% endset %}",
    "{% call f() %}", "{% endcall %}", "{% filter upper %}", "{% endfilter %}", "{% block b %}",
    "{% endblock %}",
    "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{% raw %}", "{% endraw %}",
    "{% break %}",
    "{% continue %}", "{% generation %}", "{% endgeneration %}", "{% autoescape true %}", "{% with a = m %}",
    "{% set x %}", "{% else %}", "{% elif m %}", "{% do m %}", "{#", "#}", "{{ m }}", "{{ loop(m) }}",
)  # fmt: skip
_TALKS = tuple(talk for talk in STANDARD if talk.name in ("system prompt and several turns", "tool results"))
_HOSTILE_TALK = (
    Message("system", "a" * 500),
    Message("user", "%s%n{{ 7 }}\u202e\x1b[2J\0<|im_end|>" * 20, {"name": {"a": [1, None]}}),
)


class TemplatesTarget(Target):
    name = "templates"
    statuses = frozenset({ExitStatus.MODEL_INVALID, ExitStatus.USAGE})

    most_seconds = 10.0
    most_memory = 1100 * 2**20  # a little above the ceiling of what renders them

    @classmethod
    def big_inputs(cls) -> Mapping[str, Callable[[], Input]]:
        def jinja(source: str) -> Callable[[], Input]:
            return lambda: Input("jinja", source.encode())

        body = "{{ x.y[0] ~ 1 }}" * 10_000
        return {
            "many-loops": jinja("{% for a in [1] %}" * 120 + body + "{% endfor %}" * 120),
            "many-blocks": jinja(
                "{% if 1 %}" * 15
                + "{% for a in [1] %}" * 15
                + body
                + "{% endfor %}" * 15
                + "{% endif %}" * 15
            ),
            "long-source": jinja("{{ 1 }}" * 37_000),
            "too-long-source": jinja("x" * 300_000),
            "long-expression": jinja("{{ 1" + " + 1" * 60_000 + " }}"),
        }

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        sources = [given.data.decode() for given in self.seed_inputs() if given.kind == "jinja"]
        if sdist := os.environ.get("INFER_TEST_SDIST"):
            folder = Path(sdist) / "vendor" / "llama.cpp" / "models" / "templates"
            sources += [path.read_text("utf-8") for path in sorted(folder.glob("*.jinja"))]
        self._tokens = [_TOKEN.findall(source) for source in sources]
        attacks = [make() for name, make in self.corpus().items() if name.startswith("hostile-")]
        self._attacks = [_TOKEN.findall(given.data.decode("utf-8", "replace")) for given in attacks]

    def generate(self, rng: random.Random) -> Input:
        if rng.random() < 0.5:
            return Input("jinja", template_grammar.template(rng).encode())
        kind = "prompt" if rng.random() < 0.1 else "jinja"
        tokens = list(rng.choice(self._tokens if rng.random() < 0.98 else self._attacks))
        if len(tokens) > 400 and rng.random() < 0.5:
            start = rng.randrange(len(tokens) - 300)
            tokens = tokens[start : start + rng.randrange(20, 300)]
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            _change(rng, tokens, rng.choice(self._tokens))
        return Input(kind, "".join(tokens).encode())

    def check(self, given: Input) -> None:
        source = given.data.decode("utf-8", "replace")
        if given.kind == "prompt":
            template = PromptTemplate("x", source)
            template.render(dict.fromkeys(template.variables, "ab" * 200), "the input")
            return
        chat = ChatTemplate(source, bos="<s>", eos="</s>", now=_NOW)
        failure: InferError | None = None
        for talk in _TALKS:
            try:
                chat.render(talk.messages, tools=talk.tools, add_generation_prompt=talk.add_generation_prompt)
            except InferError as error:
                failure = failure or error
        chat.text(_HOSTILE_TALK)
        if failure is not None:
            raise failure


def _change(rng: random.Random, tokens: list[str], others: list[str]) -> None:
    at = rng.randrange(len(tokens) + 1)
    choice = rng.randrange(8)
    if choice == 0:
        del tokens[at : at + rng.choice((1, 1, 2, 5))]
    elif choice == 1:
        start = rng.randrange(len(others) + 1)
        tokens[at:at] = others[start : start + rng.choice((1, 3, 10, 30))]
    elif choice == 2 and tokens:
        tokens[at % len(tokens)] = rng.choice(others) if others else ""
    elif choice in (3, 4):
        tokens.insert(at, "{{ (" + _expression(rng) + ") }}")
    elif choice == 5:
        tokens.insert(at, rng.choice(_STATEMENTS))
    elif choice == 6:
        names = [i for i, token in enumerate(tokens) if token.isidentifier()]
        if names:
            tokens[rng.choice(names)] = f"({_expression(rng)})"
    else:
        tokens.insert(at, "{% set m = " + _expression(rng) + " %}")


def _expression(rng: random.Random) -> str:
    m = rng.choice(
        ("messages[0].content", "'ab' * 900", "messages", "m", "range(99)", "'é%d' ", "tools", "x")
    )
    return re.sub(r"\bm\b", m, rng.choice(_HOSTILE))
