"""Chat templates render as in transformers, and a hostile one ends in an error within bounds."""

from __future__ import annotations

import hashlib
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from infer_cli.errors import DeadlineExceeded, ModelInvalid, UsageError
from infer_cli.prompt.renderer import Renderer
from infer_cli.prompt.template import LEAST_SECONDS, ChatTemplate
from infer_cli.types import Message
from tests.hanging import HANG

NOW = datetime(2026, 7, 26, 12, 30, tzinfo=timezone.utc)
HI = [Message("user", "hi")]
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ALTERNATING = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
    {{ raise_exception('System role not supported') }}
{% endif %}
{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% set role = 'model' if message.role == 'assistant' else message.role %}
<start_of_turn>{{ role }}
{{ message.content | trim }}<end_of_turn>
{% endfor %}
"""


def _template(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos="<s>", eos="</s>", now=NOW)


def test_chatml() -> None:
    assert _template(CHATML).render(HI) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    text = _template(CHATML).render([Message("system", "S"), *HI], add_generation_prompt=False)
    assert text == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"


def test_blocks_are_trimmed_as_in_transformers() -> None:
    assert _template(ALTERNATING).render([Message("user", " a "), Message("assistant", "b")]) == (
        "<s><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
    )


def test_what_the_template_raises_is_shown() -> None:
    with pytest.raises(UsageError, match="refuses this conversation: System role not supported"):
        _template(ALTERNATING).render([Message("system", "S"), *HI])
    with pytest.raises(UsageError, match=r"roles must alternate user/assistant"):
        _template(ALTERNATING).render([*HI, *HI])


def test_an_ignored_system_message_is_an_error() -> None:
    source = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(UsageError, match="ignores the system message"):
        _template(source).render([Message("system", "S"), *HI])
    assert _template(source).render([Message("system", "  "), *HI]) == "hi"


def test_a_system_message_in_another_form_is_not_ignored() -> None:
    text = _template("{{ messages[0].content|upper }}|{{ messages[1].content }}").render(
        [Message("system", "be kind"), *HI]
    )
    assert text == "BE KIND|hi"


def test_extra_keys_tools_and_variables_are_seen() -> None:
    source = (
        "{{ messages[0].tool_calls[0].function.name }} {{ tools[0].name }} {{ mode }} {{ tools is not none }}"
        "{{ eos_token }}"
    )
    message = Message("assistant", "", {"tool_calls": [{"function": {"name": "f"}}]})
    assert _template(source).render([message], variables={"mode": "fast"}, tools=[{"name": "t"}]) == (
        "f t fast True</s>"
    )
    assert _template("{{ tools is none }}").render(HI) == "True"


@pytest.mark.parametrize("name", ["messages", "tools", "bos_token", "add_generation_prompt"])
def test_reserved_variables_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        _template("x").render(HI, variables={name: "y"})


def test_tojson_is_transformers() -> None:
    assert _template("{{ {'b': 'é<', 'a': [1, none, true]}|tojson }}").render(HI) == (
        '{"b": "é<", "a": [1, null, true]}'
    )
    assert _template("{{ {'b': [1]}|tojson(indent=2) }}").render(HI) == '{\n  "b": [\n    1\n  ]\n}'
    assert _template("{{ [1, 2]|tojson(separators=(',', ':')) }}").render(HI) == "[1,2]"


def test_the_clock_is_the_given_one() -> None:
    assert _template("{{ strftime_now('%d %b %Y') }}").render(HI) == "26 Jul 2026"
    zoned = datetime(2026, 7, 26, 12, 30, 5, tzinfo=timezone(timedelta(hours=2), "CEST"))
    template = ChatTemplate("{{ strftime_now('%H:%M:%S %z %Z é') }}", bos="", eos="", now=zoned)
    assert template.render(HI) == "12:30:05 +0200 CEST é"
    with pytest.raises(ModelInvalid, match="a date format of 200000 characters"):
        _template("{{ strftime_now('%Y' * 100000) }}").render(HI)


def test_extensions() -> None:
    source = (
        "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}"
    )
    assert _template(source + "{{ i }}{% endfor %}").render(HI) == "02"
    assert _template("{% generation %}{{ messages[0].content }}{% endgeneration %}!").render(HI) == "hi!"


PUBLISHED = [
    CHATML,
    """{%- set ns = namespace(last=0) -%}
{%- for m in messages[::-1] if m.role == 'user' -%}
    {%- set ns.last = (messages|length - 1) - loop.index0 -%}
{%- endfor -%}
{%- macro show(text, mark='*') -%}{{ mark ~ text.split(' ')[-1].strip('\n') ~ mark }}{%- endmacro -%}
{{ show(messages[-1]['content']) }} {{ ns.last }} {{ messages|map(attribute='role')|join(', ') }}
{% for key, value in {'a': 1}.items() %} {{ key }}={{ value }}{{ loop.length }}{{ loop.last }}{% endfor %}""",
    """{{ '%s-%03d'|format('x', 7) }} {{ '%s' % 'é' }} {{ '{:>4}'.format('y') }} {{ 'a' in 'abc' < 'b' }}
{{ {'k': 'v'}.get('k') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ [3, 1]|sort|first }} {{ nope is defined }} {{ nope }} {{ (1, 'a', none, true, 1.5, {'x': [1]}) }}
{{ messages[0].content|trim|upper|indent(2) }} {{ [1, 2, 3]|sum }} {{ 7 // 2 }} {{ 2 ** 9 }} {{ 'a' * 2 }}""",
    "{% set x %}{% filter upper %}{{ messages[0].content }}{% endfilter %}{% endset %}{{ x|upper }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}{{ messages[0]['content']|e }}{% endcall %}",
    "{% for x in [[1, [2]], 3] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}"
    "{% endfor %}{% for x in 'ab'|map('upper') %}{{ x }}{{ loop.index }}/{{ loop.length }} {% endfor %}",
    "{% for x in [] %}{{ x }}{% else %}none{% endfor %}{{ cycler('a', 'b').next() }}{% set j = joiner('|') %}"
    "{% for m in messages %}{{ j() }}{{ loop.cycle('o', 'e') }}"
    "{{ (loop.previtem|d({'role': '-'})).role }}{% endfor %}",
    "{{ messages[0].content[1:] }}{{ messages[:1]|length }}{{ 'x' if messages[0].content.startswith('a') }}"
    "{{ {'b': 1, 'a': 2}|dictsort }}{{ [1, 2, 3]|batch(2)|list }}{{ ['b', 'B', 'a']|unique|list }}",
    "{% for m in messages %}{% set c = m.content.strip().replace('a', 'x') %}{{ dict(a=c) }}{% endfor %}",
    "{{ ' x\ny'|indent(-1) }}",
    "{% block head %}{{ messages[0].role }}{% endblock %}{{ '<b>'|safe + '<i>' }}{{ self.head() }}",
]


@pytest.mark.parametrize("source", PUBLISHED)
def test_the_bounds_change_no_output(source: str) -> None:
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    messages = [Message("user", " a b<&"), Message("assistant", "c d\n")]
    wanted = plain.from_string(source).render(
        messages=[{"role": message.role, "content": message.content} for message in messages],
        add_generation_prompt=True,
    )
    assert _template(source).render(messages) == wanted


def test_a_syntax_error_names_its_line() -> None:
    with pytest.raises(ModelInvalid, match=r"in line 2: "):
        _template("ok\n{% if %}")


def test_a_failing_template_names_its_line() -> None:
    with pytest.raises(ModelInvalid, match=r"in line 3: 'nope' is undefined"):
        _template("a\nb\n{{ nope.x }}\n").render(HI)
    with pytest.raises(ModelInvalid, match=r"in line 2: "):
        _template("a\n{% for m in messages %}{{ m.content + 1 }}{% endfor %}").render(HI)


def test_source_facts() -> None:
    template = _template("<think>é")
    assert template.mentions("<think>")
    assert not template.mentions("[THINK]")
    assert template.sha256 == hashlib.sha256("<think>é".encode()).hexdigest()


def test_long_conversations_fit() -> None:
    messages = [Message("user" if i % 2 == 0 else "assistant", "word " * 20) for i in range(3000)]
    assert _template(ALTERNATING).render(messages).count("<end_of_turn>") == 3000
    text = _template(CHATML).render([Message("user", "x" * 10_000_000)])
    assert len(text) > 10_000_000


def test_a_template_at_its_ceiling_is_its_owners_fault() -> None:
    renderer = Renderer(seconds=1.5)
    renderer.begin()

    def template(file: str | None = None) -> ChatTemplate:
        return ChatTemplate(HANG, bos="", eos="", now=NOW, renderer=renderer, file=file)

    try:
        with pytest.raises(ModelInvalid, match=r"the model's chat template fails: it was not done in 1\.5 s"):
            template().render(HI)
        with pytest.raises(UsageError, match=r"the chat template mine\.jinja fails: it was not done"):
            template("mine.jinja").render(HI)
    finally:
        renderer.close()


def test_a_deadline_holds_for_all_renderings_together() -> None:
    template = _template(HANG)
    began = time.monotonic()
    limited = template.within(0.1)
    for _ in range(2):
        with pytest.raises(DeadlineExceeded, match="while the chat template was rendered"):
            limited.render(HI)
    assert LEAST_SECONDS <= time.monotonic() - began < 8
    assert _template(CHATML).within(0.0001).render(HI)


TOKENS = [
    "{{",
    "}}",
    "{%",
    "%}",
    "for",
    "x",
    "in",
    "messages",
    "endfor",
    "if",
    "endif",
    "|",
    "length",
    "(",
    ")",
    "[",
    "]",
    "0",
    "~",
    "+",
    "*",
    "'a'",
    ".",
    "content",
    "set",
    "=",
    "macro",
    "endmacro",
    "-",
    ":",
    "{#",
    "#}",
    "raise_exception",
    "namespace",
    "tojson",
    ",",
    "is",
    "not",
    "none",
    "loop",
]


@given(st.text(max_size=60) | st.lists(st.sampled_from(TOKENS), max_size=14).map(" ".join))
def test_any_source_renders_or_fails_with_one_line(source: str) -> None:
    try:
        assert isinstance(_template(source).render(HI), str)
    except (ModelInvalid, UsageError) as error:
        assert len(error.message.splitlines()) == 1


def test_rendering_in_threads() -> None:
    template = _template(CHATML)
    wanted = template.render(HI)
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(template.render(HI))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [wanted] * 8


# --- null content ---------------------------------------------------------------------------------

# What DeepSeek-R1-Distill-Llama does: a call is written where there is no content.
R1_CALLS = """{%- for message in messages %}
{%- if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{%- endif %}
{%- if message['role'] == 'assistant' and message['content'] is none %}
{%- for tool in message['tool_calls'] %}
{{- '<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n```json\\n' }}
{{- tool['function']['arguments'] + '\\n```<｜tool▁call▁end｜>' }}
{%- endfor %}
{%- endif %}
{%- if message['role'] == 'assistant' and message['content'] is not none %}
{{- '<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>' }}
{%- endif %}
{%- endfor %}"""


def _called(content: str | None, arguments: object = '{"city": "Paris"}') -> list[Message]:
    function = {"name": "get_weather", "arguments": arguments}
    calls = [{"type": "function", "function": function}]
    return [*HI, Message("assistant", content, {"tool_calls": calls})]


def test_null_content_stays_null() -> None:
    """The defect: as an empty text it left the call out."""
    assert _template(R1_CALLS).render(_called(None)) == (
        "<｜User｜>hi<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜>'
    )
    assert (
        _template("{{ messages[1].content is none }}{{ messages[1].tool_calls }}")
        .render(_called(None))
        .startswith("True")
    )


def test_calls_that_leave_no_trace_are_an_error() -> None:
    for source, messages in ((R1_CALLS, _called("")), (R1_CALLS, _called("x")), (CHATML, _called(None))):
        with pytest.raises(UsageError, match=r"ignores the tool calls of messages\[1\]"):
            _template(source).render(messages)
    # ... and not what an empty text would make of a template that fails with null for another reason.
    with pytest.raises(UsageError, match="ignores the tool calls"):
        _template(R1_CALLS).render(_called(None, {"city": "Paris"}))


@pytest.mark.parametrize("shown", ["m.content + ''", "m.content.split('</think>')[-1]", "m.content"])
def test_a_template_that_does_not_know_null_sees_an_empty_text(shown: str) -> None:
    """Qwen 3, gpt-oss and others fail with none; GLM 4.6 writes `None`."""
    source = (
        "{% for m in messages %}{{ " + shown + " }}{{ m.tool_calls|tojson if m.tool_calls }};{% endfor %}"
    )
    with_null, with_empty = (_template(source).render(_called(content)) for content in (None, ""))
    assert with_null == with_empty
    assert "get_weather" in with_null
    assert "None" not in with_null


def test_the_word_none_may_stand_in_a_conversation() -> None:
    source = "{{ messages[0].content }}{{ messages[1].content is none }}{{ messages[1].tool_calls|tojson }}"
    messages = [Message("user", "None"), *_called(None)[1:]]
    assert _template(source).render(messages).startswith("NoneTrue")
